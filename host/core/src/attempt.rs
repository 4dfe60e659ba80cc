//! Attempts that ended without a result, as their job keeps them.

use std::sync::Arc;

use crate::bounds;
use crate::fingerprint::Fingerprint;
use crate::ids::NodeId;
use crate::outcome::{Report, Usage};
use crate::time::Timestamp;

/// The node and the plugin of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptOrigin {
    /// The name of the node.
    pub node_name: String,
    /// The version of the plugin, from its manifest.
    pub plugin_version: String,
    /// The digest of the plugin's file.
    pub digest: String,
}

/// The end of an attempt without a result, as its job's list of attempts keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedAttempt {
    /// The number of the attempt.
    pub number: u32,
    /// The node that had leased the job.
    pub node: NodeId,
    /// The node and the plugin of the attempt. `None` if the node did not record the end, or if the attempt never started.
    pub origin: Option<Arc<AttemptOrigin>>,
    /// The report of the attempt; its text has at most `bounds::ATTEMPT_REPORT_BYTES_MAX` bytes.
    pub report: Report,
    /// Resource usage of the attempt. `None` if nobody measured it.
    pub usage: Option<Usage>,
}

/// An attempt that ended without a result, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The end of the attempt.
    pub end: EndedAttempt,
    /// The fingerprint of an attempt that failed.
    pub fingerprint: Option<Fingerprint>,
    /// When the job was claimed for the attempt.
    pub began: Option<Timestamp>,
    /// When the store recorded the end.
    pub ended: Timestamp,
}

impl AttemptOrigin {
    /// Describes a node and a plugin. The version, which is whatever the plugin says, is kept as [`short_version`].
    pub fn new(node_name: &str, plugin_version: &str, digest: &str) -> AttemptOrigin {
        let plugin_version = short_version(plugin_version);
        AttemptOrigin { node_name: node_name.to_owned(), plugin_version, digest: digest.to_owned() }
    }
}

/// Returns a plugin's version in at most `bounds::VERSION_BYTES_MAX` bytes, without control characters.
pub fn short_version(version: &str) -> String {
    version[..version.floor_char_boundary(bounds::VERSION_BYTES_MAX)].replace(char::is_control, " ")
}

impl EndedAttempt {
    /// Returns the first line of the report.
    pub fn first_line(&self) -> &str {
        self.report.text.lines().next().unwrap_or_default()
    }
}

/// Returns the number of the attempt that is dropped from its job's list when attempt `number` is added. Every earlier
/// attempt of the job is in the list or was dropped from it: an attempt with a result is a job's last.
pub const fn dropped_attempt(number: u32) -> Option<u32> {
    if number > bounds::ATTEMPTS_KEPT_OLDEST + bounds::ATTEMPTS_KEPT_NEWEST {
        Some(number - bounds::ATTEMPTS_KEPT_NEWEST)
    } else {
        None
    }
}

/// Returns how many attempts were dropped from a job's list that is now `kept`, in ascending order.
pub fn dropped_count(kept: &[Attempt]) -> u32 {
    kept.last().map_or(0, |last| last.end.number.saturating_sub(u32::try_from(kept.len()).unwrap_or(u32::MAX)))
}

/// Cuts a report to the size in which an attempt keeps it.
pub(crate) fn shortened(report: &Report) -> Report {
    const CUT: &str = " ...";
    let text = &report.text;
    if text.len() <= bounds::ATTEMPT_REPORT_BYTES_MAX {
        return report.clone();
    }
    let end = text.floor_char_boundary(bounds::ATTEMPT_REPORT_BYTES_MAX - CUT.len());
    Report { kind: report.kind, text: format!("{}{CUT}", &text[..end]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::OutcomeKind;

    fn attempt(number: u32) -> Attempt {
        let report = Report { kind: OutcomeKind::Failed, text: "no\nwhy".to_owned() };
        let end = EndedAttempt { number, node: NodeId(1), origin: None, report, usage: None };
        Attempt { end, fingerprint: None, began: None, ended: Timestamp::ZERO }
    }

    #[test]
    fn the_oldest_and_the_newest_attempts_are_kept_and_the_others_are_counted() {
        let mut kept: Vec<Attempt> = Vec::new();
        for number in 1..=1000 {
            kept.push(attempt(number));
            if let Some(dropped) = dropped_attempt(number) {
                let before = kept.len();
                kept.retain(|attempt| attempt.end.number != dropped);
                assert_eq!(kept.len(), before - 1, "{dropped} was there");
            }
            assert_eq!(kept.len() as u32 + dropped_count(&kept), number);
        }
        let numbers: Vec<u32> = kept.iter().map(|attempt| attempt.end.number).collect();
        let expected: Vec<u32> =
            (1..=bounds::ATTEMPTS_KEPT_OLDEST).chain(1001 - bounds::ATTEMPTS_KEPT_NEWEST..=1000).collect();
        assert_eq!(numbers, expected);
        assert_eq!((dropped_count(&[]), attempt(1).end.first_line()), (0, "no"));
    }

    #[test]
    fn a_version_is_short_and_has_no_control_characters() {
        let origin = AttemptOrigin::new("node", &format!("1\0\n{}", "é".repeat(200)), "abc");
        assert!(origin.plugin_version.len() <= bounds::VERSION_BYTES_MAX && origin.plugin_version.starts_with("1  éé"));
    }

    #[test]
    fn a_long_report_is_cut_between_characters() {
        let report = |text: String| Report { kind: OutcomeKind::Trapped, text };
        let fits = report("x".repeat(bounds::ATTEMPT_REPORT_BYTES_MAX));
        assert_eq!(shortened(&fits), fits);
        let cut = shortened(&report("é".repeat(bounds::ATTEMPT_REPORT_BYTES_MAX)));
        assert!(cut.text.len() <= bounds::ATTEMPT_REPORT_BYTES_MAX && cut.text.ends_with("é ..."));
    }
}
