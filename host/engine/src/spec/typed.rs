//! Functions with types of their own: their types, and JSON of them. Nothing here knows wasmtime. Modules are in reading
//! order; each uses only those above it.

pub(crate) mod names;
pub(crate) mod integer;
pub(crate) mod types;
pub(crate) mod json_reader;
pub(crate) mod json_writer;
pub(crate) mod signature;
pub(crate) mod value_reader;
pub(crate) mod check;
pub(crate) mod json_schema;

#[cfg(test)]
mod tests;
