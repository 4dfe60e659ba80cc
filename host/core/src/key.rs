//! On whose account a job runs, and the lane it stands in.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::bounds;
use crate::ids::{Group, ParseIdError};

/// On whose account a job runs: what limits count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let reason = match text.len() {
            0 => "is no key: it is empty",
            n if n > bounds::KEY_BYTES_MAX => "is no key: it is longer than 256 bytes",
            _ if text.chars().any(char::is_control) => "is no key: it has control characters",
            _ => return Ok(Key(text.into())),
        };
        Err(ParseIdError { text: text.chars().take(40).collect(), reason })
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

/// Where a job waits: jobs of one lane come first, come first served; lanes take turns.
/// The jobs of a group that have no key share one lane, with the same limit as any other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    pub group: Group,
    pub key: Option<Key>,
}
