//! Finding jobs: conditions on jobs as operators write them, and which jobs meet them.

mod moment;
mod json_path;
mod cursor;
mod query;
mod parse;
mod wait_kind;

pub use cursor::{JobCursor, JobOrder};
pub use json_path::JsonPath;
pub use moment::{format_moment, parse_moment};
pub use parse::QueryError;
pub use query::{Candidate, JobQuery, StateFilter};
pub use wait_kind::{WaitKind, WaitView};

#[cfg(test)]
mod tests;
