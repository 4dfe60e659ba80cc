//! Everything that happens over time: jobs are claimed and run, plugins come and go, leases are held.
//! Knows no HTTP, no SQL and no settings files. Modules stand in reading order; each uses only those above it.

mod notice;
mod catalog;
mod other_nodes;
mod request;
mod follow;
mod shared;
mod child_jobs;
mod loop_message;
mod enqueuer;
mod store_wait;
mod kv_view;
mod broadcast;
mod attempt_host;
mod attempt;
mod task_concurrency;
mod dispatch;
mod dir_scan;
mod folder;
mod upkeep;
mod heartbeat;
mod limits;
mod wait_reason;
mod answer;
mod start;
mod host;

pub use answer::{ChangeError, Durable, EnqueueError, Enqueued, HealthSnapshot};
pub use broadcast::{Batch, BatchJob, Broadcast, BroadcastError, Replies};
pub use catalog::{Catalog, Loaded, PendingFile, Refused, Step};
pub use follow::JobUpdate;
pub use host::Host;
pub use limits::{GroupLimits, LimitError};
pub use notice::{AttemptEnded, BroadcastEnded, BroadcastEnding, Notice};
pub use request::{BadRequest, EnqueueRejection, LoadingWhere, Request};
pub use start::{Parts, Settings, StartError};
pub use wait_reason::{JobView, JobWaitReason};
