//! How attempts are written as columns, and read back.

use std::sync::Arc;

use wharf_core::attempt::{Attempt, AttemptOrigin, EndedAttempt};
use wharf_core::ids::NodeId;

use crate::columns::{self, DamagedData};

/// The columns of an attempt that ended without a result.
#[derive(Debug)]
pub(crate) struct AttemptColumns {
    pub(crate) number: u32,
    pub(crate) node: i64,
    /// This and the next two columns are null if nobody recorded where the attempt ran.
    pub(crate) node_name: Option<String>,
    pub(crate) plugin_version: Option<String>,
    pub(crate) digest: Option<String>,
    /// In microseconds since 1970.
    pub(crate) began_at: Option<i64>,
    /// In microseconds since 1970.
    pub(crate) ended_at: i64,
    pub(crate) outcome: String,
    pub(crate) report: String,
    pub(crate) fingerprint: Option<String>,
    /// Read by [`columns::usage`].
    pub(crate) usage: [Option<i64>; 6],
}

impl AttemptColumns {
    /// Converts the columns to an attempt.
    ///
    /// # Errors
    /// If the outcome or the fingerprint is not valid.
    pub(crate) fn attempt(self) -> Result<Attempt, DamagedData> {
        let origin = match (self.node_name, self.plugin_version, self.digest) {
            (Some(node_name), Some(plugin_version), Some(digest)) => {
                Some(Arc::new(AttemptOrigin { node_name, plugin_version, digest }))
            }
            _ => None,
        };
        let end = EndedAttempt {
            number: self.number,
            node: NodeId(columns::unsigned(self.node)),
            origin,
            report: columns::report(&self.outcome, self.report)?,
            usage: columns::usage(self.usage),
        };
        let fingerprint = self.fingerprint.map(|text| columns::parse("fingerprint", &text)).transpose()?;
        Ok(Attempt {
            end,
            fingerprint,
            began: self.began_at.map(columns::timestamp),
            ended: columns::timestamp(self.ended_at),
        })
    }
}
