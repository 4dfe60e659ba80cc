//! When guests run: threads, CPU time, timeouts, cancellation, the budget of memory, and the permits for
//! sandboxes. Modules are in reading
//! order; each uses only those above it.

pub(crate) mod cpu_meter;
pub(crate) mod attempt_handle;
pub(crate) mod budget;
pub(crate) mod watchdog;
pub(crate) mod completion_batch;
pub(crate) mod metered;
pub(crate) mod epoch_ticker;
pub(crate) mod guest_threads;
pub(crate) mod permits;
