//! Answers to probes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{HealthStatus, ReadyStatus};

/// Readiness of a host: whether it takes and runs jobs.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Readiness {
    /// `ready` if there are no reasons against it.
    pub(crate) status: ReadyStatus,
    /// Reasons why the host is not ready.
    pub(crate) reasons: Vec<String>,
    /// Number of attempts that run on this host.
    pub(crate) running: u32,
    /// Number of attempts that may run at once on this host.
    pub(crate) capacity: u32,
}

impl Readiness {
    /// Returns the readiness of a host that is not ready for these reasons, or is ready if there are none.
    pub(crate) fn new(reasons: Vec<String>, running: u32, capacity: u32) -> Readiness {
        let status = if reasons.is_empty() { ReadyStatus::Ready } else { ReadyStatus::NotReady };
        Readiness { status, reasons, running, capacity }
    }
}

/// Health of the process.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Health {
    /// Always `alive`: a process that is not does not answer.
    pub(crate) status: HealthStatus,
}

impl Health {
    /// The health of a process that answers.
    pub(crate) const ALIVE: Health = Health { status: HealthStatus::Alive };
}
