//! An engine in this process, for commands that need no running host: `call` and `check`.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use wharf_core::bounds;
use wharf_engine::{Compile, CompileLimits, Engine, PluginSettings, Progress as Step};

use super::cli_error::{Ending, Exit};
use crate::config::Settings;

/// The hidden command that compiles in a process of its own.
pub(crate) const COMPILE_COMMAND: &str = "compile-child";

/// How plugins are compiled: by this program, in a process of its own.
pub(crate) fn compile_in_child() -> anyhow::Result<Compile> {
    let program = std::env::current_exe().context("could not find the file of this program, which compiles plugins")?;
    Ok(Compile::Child { program, args: vec![COMPILE_COMMAND.into()], max: CompileLimits::default() })
}

/// The threads of everything but guests: one for two cores. With more of them one wakes the next at every turn of the loop,
/// and finds nothing to do: on two cores one is a tenth faster than two.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)))
        .enable_all()
        .build()
        .context("could not start the threads of this program")
}

/// An engine for a few calls. Made inside of a `Runtime`.
pub(crate) fn engine(settings: &Settings) -> anyhow::Result<Arc<Engine>> {
    let made = Engine::new(wharf_engine::Settings {
        attempts: 1,
        broadcast_calls: 1,
        guest_threads: 1,
        cache_dir: settings.cache_dir.clone(),
        compile: compile_in_child()?,
    });
    made.map_err(|error| Ending::new(Exit::CannotStart, error.to_string()).into())
}

/// The bytes of a file that should be a plugin.
pub(crate) fn component(path: &Path) -> anyhow::Result<Arc<[u8]>> {
    let shown = path.display();
    let length =
        std::fs::metadata(path).map_err(|error| Ending::usage(format!("could not read {shown}: {error}")))?.len();
    if length > bounds::COMPONENT_BYTES_MAX {
        let max = bytesize::ByteSize(bounds::COMPONENT_BYTES_MAX).display().iec();
        return Err(Ending::usage(format!("{shown} is larger than a plugin may be ({max})")).into());
    }
    let bytes = std::fs::read(path).map_err(|error| Ending::usage(format!("could not read {shown}: {error}")))?;
    Ok(bytes.into())
}

/// The stem of a file's name, which is the plugin's id.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

/// What the operator's settings say of a plugin.
pub(crate) fn settings_of(settings: &Settings, id: &str) -> PluginSettings {
    id.parse().ok().and_then(|id| settings.plugins.get(&id).cloned()).unwrap_or_default()
}

/// How far loading is, in words.
pub(crate) fn step_text(step: Step) -> &'static str {
    match step {
        Step::Checking => "checking",
        Step::WaitingToCompile => "waiting to be compiled",
        Step::Compiling => "compiling; this happens once for each version",
        Step::Cached => "compiled before",
        Step::Describing => "asking what it can do",
    }
}
