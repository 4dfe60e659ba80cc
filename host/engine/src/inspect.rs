//! Reads a component's file. All of it but the checks of first bytes and grants runs in the child process: see
//! [`crate::compile`]. Modules are in reading order; each uses only those above it.

pub(crate) mod symbol_names;
pub(crate) mod strip;
pub(crate) mod survey;
pub(crate) mod core_module;
pub(crate) mod line_table;
pub(crate) mod wit_signature;
pub(crate) mod host_interfaces;
pub(crate) mod resource_makers;
pub(crate) mod type_builder;
pub(crate) mod typed_exports;
pub(crate) mod plain_exports;
pub(crate) mod description;
pub(crate) mod contract_check;
pub(crate) mod grants_check;
