//! One attempt's sandbox: its limits, and everything that a guest can call.
//! Modules stand in reading order; each uses only those above it.

pub(crate) mod limiter;
pub(crate) mod plugin_env;
pub(crate) mod log;
pub(crate) mod outbound_http;
pub(crate) mod state;
pub(crate) mod monotonic_clock;
pub(crate) mod imports;
