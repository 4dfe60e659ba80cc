//! Idempotency tokens: of the jobs with one token, a task accepts one for each key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::bounds;
use crate::ids::{ParseIdError, TaskName};
use crate::key::Key;

/// An idempotency token of 1 to `bounds::TOKEN_BYTES_MAX` bytes. A task accepts one job for each token of a key; later ones
/// are duplicates.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(Arc<str>);

impl Token {
    /// Returns the token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.is_empty() || text.len() > bounds::TOKEN_BYTES_MAX {
            let reason = format!("expected 1 to {} bytes, got {}", bounds::TOKEN_BYTES_MAX, text.len());
            return Err(ParseIdError::new("token", text, reason));
        }
        Ok(Token(text.into()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// An idempotency token with what it is unique for: one tenant's token never answers with another's job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqueToken {
    /// The task.
    pub task: TaskName,
    /// The key of the job's lane.
    pub key: Option<Key>,
    /// The token.
    pub token: Token,
}
