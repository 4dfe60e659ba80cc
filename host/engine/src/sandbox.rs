//! The sandbox of one attempt: its limits, and everything that a guest can call. Modules are in reading order; each
//! uses only those above it.

pub(crate) mod limiter;
pub(crate) mod trusted_roots;
pub(crate) mod secrets;
pub(crate) mod plugin_env;
pub(crate) mod guest_error;
pub(crate) mod log;
pub(crate) mod program_output;
pub(crate) mod retry_after;
pub(crate) mod outbound_http;
mod preview1_context;
pub(crate) mod store_data;
pub(crate) mod room;
pub(crate) mod monotonic_clock;
pub(crate) mod open_file;
pub(crate) mod guest_logging;
pub(crate) mod preview1;
pub(crate) mod bindings;
pub(crate) mod imports;
