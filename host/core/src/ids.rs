//! IDs and names of jobs, plugins, tasks, groups and nodes. A value of these types has been parsed and is valid.

mod job_ids;
mod names;

use std::fmt;

pub use job_ids::{JobId, JobIds, ReservedIds};
pub use names::{Group, PluginId, ScheduleId, TaskName};

/// Number of characters of a rejected text that an error quotes.
const QUOTED_CHARS_MAX: usize = 80;

/// A text that is not a valid ID, name, key, token, topic or subscription.
/// Displays as "invalid job ID `x`: expected 13 characters from 0-9 and a-z".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIdError {
    /// Kind of ID that the text was parsed as, such as "job ID".
    pub kind: &'static str,
    /// The beginning of the rejected text.
    pub text: String,
    /// Why it was rejected: the part of the message after the colon.
    pub reason: String,
}

impl ParseIdError {
    pub(crate) fn new(kind: &'static str, text: &str, reason: impl Into<String>) -> ParseIdError {
        ParseIdError { kind, text: text.chars().take(QUOTED_CHARS_MAX).collect(), reason: reason.into() }
    }
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {} `{}`: {}", self.kind, self.text.escape_debug(), self.reason)
    }
}

impl std::error::Error for ParseIdError {}

/// The ID of one running host, drawn at random when it starts. A restarted host is another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_quotes_the_beginning_of_a_long_text() {
        let error = "X".repeat(5000).parse::<PluginId>().unwrap_err();
        assert_eq!((error.text.len(), error.kind), (QUOTED_CHARS_MAX, "name"));
        let shown = "a\n".parse::<JobId>().unwrap_err().to_string();
        assert_eq!(shown, r"invalid job ID `a\n`: expected 13 characters from 0-9 and a-z");
    }

    #[test]
    fn a_node_id_is_written_with_all_its_digits() {
        assert_eq!((NodeId(0xff).to_string().as_str(), NodeId(u64::MAX).to_string().len()), ("00000000000000ff", 16));
    }
}
