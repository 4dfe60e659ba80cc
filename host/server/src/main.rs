//! `wharf`: a host for WebAssembly plugins, and the commands that speak to it.
//! Modules stand in reading order; each uses only those above it.

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
    // wasmtime makes an error value on each call of a concurrent plugin, also where nothing fails; with RUST_BACKTRACE
    // set, each would walk the stack, which doubles the cost of a small job. A process cannot change its own
    // environment while it has threads to come, so that it begins again with the one variable that ends this.
    // Backtraces of panics stay.
    if config::backtraces_are_costly()
        && let Ok(program) = std::env::current_exe()
    {
        let error = Command::new(program).args(std::env::args_os().skip(1)).env(config::LIBRARY_BACKTRACES, "0").exec();
        stderr::note(format_args!("wharf: goes on with costly backtraces: {error}"));
    }
    if let Err(error) = signals::survive_large_files() {
        stderr::note(format_args!("wharf: a file that grows past its limit ends this process: {error}"));
    }
    cli::run(std::env::args_os())
}
