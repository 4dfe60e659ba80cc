//! Everything that happens over time: jobs are claimed and run, plugins come and go, leases are held.
//! Knows no HTTP, no SQL and no settings files. Modules stand in reading order; each uses only those above it.

mod notice;
mod catalog;
mod request;
mod word;
mod desk;
mod attempt;
mod follow;
mod shared;
mod dispatch;
mod listing;
mod folder;
mod upkeep;
mod limits;
mod waiting;
mod host;

pub use catalog::{Catalog, Loaded, Refused};
pub use follow::Followed;
pub use host::{AskError, EnqueueError, Enqueued, Host, Parts, Settings, StartError, Vitals};
pub use limits::{GroupLimits, LimitError};
pub use notice::{AttemptEnded, Notice};
pub use request::{BadRequest, Rejected, Request};
pub use waiting::{JobView, WhyWaiting};
