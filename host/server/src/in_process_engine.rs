//! Engines that run in this process, and how they compile plugins.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use wharf_engine::{Compile, CompileLimits, Engine};

use crate::cli_error::{CliError, ExitStatus};
use crate::config::Settings;

/// The hidden command that compiles one component in a process of its own.
pub(crate) const COMPILE_CHILD_COMMAND: &str = "compile-child";

/// This program itself, as the kernel knows it: the process that starts finds it there also after its file was replaced or
/// removed, and what compiles is always what will run the code.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Returns the way in which plugins are compiled: by this program, in a child process.
pub(crate) fn compile_in_child() -> anyhow::Result<Compile> {
    std::fs::metadata(THIS_PROGRAM).context("could not find this program in /proc, by which it compiles plugins")?;
    let program = THIS_PROGRAM.into();
    Ok(Compile::Child { program, args: vec![COMPILE_CHILD_COMMAND.into()], max: CompileLimits::default() })
}

/// Time for which a thread that blocked waits for more to do.
const BLOCKING_THREAD_KEPT: Duration = Duration::from_secs(1);

/// Starts the threads that run everything but guests: one thread for two cores.
///
/// With more threads, one wakes the next at every turn of the event loop, only for it to find nothing to do: on two
/// cores, one thread is a tenth faster than two.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)))
        // A thread that waits keeps the memory that it has freed: threads that read files or load plugins end soon after.
        .thread_keep_alive(BLOCKING_THREAD_KEPT)
        .enable_all()
        .build()
        .context("could not start the threads of this program")
}

/// Creates an engine. It must be called inside a [`Runtime`].
pub(crate) fn engine(settings: wharf_engine::Settings) -> Result<Arc<Engine>, CliError> {
    Engine::new(settings).map_err(|error| CliError::new(ExitStatus::CannotStart, error.to_string()))
}

/// Creates an engine that runs one call at a time. It must be called inside a [`Runtime`].
pub(crate) fn single_call_engine(settings: &Settings) -> anyhow::Result<Arc<Engine>> {
    let single = wharf_engine::Settings {
        attempts: 1,
        broadcast_calls: 1,
        guest_threads: 1,
        cache: settings.cache.clone(),
        compile: compile_in_child()?,
        memory_budget: settings.memory_budget,
        extra_ca: settings.extra_ca.clone(),
    };
    Ok(engine(single)?)
}
