//! Everything that happens over time: jobs are claimed and run, plugins come and go, leases are held.
//! Knows no HTTP, no SQL and no settings files. Modules stand in reading order; each uses only those above it.

mod notice;
mod catalog;
mod others;
mod request;
mod follow;
mod shared;
mod children;
mod word;
mod insert;
mod store_wait;
mod kept;
mod broadcast;
mod desk;
mod attempt;
mod paces;
mod dispatch;
mod listing;
mod folder;
mod upkeep;
mod roster;
mod limits;
mod waiting;
mod answer;
mod start;
mod host;

pub use answer::{AskError, Durable, EnqueueError, Enqueued, Vitals};
pub use broadcast::{Batch, BatchJob, Broadcast, BroadcastError, Replies};
pub use catalog::{Catalog, Coming, Loaded, Refused, Step};
pub use follow::Followed;
pub use host::Host;
pub use limits::{GroupLimits, LimitError};
pub use notice::{AttemptEnded, BroadcastEnded, BroadcastEnding, Notice};
pub use request::{BadRequest, Making, Rejected, Request};
pub use start::{Parts, Settings, StartError};
pub use waiting::{JobView, WhyWaiting};
