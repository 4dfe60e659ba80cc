//! How failure groups are written as columns, and read back.

use wharf_core::failure::{FailureGroup, FailureState, FailureStateChange};
use wharf_core::outcome::OutcomeKind;

use crate::columns::{self, DamagedData, parse};

/// The columns of a failure group.
#[derive(Debug)]
pub(crate) struct FailureColumns<'r> {
    pub(crate) fingerprint: &'r str,
    pub(crate) task: &'r str,
    pub(crate) outcome: &'r str,
    pub(crate) message: String,
    pub(crate) failures: i64,
    pub(crate) keys: u32,
    /// In microseconds since 1970, as all moments here.
    pub(crate) first_seen_at: i64,
    pub(crate) last_seen_at: i64,
    pub(crate) state: &'r str,
    pub(crate) changed_at: Option<i64>,
    pub(crate) changed_by: Option<String>,
    pub(crate) regressed_at: Option<i64>,
}

impl FailureColumns<'_> {
    /// Converts the columns to a group.
    ///
    /// # Errors
    /// If one of them has a value that is not valid.
    pub(crate) fn group(self) -> Result<FailureGroup, DamagedData> {
        let outcome = self.outcome;
        let by = self.changed_by;
        Ok(FailureGroup {
            fingerprint: parse("fingerprint", self.fingerprint)?,
            task: parse("task", self.task)?,
            outcome: OutcomeKind::from_name(outcome).ok_or_else(|| DamagedData::invalid("outcome", outcome))?,
            message: self.message,
            count: columns::unsigned(self.failures),
            keys: self.keys,
            first_seen: columns::timestamp(self.first_seen_at),
            last_seen: columns::timestamp(self.last_seen_at),
            state: FailureState::from_name(self.state)
                .ok_or_else(|| DamagedData::invalid("state of a failure group", self.state))?,
            changed: self.changed_at.map(|at| FailureStateChange { at: columns::timestamp(at), by }),
            regressed: self.regressed_at.map(columns::timestamp),
        })
    }
}
