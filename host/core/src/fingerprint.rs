//! Fingerprints: what the failures of one cause have in common.

use std::fmt;
use std::str::FromStr;

use crate::ids::ParseIdError;

/// The fingerprint of a failure. Failures with equal fingerprints are one failure group.
///
/// Written as `f1:` and 16 hexadecimal digits; the number after the `f` is the version of the rule that made it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    version: u16,
    hash: u64,
}

const HASH_CHARS: usize = 16;

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
