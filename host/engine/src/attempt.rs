//! Runs one call in a sandbox, from input to outcome.
//! Modules are in reading order; each uses only those above it.

pub(crate) mod end;
pub(crate) mod report;
pub(crate) mod typed;
pub(crate) mod run;
pub(crate) mod plain;
pub(crate) mod describe;
