//! What a host returns to its clients.

use wharf_core::ids::{JobId, PluginId};
use wharf_core::lifecycle::Refusal;
use wharf_core::topic::Topic;
use wharf_store::{Inserted, StoreError};

use crate::parse_room::NoRoom;
use crate::queue_bounds::QueueFull;
use crate::rejection::EnqueueRejection;

/// Why jobs were not enqueued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// The requests were rejected. Nothing was enqueued.
    #[error(transparent)]
    EnqueueRejection(EnqueueRejection),
    /// Transient: as many jobs of a plugin wait as may. Nothing was enqueued.
    #[error(transparent)]
    QueueFull(#[from] QueueFull),
    /// There was no room for a payload while it is parsed. Nothing was enqueued.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The store failed. After [`StoreError::Unknown`] the jobs may have been enqueued.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a job was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The state of the job does not allow the change.
    #[error(transparent)]
    Refused(Refusal),
    /// Transient: as many jobs of the plugin wait as may.
    #[error(transparent)]
    QueueFull(#[from] QueueFull),
    /// The store failed. After [`StoreError::Unknown`] the job may have been changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of one request to enqueue a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// A job was added.
    Added(JobId),
    /// A job with the same token exists already.
    Duplicate(JobId),
    /// The job's lane was full, and its task says `discard`.
    Discarded {
        /// The jobs that hold the slots of the lane (the first ten).
        holders: Vec<JobId>,
    },
}

impl From<Inserted> for Enqueued {
    fn from(inserted: Inserted) -> Enqueued {
        match inserted {
            Inserted::Added { id, .. } => Enqueued::Added(id),
            Inserted::Duplicate { id } => Enqueued::Duplicate(id),
            Inserted::Discarded { holders } => Enqueued::Discarded { holders },
        }
    }
}

/// The result of starting a durable broadcast.
#[derive(Clone, Debug)]
pub struct Durable {
    /// The ID of the broadcast, see [`Host::batch`](crate::Host::batch).
    pub id: JobId,
    /// The topic.
    pub topic: Topic,
    /// The subscribers, ordered by plugin, each with the result of enqueueing its job.
    pub jobs: Vec<(PluginId, Enqueued)>,
}

/// The health of a host at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSnapshot {
    /// Number of attempts that run now.
    pub running: u32,
    /// The maximum number of attempts at once.
    pub capacity: u32,
    /// The host claims no jobs: it is stopping, or an operator drains it.
    pub draining: bool,
    /// The host is stopping.
    pub stopping: bool,
    /// Number of live broadcasts that are open now, at every depth.
    pub broadcasts: usize,
    /// Every file that was in the plugin folder at the start was loaded or refused.
    pub first_scan_done: bool,
    /// The last failure of the store, if it has not recovered since.
    pub store: Result<(), String>,
    /// False once the host has stopped, or a bug has ended its loop: it runs no more jobs.
    pub alive: bool,
}
