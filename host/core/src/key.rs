//! Keys, and the lanes in which jobs wait.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::bounds;
use crate::ids::{Group, ParseIdError};

/// The party on whose account a job runs, such as a tenant or a user. Per-key limits count running jobs by it.
/// Any text of 1 to `bounds::KEY_BYTES_MAX` bytes without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Returns the key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let reason = match text.len() {
            n if n == 0 || n > bounds::KEY_BYTES_MAX => {
                format!("expected 1 to {} bytes, got {n}", bounds::KEY_BYTES_MAX)
            }
            _ if text.chars().any(char::is_control) => "control characters are not allowed".to_owned(),
            _ => return Ok(Key(text.into())),
        };
        Err(ParseIdError::new("key", text, reason))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A limit group and a key. Within a lane, jobs run in the order in which they became due; lanes take turns.
/// The jobs of a group that have no key share one lane, with the same limit as any other lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The limit group.
    pub group: Group,
    /// The key; `None` is the lane of all jobs without a key.
    pub key: Option<Key>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_text_within_the_bound_and_reads_as_it_was_written() {
        let longest = "ä".repeat(bounds::KEY_BYTES_MAX / 2);
        for good in ["a", "Müller & Sons", "{\"id\": 7}", &longest] {
            let key: Key = good.parse().unwrap();
            assert_eq!((key.as_str(), key.to_string().as_str()), (good, good));
        }
    }

    #[test]
    fn an_empty_a_too_long_and_an_unprintable_key_are_rejected_each_with_its_reason() {
        let reason = |text: &str| text.parse::<Key>().unwrap_err().reason;
        assert_eq!(reason(""), "expected 1 to 256 bytes, got 0");
        assert_eq!(reason(&"x".repeat(257)), "expected 1 to 256 bytes, got 257");
        assert_eq!(reason("a\nb"), "control characters are not allowed");
    }
}
