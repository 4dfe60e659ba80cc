//! Finding jobs: conditions on jobs as operators write them, and which jobs meet them.

mod moment;
mod digest_prefix;
mod json_path;
mod cursor;
mod wait_kind;
mod wait_fact;
mod query;
mod at_start;
mod parse;

pub use at_start::{AsOf, AtStart};
pub use cursor::{JobCursor, JobOrder};
pub use digest_prefix::DigestPrefix;
pub use json_path::JsonPath;
pub use moment::{format_moment, parse_moment};
pub use parse::QueryError;
pub use query::{Candidate, JobQuery, StateFilter};
pub use wait_fact::WaitFact;
pub use wait_kind::{WaitKind, WaitView};

#[cfg(test)]
mod tests;
