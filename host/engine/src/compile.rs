//! Compiling a component, in a process of its own: a hostile component can make a compiler eat the machine,
//! and then it is that process which ends, not the host.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use wharf_core::bounds;

use crate::cache::Temporary;
use crate::pool::{self, Kind};
use crate::problem::Problem;

/// Where components are compiled.
#[derive(Clone, Debug)]
pub enum Compile {
    /// In a process of its own: `program args... KIND COMPONENT COMPILED BYTES SECONDS`, which calls [`compile_child_main`].
    Child { program: PathBuf, args: Vec<OsString>, most: CompileMost },
    /// In this process, without bounds of memory and time: for tests, and for components that one made oneself.
    Here,
}

/// What a compiling process may take.
#[derive(Clone, Copy, Debug)]
pub struct CompileMost {
    pub memory_bytes: u64,
    /// By the clock, and of processor.
    pub time: Duration,
}

impl Default for CompileMost {
    fn default() -> CompileMost {
        CompileMost { memory_bytes: bounds::COMPILE_MEMORY_BYTES_MAX, time: bounds::COMPILE_TIMEOUT }
    }
}

/// Compiled code runs at the lowest priority while it is made: running attempts go first.
const NICENESS: i32 = 19;
const STDERR_BYTES_MAX: u64 = 4096;

/// Compiles the component in `from` into the file `to`.
///
/// # Errors
/// Why it cannot be compiled, for its author.
pub(crate) async fn compile(how: &Compile, kind: Kind, from: &Temporary, to: &Temporary) -> Result<(), Problem> {
    match how {
        Compile::Here => {
            let (from, to) = (from.path().to_owned(), to.path().to_owned());
            let done = tokio::task::spawn_blocking(move || compile_file(kind, &from, &to)).await;
            done.map_err(|_| Problem::new("the compiler failed on it: a bug of the host"))?
                .map_err(|why| not_compiled(&why))
        }
        Compile::Child { program, args, most } => {
            let mut command = Command::new(program);
            command.args(args).arg(kind.as_str()).args([from.path(), to.path()]);
            command.args([most.memory_bytes.to_string(), most.time.as_secs_f64().ceil().to_string()]);
            in_child(&mut command, *most).await
        }
    }
}

async fn in_child(command: &mut Command, most: CompileMost) -> Result<(), Problem> {
    let broken = |error: std::io::Error| {
        Problem::new(format!("it cannot be compiled, since the compiling process cannot be run: {error}"))
    };
    let began = Instant::now();
    let mut child = command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(broken)?;
    let mut said = Vec::new();
    let mut stderr = child.stderr.take().map(|stderr| stderr.take(STDERR_BYTES_MAX));
    let ended = tokio::time::timeout(most.time, async {
        if let Some(stderr) = &mut stderr {
            let _ = stderr.read_to_end(&mut said).await;
        }
        // The pipe is closed here, so that a child which says more than is heard does not wait for ever.
        drop(stderr.take());
        child.wait().await
    });
    match ended.await {
        Ok(status) => explain(status.map_err(broken)?, &String::from_utf8_lossy(&said), began.elapsed(), most),
        // Dropping the child kills it.
        Err(_) => Err(too_long(began.elapsed(), most)),
    }
}

fn explain(status: ExitStatus, said: &str, took: Duration, most: CompileMost) -> Result<(), Problem> {
    if status.success() {
        return Ok(());
    }
    let memory = bytesize::ByteSize(most.memory_bytes).display().iec();
    if said.contains("memory allocation of")
        || said.contains("Cannot allocate memory")
        || said.contains("out of memory")
    {
        return Err(Problem::new(format!("compiling it takes more than {memory} of memory"))
            .hint("make it smaller: split its largest functions, or leave code out"));
    }
    match status.signal() {
        Some(signal) if signal == Signal::XCPU.as_raw() => Err(too_long(took, most)),
        Some(signal) => {
            Err(Problem::new(format!("the process that compiled it was ended by signal {signal} after {took:.1?}"))
                .hint(format!("if the machine is short of memory: compiling may take up to {memory}")))
        }
        None => Err(not_compiled(said.trim())),
    }
}

fn too_long(took: Duration, most: CompileMost) -> Problem {
    Problem::new(format!("compiling it takes too long: it was ended after {took:.1?}"))
        .hint(format!("{:?} by the clock and of processor is the most; make it smaller", most.time))
}

fn not_compiled(why: &str) -> Problem {
    Problem::new(format!("it cannot be compiled: {why}"))
}

/// What the compiling process does: bounds itself, compiles, says on stderr what went wrong. Returns its exit code.
/// `args` are what [`Compile::Child`] adds to the command.
pub fn compile_child_main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let done = match args.as_slice() {
        [kind, from, to, bytes, seconds] => match (kind.to_str(), number(bytes), number(seconds)) {
            (Some("sync"), Some(bytes), Some(seconds)) => {
                bounded(bytes, seconds, || compile_file(Kind::Sync, from.as_ref(), to.as_ref()))
            }
            (Some("async"), Some(bytes), Some(seconds)) => {
                bounded(bytes, seconds, || compile_file(Kind::Async, from.as_ref(), to.as_ref()))
            }
            _ => Err(EXPECTED.to_owned()),
        },
        _ => Err(EXPECTED.to_owned()),
    };
    match done {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("{why}");
            1
        }
    }
}

const EXPECTED: &str = "expected: sync|async COMPONENT COMPILED BYTES SECONDS";

fn number(text: &OsString) -> Option<u64> {
    text.to_str()?.parse().ok()
}

fn bounded(bytes: u64, seconds: u64, compile: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    // Ends with the host, should the host be killed.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let limit = |resource, most, at_last| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(at_last) });
    limit(Resource::As, bytes, bytes)
        // At the first bound of processor time the kernel says why it ends a process, at the second it does not.
        .and_then(|()| limit(Resource::Cpu, seconds, seconds + 1))
        .and_then(|()| limit(Resource::Core, 0, 0))
        .map_err(|error| format!("the compiling process cannot be bounded: {error}"))?;
    let _ = nice(NICENESS);
    compile()
}

fn compile_file(kind: Kind, from: &Path, to: &Path) -> Result<(), String> {
    let bytes = fs::read(from).map_err(|error| format!("the component cannot be read: {error}"))?;
    let engine = pool::compiler(kind).map_err(|error| format!("{error:#}"))?;
    let compiled = engine.precompile_component(&bytes).map_err(|error| format!("{error:#}"))?;
    fs::write(to, compiled).map_err(|error| format!("the cache folder does not take what was compiled: {error}"))
}
