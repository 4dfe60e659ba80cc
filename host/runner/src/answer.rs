//! What a host answers to those who ask it.

use wharf_core::ids::{JobId, PluginId};
use wharf_core::lifecycle::Refusal;
use wharf_core::topic::Topic;
use wharf_store::{Inserted, StoreError};

use crate::request::EnqueueRejection;

#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// Nothing was enqueued: what was asked must be mended first.
    #[error(transparent)]
    EnqueueRejection(EnqueueRejection),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    Added(JobId),
    /// A job with the same token stands.
    Duplicate(JobId),
    /// Its lane was full, and its task says that it is then not taken: these jobs hold the slots (the first ten).
    Discarded {
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

/// What became of a durable broadcast when it was asked for.
#[derive(Clone, Debug)]
pub struct Durable {
    pub id: JobId,
    pub topic: Topic,
    /// By plugin.
    pub jobs: Vec<(PluginId, Enqueued)>,
}

/// How a host is, at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSnapshot {
    /// Attempts that run now, and may.
    pub running: u32,
    pub capacity: u32,
    pub draining: bool,
    /// Live broadcasts that are open now, at every depth.
    pub broadcasts: usize,
    /// Every file that was in the plugin folder at the start was loaded or refused.
    pub first_scan_done: bool,
    /// What the store said when it last failed, if it has not worked since.
    pub store: Result<(), String>,
    /// False once it has stopped, or a bug of the host has ended its loop: it runs no more jobs.
    pub alive: bool,
}
