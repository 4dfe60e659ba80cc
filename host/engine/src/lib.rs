//! From the bytes of a WebAssembly component to a plugin, and one call in a sandbox: from input to outcome.
//! Knows no SQL, no states of jobs, no HTTP server. Modules stand in reading order; each uses only those above it.

pub mod spec;
pub mod call;
mod schedule;
mod sandbox;
mod wasmtime_config;
mod inspect;
mod compile;
mod plugin;
mod attempt;
mod engine;
mod load;

pub use call::{AttemptEnd, AttemptLimits, Call, CallInput, GuestJob, HostCalls, KvAccess};
pub use compile::child_process::{Compile, CompileLimits, compile_child_main};
pub use engine::{Engine, EngineError, Settings};
pub use load::{CheckReport, OnProgress, Progress};
pub use plugin::Plugin;
pub use schedule::attempt_handle::AttemptHandle;
pub use schedule::permits::{Permit, PermitPool};
pub use spec::grants::PluginSettings;
pub use spec::manifest::{Manifest, Receive};
pub use spec::payload::PayloadError;
pub use spec::problem::{LoadError, Problem};
pub use spec::task::Task;
