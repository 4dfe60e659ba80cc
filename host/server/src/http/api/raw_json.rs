//! JSON values that documents carry as they are written.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Reads a JSON value as it is written. An explicit `null` is a value: it becomes `Some`, not `None`.
pub(crate) fn as_written<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(from).map(Some)
}
