//! What a manifest and the settings say of a plugin: read, checked, ready to use.
//! Modules stand in reading order; each uses only those above it.

pub mod problem;
pub mod toml_diagnostics;
pub mod duration;
pub mod raw;
mod schema_cost;
pub mod payload;
pub mod ip_policy;
pub mod grants;
pub mod task;
pub mod manifest;
