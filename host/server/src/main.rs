//! `wharf`: a host for WebAssembly plugins, and the commands that use it.
//! Modules are in reading order; each uses only those above it.

mod stderr;
mod signals;
mod config;
mod metrics;
mod http;
mod cli;
#[cfg(test)]
mod fuzz;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // wasmtime creates an error value on each call of a concurrent plugin, even if nothing fails. With RUST_BACKTRACE set,
    // each would walk the stack, which doubles the cost of a small job. A process cannot safely change its own environment
    // once it may have threads, so it executes itself again with the variable that turns this off. Backtraces of panics stay.
    if config::backtraces_are_costly()
        && let Ok(program) = std::env::current_exe()
    {
        let error = Command::new(program).args(std::env::args_os().skip(1)).env(config::LIBRARY_BACKTRACES, "0").exec();
        stderr::note(format_args!("wharf: could not turn off costly backtraces, going on with them: {error}"));
    }
    if let Err(error) = signals::survive_large_files() {
        stderr::note(format_args!(
            "wharf: could not handle SIGXFSZ: {error}; a file that grows past its limit ends this process"
        ));
    }
    cli::run(std::env::args_os())
}
