//! Loads WebAssembly components as plugins, and runs one call of a plugin in a sandbox, from its input to its outcome.
//!
//! - [`Engine`] is the entry: [`Engine::load`] makes a [`Plugin`] of a [`PluginFile`], [`Engine::call`] runs an attempt.
//! - [`Call`] is one attempt: its input ([`CallInput`]) and its limits ([`AttemptLimits`]).
//! - [`HostCalls`] is implemented by the caller: the calls that a guest makes while it runs.
//! - [`AttemptHandle`] cancels or stops an attempt from outside; [`AttemptEnd`] is what it ends with.
//! - [`Engine::check`] explains what loading a file would do, as `wharf check` does.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use wharf_engine::{
//!     AttemptHandle, AttemptLimits, CacheSettings, Call, CallInput, Compile, Engine, HostCalls, PluginSettings, Settings,
//! };
//!
//! async fn count(host_calls: Arc<dyn HostCalls>) -> Result<(), Box<dyn std::error::Error>> {
//!     let engine = Engine::new(Settings {
//!         attempts: 4,
//!         broadcast_calls: 4,
//!         guest_threads: 2,
//!         cache: CacheSettings::in_folder("cache"),
//!         compile: Compile::InProcess,
//!         memory_budget: 1 << 30,
//!         extra_ca: None,
//!     })?;
//!     let bytes = std::fs::read("words.wasm")?;
//!     let plugin = engine.load("words".parse()?, bytes, &PluginSettings::default(), &|_| {}).await?;
//!     let input = CallInput::Job {
//!         id: "0000000000001".into(),
//!         task: "count".into(),
//!         key: None,
//!         payload: br#"{"text": "to be"}"#.as_slice().into(),
//!         attempt: 1,
//!         tick: None,
//!     };
//!     let limits = AttemptLimits::of(&plugin.manifest.tasks["count"]);
//!     let end = engine.call(plugin, Call { input, limits }, host_calls, AttemptHandle::new()).await;
//!     println!("{:?}", end.outcome);
//!     Ok(())
//! }
//! ```
//!
//! The crate knows neither SQL nor the states of jobs nor an HTTP server. Its modules are in reading order; each uses only
//! those above it.

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod spec;
pub mod call;
mod schedule;
mod sandbox;
mod wasmtime_config;
mod inspect;
mod plugin_file;
mod compile;
mod plugin;
mod attempt;
mod engine;
mod load;
mod change_settings;

pub use attempt::end::AttemptEnd;
pub use call::{AttemptLimits, Call, CallInput, GuestJob, HostCalls, KvAccess};
pub use change_settings::SettingsError;
pub use compile::cache_folder::CacheSettings;
pub use compile::child_process::{Compile, CompileLimits, compile_child_main};
pub use engine::{Engine, EngineError, Settings};
pub use load::{CheckReport, OnProgress, Progress};
pub use plugin::Plugin;
pub use plugin_file::PluginFile;
pub use schedule::attempt_handle::AttemptHandle;
pub use schedule::budget::{Budget, BudgetUsage, RELEASED, Reservation};
pub use schedule::permits::{Permit, PermitPool};
pub use spec::grants::PluginSettings;
pub use spec::manifest::{Manifest, Receive};
pub use spec::payload::PayloadError;
pub use spec::problem::{LoadError, Problem};
pub use spec::task::Task;
