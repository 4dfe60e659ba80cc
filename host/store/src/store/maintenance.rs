//! What is done to a store besides running jobs: backups, and checks of its contents.

use std::time::Duration;

use super::error::OpenError;

/// Number of damaged things that a fault names.
const SAMPLES_MAX: usize = 5;

/// What a store holds: each kind of thing with its number.
pub type Contents = Vec<(&'static str, u64)>;

/// A finished backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// Size of the backup in bytes.
    pub bytes: u64,
    /// What the backup holds.
    pub contents: Contents,
    /// Bytes by which the write-ahead log of the store grew meanwhile.
    pub log_growth: u64,
    /// Time that the backup took.
    pub took: Duration,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// What the store holds.
    pub contents: Contents,
    /// The rules that do not hold; none if the store is sound.
    pub faults: Vec<Fault>,
}

/// A rule that does not hold in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule.
    pub rule: &'static str,
    /// Number of things that break it.
    pub count: u64,
    /// The first of them.
    pub samples: Vec<String>,
}

impl CheckReport {
    /// Adds what breaks a rule, if anything does.
    pub(crate) fn add(&mut self, rule: &'static str, broken_by: impl IntoIterator<Item = String>) {
        let (mut count, mut samples) = (0, Vec::new());
        for broken in broken_by {
            count += 1;
            if samples.len() < SAMPLES_MAX {
                samples.push(broken);
            }
        }
        if count > 0 {
            self.faults.push(Fault { rule, count, samples });
        }
    }
}

/// Why a backup, a restore or a check was not done.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The store or the backup cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store is not a file, and this is done by other means.
    #[error("{0}")]
    OtherMeans(String),
    /// A file cannot be written or read.
    #[error("could not {doing} {file}: {reason}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The path of the file.
        file: String,
        /// The reason.
        reason: String,
    },
}
