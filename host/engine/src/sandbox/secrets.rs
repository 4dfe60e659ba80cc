//! Secrets of plugins: their placeholders, which the guest has, and their values, which only requests have. Modules are in reading
//! order; each uses only those above it.

mod escapers;
mod encodings;
mod matcher;
pub(crate) mod mask;
pub(crate) mod masked_body;
pub(crate) mod placeholders;
pub(crate) mod watched_body;
