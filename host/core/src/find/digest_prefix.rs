//! The beginning of a plugin's digest, as operators copy it from a list.

use std::fmt;
use std::str::FromStr;

use crate::ids::ParseIdError;

/// Number of characters from which the beginning of a digest says enough.
const LENGTH_MIN: usize = 8;
/// Number of characters of a whole digest.
const LENGTH_MAX: usize = 64;

/// The beginning of a digest, or all of it: 8 to 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestPrefix(String);

impl DigestPrefix {
    /// Returns the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if a digest begins with these digits.
    pub fn begins(&self, digest: &str) -> bool {
        digest.starts_with(&self.0)
    }
}

impl FromStr for DigestPrefix {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<DigestPrefix, ParseIdError> {
        let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        let is_valid = (LENGTH_MIN..=LENGTH_MAX).contains(&text.len()) && text.chars().all(is_digit);
        let expected = "expected 8 to 64 characters of `0` to `9` and `a` to `f`, as `wharf plugin list` shows them";
        if is_valid { Ok(DigestPrefix(text.to_owned())) } else { Err(ParseIdError::new("digest", text, expected)) }
    }
}

impl fmt::Display for DigestPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
