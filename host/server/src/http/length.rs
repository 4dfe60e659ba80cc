//! Lengths of time in requests, and the members `until` and `for`: when a hold or a pause ends by itself.

use std::time::Duration;

use wharf_core::hold::HoldLength;

use super::api::Moment;
use super::problem::Problem;
use crate::config;

/// Reads a length of time in the member or parameter of this name.
///
/// # Errors
/// If it is not valid.
pub(crate) fn duration(name: &str, text: &str) -> Result<Duration, Problem> {
    config::duration(text).map_err(|error| Problem::bad_request(format!("`{name}`: {error}")))
}

/// Reads the end of a hold or of a pause; `None` if it does not end by itself.
///
/// # Errors
/// If both are given, or the length is not valid.
pub(crate) fn end(until: Option<Moment>, length: Option<&str>) -> Result<Option<HoldLength>, Problem> {
    match (until, length) {
        (Some(_), Some(_)) => Err(Problem::bad_request("`until` and `for` are both given; leave one out")),
        (Some(until), None) => Ok(Some(HoldLength::Until(until.0))),
        (None, Some(length)) => Ok(Some(HoldLength::For(duration("for", length)?))),
        (None, None) => Ok(None),
    }
}
