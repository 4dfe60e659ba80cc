//! From a component to linked code: the cache of compiled code, and the child process that inspects and compiles.
//! Modules are in reading order; each uses only those above it.

pub(crate) mod cache_folder;
pub(crate) mod cache_trim;
pub(crate) mod cache;
pub(crate) mod examine;
pub(crate) mod child_process;
mod function_types;
pub(crate) mod linked;
pub(crate) mod dedup;
pub(crate) mod exports_check;
