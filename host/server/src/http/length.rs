//! The members `until` and `for` of requests: when a hold or a pause ends by itself.

use wharf_core::hold::HoldLength;

use super::api::Moment;
use super::problem::Problem;
use crate::config;

/// Reads the end of a hold or of a pause; `None` if it does not end by itself.
///
/// # Errors
/// If both are given, or the length is not valid.
pub(crate) fn end(until: Option<Moment>, length: Option<&str>) -> Result<Option<HoldLength>, Problem> {
    match (until, length) {
        (Some(_), Some(_)) => Err(Problem::bad_request("`until` and `for` are both given; leave one out")),
        (Some(until), None) => Ok(Some(HoldLength::Until(until.0))),
        (None, Some(length)) => {
            let length = config::duration(length).map_err(|error| Problem::bad_request(format!("`for`: {error}")))?;
            Ok(Some(HoldLength::For(length)))
        }
        (None, None) => Ok(None),
    }
}
