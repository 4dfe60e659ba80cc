//! Fingerprints: what the failures of one cause have in common.

use std::fmt;
use std::str::FromStr;

use crate::ids::{ParseIdError, TaskName};
use crate::outcome::{OutcomeKind, Report};

mod sha256;
mod message;
mod frames;

/// The fingerprint of a failure. Failures with equal fingerprints are one failure group.
///
/// Written as `f1:` and 16 hexadecimal digits; the number after the `f` is the version of the rule that made it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    version: u16,
    hash: u64,
}

/// The version of the rule in this file. It changes when equal failures would get another fingerprint than before.
const VERSION: u16 = 1;
const HASH_CHARS: usize = 16;

impl Fingerprint {
    /// Computes the fingerprint of a failure of a job: its task, the outcome, the first line of the report without what
    /// differs from job to job, and for a trap the functions in which it happened.
    pub fn of(task: &TaskName, report: &Report) -> Fingerprint {
        let mut parts = vec![task.as_str().to_owned(), report.kind.as_str().to_owned(), normalised_message(report)];
        if report.kind == OutcomeKind::Trapped {
            parts.extend(frames::functions(&report.text));
        }
        Fingerprint { version: VERSION, hash: sha256::first_64_bits(parts.join("\0").as_bytes()) }
    }
}

/// Returns the first line of a report without numbers, times, IDs, hashes and quoted texts.
pub fn normalised_message(report: &Report) -> String {
    message::normalised(report.text.lines().next().unwrap_or_default())
}

/// Hashes a text to 64 bits, such that nobody can find two texts with one hash at will.
pub fn hash(text: &str) -> u64 {
    sha256::first_64_bits(text.as_bytes())
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("f{}:{:016x}", self.version, self.hash))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let parsed = text.strip_prefix('f').and_then(|rest| rest.split_once(':')).and_then(|(version, hash)| {
            let is_hash = hash.len() == HASH_CHARS && hash.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
            let version: u16 =
                version.parse().ok().filter(|number: &u16| *number > 0 && number.to_string() == version)?;
            Some(Fingerprint { version, hash: u64::from_str_radix(hash, 16).ok().filter(|_| is_hash)? })
        });
        parsed.ok_or_else(|| {
            ParseIdError::new("fingerprint", text, format!("expected `f1:` and {HASH_CHARS} digits from 0-9 and a-f"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(task: &str, kind: OutcomeKind, text: &str) -> Fingerprint {
        Fingerprint::of(&task.parse().unwrap(), &Report { kind, text: text.to_owned() })
    }

    #[test]
    fn failures_of_one_cause_have_one_fingerprint_and_others_have_others() {
        let failed = |text: &str| of("shop/pay", OutcomeKind::Failed, text);
        assert_eq!(failed("no order 17 of 'acme'"), failed("no order 18 of 'beta'\nmore"));
        assert_ne!(failed("no order 17"), failed("no customer 17"));
        assert_ne!(failed("no order 17"), of("shop/refund", OutcomeKind::Failed, "no order 17"));
        assert_ne!(failed("no order 17"), of("shop/pay", OutcomeKind::Trapped, "no order 17"));
        let trapped = |function: &str| format!("trapped: unreachable\nwhere:\n   0: {function} at a.rs:1");
        let of_trap = |function: &str| of("shop/pay", OutcomeKind::Trapped, &trapped(function));
        assert_ne!(of_trap("shop::pay"), of_trap("shop::parse"));
        // Where a limit of time struck is chance.
        let timed_out = |function: &str| of("shop/pay", OutcomeKind::TimedOut, &trapped(function));
        assert_eq!(timed_out("shop::pay"), timed_out("shop::parse"));
    }

    #[test]
    fn the_rule_makes_the_fingerprints_that_it_made_before() {
        let known = of("words/count", OutcomeKind::Failed, "no order 17");
        assert_eq!(known.to_string(), "f1:7c7dab2845b86bc5");
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_written() {
        for text in ["f1:0000000000000000", "f1:00ff3ad41b2c9e07", "f12:ffffffffffffffff"] {
            assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "f1",
            "f1:",
            "f0:0000000000000000",
            "f01:0000000000000000",
            "f+1:0000000000000000",
            "f1:000000000000000",
            "f1:+000000000000000",
            "f1:000000000000000A",
            "1:0000000000000000",
            "f99999:0000000000000000",
        ] {
            let error = bad.parse::<Fingerprint>().unwrap_err();
            assert_eq!(error.reason, "expected `f1:` and 16 digits from 0-9 and a-f", "{bad}");
        }
    }
}
