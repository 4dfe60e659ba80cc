//! From the bytes of a WebAssembly component to a plugin, and one call in a sandbox: from input to outcome.
//! Knows no SQL, no states of jobs, no HTTP server. Modules stand in reading order; each uses only those above it.

pub mod problem;
pub mod toml_text;
pub mod given;
mod schema_cost;
pub mod payload;
pub mod manifest;
pub mod addresses;
pub mod grants;
pub mod call;
mod control;
mod meter;
mod ticker;
mod memory;
mod log;
mod outbound;
mod sandbox;
mod imports;
mod pool;
mod cache;
mod compile;
mod wit_text;
mod offer;
mod contract;
mod plugin;
mod report;
mod run;
mod describe;
mod engine;
mod load;

pub use call::{Allowance, Attending, Call, Ended, GuestJob};
pub use compile::{Compile, compile_child_main};
pub use control::Control;
pub use engine::{Engine, EngineError, Settings};
pub use grants::PluginSettings;
pub use load::{Checked, OnProgress, Progress};
pub use manifest::{Manifest, Task};
pub use payload::BadPayload;
pub use plugin::Plugin;
pub use problem::{LoadError, Problem};
