//! `wharf`: a host for WebAssembly plugins, and the commands that talk to it.
//! Modules are listed in reading order; each uses only those above it.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(test)]
mod documents;
mod output;
mod stderr;
mod signals;
mod file_limit;
mod access;
mod config;
mod metrics;
mod http;
mod dashboard;
mod cli_error;
mod progress;
mod payload_input;
mod component_file;
mod in_process_engine;
mod open_store;
mod service_manager;
mod bench;
mod cli;
#[cfg(test)]
mod error_snapshot;
#[cfg(test)]
mod fuzz;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // wasmtime creates an error value on each call of a concurrent plugin, even if nothing fails. With RUST_BACKTRACE
    // set, each of them would walk the stack, which doubles the cost of a small job. A process cannot safely change its
    // own environment once it starts threads, so it executes itself again with the one variable that turns this off.
    // Panics keep their backtraces.
    if config::backtraces_are_costly()
        && let Ok(program) = std::env::current_exe()
    {
        let error = Command::new(program).args(std::env::args_os().skip(1)).env(config::LIBRARY_BACKTRACES, "0").exec();
        stderr::note(format_args!("wharf: could not restart without costly backtraces, continuing with them: {error}"));
    }
    if let Err(error) = signals::survive_large_files() {
        stderr::note(format_args!(
            "wharf: could not handle SIGXFSZ, so a file that grows past its limit ends this process: {error}"
        ));
    }
    // A panic's message may quote anybody. The host's log replaces this hook by its own.
    std::panic::set_hook(Box::new(|panic| match config::backtrace_of_panic() {
        Some(trace) => stderr::note(format_args!("wharf: a bug: {panic}\n{trace}")),
        None => stderr::note(format_args!("wharf: a bug: {panic}")),
    }));
    cli::run(std::env::args_os())
}
