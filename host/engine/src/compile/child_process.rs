//! Reads and compiles a component in a process of its own. A hostile component can make its reader recurse, compute and
//! allocate without end: then the child process ends, not the host.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, nice, set_parent_process_death_signal, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use wharf_core::bounds;
use wharf_core::budget::MemoryUse;

use crate::compile::cache::Temporary;
use crate::compile::examine::FilePaths;
use crate::inspect::description::{Description, ReaderLimits};
use crate::spec::problem::{Problem, cut};

/// The process in which components are read and compiled.
#[derive(Clone, Debug)]
pub enum Compile {
    /// In a process of its own, started as `program args... COMPONENT CODE DESCRIPTION BYTES INSPECT-SECONDS SECONDS`,
    /// which calls [`compile_child_main`].
    Child {
        /// The program to start.
        program: PathBuf,
        /// Its first arguments.
        args: Vec<OsString>,
        /// The limits of the process.
        max: CompileLimits,
    },
    /// In this process, without limits of memory and time: for tests, and for trusted components.
    InProcess,
}

/// The limits of the compiling process.
#[derive(Clone, Copy, Debug)]
pub struct CompileLimits {
    /// Maximum address space in bytes.
    pub memory_bytes: u64,
    /// Maximum processor time until the component has been inspected.
    pub inspect_time: Duration,
    /// Maximum wall time, and maximum processor time.
    pub time: Duration,
}

impl Default for CompileLimits {
    fn default() -> CompileLimits {
        CompileLimits {
            memory_bytes: bounds::COMPILE_MEMORY_BYTES_MAX,
            inspect_time: bounds::INSPECT_TIMEOUT,
            time: bounds::COMPILE_TIMEOUT,
        }
    }
}

impl Compile {
    /// Returns how components are compiled within a budget of memory of `total` bytes.
    pub(crate) fn within(self, total: u64) -> Compile {
        match self {
            Compile::Child { program, args, max } => {
                let memory_bytes = max.memory_bytes.min(MemoryUse::Compile.most(total) + ADDRESS_SPACE_BYTES);
                Compile::Child { program, args, max: CompileLimits { memory_bytes, ..max } }
            }
            Compile::InProcess => Compile::InProcess,
        }
    }

    /// Returns the bytes that are reserved for a process that reads a component; none without a process.
    pub(crate) fn memory_bytes(&self) -> u64 {
        match self {
            Compile::Child { max, .. } => {
                within_own(Resource::As, max.memory_bytes).saturating_sub(ADDRESS_SPACE_BYTES)
            }
            Compile::InProcess => 0,
        }
    }

    /// Returns the limits that a component's reader has: those that are wanted, within what this process may use itself.
    pub(crate) fn reader_limits(&self) -> ReaderLimits {
        match self {
            Compile::Child { max, .. } => ReaderLimits {
                memory_bytes: within_own(Resource::As, max.memory_bytes),
                cpu_seconds: cpu_seconds(max.time.as_secs_f64().ceil() as u64),
            },
            Compile::InProcess => ReaderLimits { memory_bytes: u64::MAX, cpu_seconds: u64::MAX },
        }
    }
}

/// Address space of the process that is not memory: its program, libraries, stacks of its threads.
const ADDRESS_SPACE_BYTES: u64 = 256 * bounds::MIB;
/// The setting by which the allocator of the process reserves little address space at once: by itself it would begin with a
/// gigabyte, which the limit could not take from it again.
const ALLOCATOR: (&str, &str) = ("MIMALLOC_ARENA_RESERVE", "16MiB");

/// The process runs at the lowest priority: running attempts go first.
const NICENESS: i32 = 19;
const STDERR_BYTES_MAX: u64 = 4096;
/// Maximum size of the process's stderr in a problem, in bytes.
const STDERR_SHOWN_BYTES_MAX: usize = 500;

/// The files that the process reads and writes.
pub(crate) struct ChildFiles {
    pub(crate) component: Temporary,
    pub(crate) code: Temporary,
    pub(crate) description: Temporary,
}

impl ChildFiles {
    fn all(&self) -> [&Temporary; 3] {
        [&self.component, &self.code, &self.description]
    }
}

/// Why there is no description.
#[derive(Debug)]
pub(crate) enum CompileFailure {
    /// A failure that says nothing about the component: the disk, or a process that could not be started.
    Host(Problem),
    /// The component ended its reader.
    Ended(Problem),
    /// The reader was ended from outside, for example because the machine ran out of memory: the cause is not known.
    Interrupted(Problem),
}

/// Reads the component and compiles it. Its code exists if the description has no problems.
///
/// # Errors
/// [`CompileFailure`] if there is no description.
pub(crate) async fn compile(how: &Compile, files: ChildFiles) -> Result<(Description, ChildFiles), CompileFailure> {
    match how {
        Compile::InProcess => {
            let done = tokio::task::spawn_blocking(move || {
                let [component, code, description] = &files.all().map(Temporary::path);
                let paths = FilePaths { component, code, description };
                paths.examine(|| {}).map_err(|why| CompileFailure::Host(not_compiled(&why)))?;
                read_description(&files).map(|description| (description, files))
            });
            done.await.map_err(|_| {
                CompileFailure::Ended(Problem::new("the compiler panicked on it; this is a bug of the host"))
            })?
        }
        Compile::Child { program, args, max } => {
            let mut command = Command::new(program);
            // The folder by its descriptor, which the process has until it executes its program.
            command.current_dir(files.component.folder().by_descriptor());
            command.args(args).args(files.all().map(Temporary::name));
            command.arg(max.memory_bytes.to_string());
            command.args([max.inspect_time, max.time].map(|time| time.as_secs_f64().ceil().to_string()));
            run_child(&mut command, *max, &files.description.path()).await?;
            let done = tokio::task::spawn_blocking(move || read_description(&files).map(|read| (read, files))).await;
            done.map_err(|_| CompileFailure::Host(Problem::new("the host panicked on it; this is a bug of the host")))?
        }
    }
}

/// Reads the description that the process wrote, within its limit.
fn read_description(files: &ChildFiles) -> Result<Description, CompileFailure> {
    let disk = |error: &dyn std::fmt::Display| {
        CompileFailure::Host(Problem::new(format!("could not read what was compiled from the cache folder: {error}")))
    };
    let mut bytes = Vec::new();
    fs::File::open(files.description.path())
        .and_then(|file| file.take(bounds::DESCRIPTION_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| disk(&error))?;
    Description::from_bytes(&bytes).ok_or_else(|| disk(&"the description is damaged"))
}

/// Runs the process to its end. The file `inspected` exists as soon as the component has been inspected.
async fn run_child(command: &mut Command, max: CompileLimits, inspected: &Path) -> Result<(), CompileFailure> {
    let broken = |error: io::Error| {
        CompileFailure::Host(Problem::new(format!(
            "could not compile it: could not run the compiling process: {error}"
        )))
    };
    let started_at = Instant::now();
    let mut child = command
        .env_clear()
        .env(ALLOCATOR.0, ALLOCATOR.1)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(broken)?;
    let mut stderr_text = Vec::new();
    let mut stderr = child.stderr.take().map(|stderr| stderr.take(STDERR_BYTES_MAX));
    let ended = tokio::time::timeout(max.time, async {
        if let Some(stderr) = &mut stderr {
            let _ = stderr.read_to_end(&mut stderr_text).await;
        }
        // The pipe is closed here, so that a child that writes more than is read does not wait for ever.
        drop(stderr.take());
        child.wait().await
    })
    .await;
    let status = match ended {
        Ok(status) => Some(status.map_err(broken)?),
        // Dropping the child kills it.
        Err(_) => None,
    };
    let end = ChildEnd {
        doing: if inspected.exists() { "compiling" } else { "reading" },
        stderr_text: String::from_utf8_lossy(&stderr_text).into_owned(),
        took: started_at.elapsed(),
        max,
    };
    match status {
        Some(status) => end.explain(status),
        // The limit is in wall time: the machine may have been busy with other work.
        None => Err(CompileFailure::Interrupted(end.too_long())),
    }
}

/// The end of the process.
struct ChildEnd {
    doing: &'static str,
    stderr_text: String,
    took: Duration,
    max: CompileLimits,
}

impl ChildEnd {
    fn explain(self, status: ExitStatus) -> Result<(), CompileFailure> {
        if status.success() {
            return Ok(());
        }
        let ChildEnd { doing, stderr_text, took, max } = &self;
        let memory_bytes = within_own(Resource::As, max.memory_bytes);
        let memory = bytesize::ByteSize(memory_bytes).display().iec();
        if ["memory allocation of", "Cannot allocate memory", "out of memory"]
            .iter()
            .any(|text| stderr_text.contains(text))
        {
            return Err(CompileFailure::Ended(
                Problem::new(format!("{doing} it took more memory than the limit of {memory}")).hint(
                    if memory_bytes < max.memory_bytes {
                        "the host itself was started with this limit (`ulimit -v`, `LimitAS=`): raise it"
                    } else {
                        "make it smaller: split its largest functions, or leave code out"
                    },
                ),
            ));
        }
        if stderr_text.contains("has overflowed its stack") {
            let what = format!("{doing} it overflowed the stack: its types or its code nest too deep");
            return Err(CompileFailure::Ended(
                Problem::new(what).hint("build it from sources whose types nest less deep"),
            ));
        }
        let ended_by = |signal: i32| {
            Problem::new(format!("the process that was {doing} it was killed by signal {signal} after {took:.1?}"))
                .hint(format!("if the machine is short of memory: compiling may take up to {memory}"))
        };
        match (status.signal(), status.code()) {
            (Some(signal), _) if signal == Signal::XCPU.as_raw() => Err(CompileFailure::Ended(self.too_long())),
            (Some(signal), _) if EXTERNAL_SIGNALS.iter().any(|outside| outside.as_raw() == signal) => {
                Err(CompileFailure::Interrupted(ended_by(signal)))
            }
            (Some(signal), _) => Err(CompileFailure::Ended(ended_by(signal))),
            (None, Some(EXIT_FAILED)) => Err(CompileFailure::Host(not_compiled(stderr_text.trim()))),
            (None, _) => Err(CompileFailure::Ended(Problem::new(format!(
                "the process that was {doing} it failed: {}; this is a bug of the host",
                shortened(stderr_text.trim())
            )))),
        }
    }

    fn too_long(&self) -> Problem {
        let ChildEnd { doing, took, max, .. } = self;
        let limit = if *doing == "reading" { max.inspect_time.min(max.time) } else { max.time };
        let cpu = Duration::from_secs(cpu_seconds(limit.as_secs_f64().ceil() as u64));
        let hint = if cpu < limit {
            format!(
                "the host itself was started with a limit of {cpu:?} of processor time (`ulimit -t`, `LimitCPU=`): raise it"
            )
        } else {
            format!("the limit is {limit:?} of wall time and of processor time; make it smaller")
        };
        Problem::new(format!("{doing} it took too long: stopped after {took:.1?}")).hint(hint)
    }
}

/// Signals from outside: the kernel's when memory is short, an operator's, a supervisor's.
const EXTERNAL_SIGNALS: [Signal; 4] = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];

fn not_compiled(why: &str) -> Problem {
    Problem::new(format!("could not compile it: {}", shortened(why)))
}

fn shortened(stderr_text: &str) -> String {
    let mut stderr_text = stderr_text.to_owned();
    cut(&mut stderr_text, STDERR_SHOWN_BYTES_MAX);
    stderr_text
}

/// The exit code of a process that failed for a reason other than the component.
const EXIT_FAILED: i32 = 1;

/// The main function of the compiling process: limits itself, reads and compiles, and writes errors to stderr. Returns
/// the exit code. `args` are the arguments that [`Compile::Child`] adds to the command.
pub fn compile_child_main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let done = match args.as_slice() {
        [component, code, description, bytes, inspect_seconds, seconds] => {
            match (number(bytes), number(inspect_seconds), number(seconds)) {
                (Some(bytes), Some(inspect_seconds), Some(seconds)) => {
                    let paths = FilePaths {
                        component: component.as_ref(),
                        code: code.as_ref(),
                        description: description.as_ref(),
                    };
                    let inspect_seconds = inspect_seconds.min(seconds);
                    apply_limits(bytes, inspect_seconds, seconds).and_then(|()| {
                        // The time spent on inspection counts, too.
                        paths.examine(|| {
                            let _ = limit_time(seconds, seconds);
                        })
                    })
                }
                _ => Err(EXPECTED.to_owned()),
            }
        }
        _ => Err(EXPECTED.to_owned()),
    };
    match done {
        Ok(()) => 0,
        Err(why) => {
            // If nobody reads it, the exit code is enough.
            let _ = writeln!(io::stderr(), "{why}");
            EXIT_FAILED as u8
        }
    }
}

const EXPECTED: &str = "expected: COMPONENT CODE DESCRIPTION BYTES INSPECT-SECONDS SECONDS";

fn number(text: &OsString) -> Option<u64> {
    text.to_str()?.parse().ok()
}

fn limit(resource: Resource, max: u64, at_last: u64) -> rustix::io::Result<()> {
    // The host may have been started with less, which nobody can raise.
    let at_last = within_own(resource, at_last);
    setrlimit(resource, Rlimit { current: Some(max.min(at_last)), maximum: Some(at_last) })
}

/// Returns `wanted`, or the hard limit of this process if that is lower.
fn within_own(resource: Resource, wanted: u64) -> u64 {
    getrlimit(resource).maximum.map_or(wanted, |own| own.min(wanted))
}

/// At the soft limit the kernel sends a signal that names the cause, at the hard limit it kills the process.
fn limit_time(seconds: u64, at_last: u64) -> rustix::io::Result<()> {
    limit(Resource::Cpu, seconds.min(cpu_seconds(at_last)), at_last + 1)
}

/// Returns `wanted` seconds of processor time, or what the hard limit of this process leaves: a second before it, so that
/// the signal at the end still names the cause.
fn cpu_seconds(wanted: u64) -> u64 {
    within_own(Resource::Cpu, wanted.saturating_add(1)).saturating_sub(1).max(1)
}

fn apply_limits(bytes: u64, inspect_seconds: u64, seconds: u64) -> Result<(), String> {
    // The process ends with the host, should the host be killed.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    limit(Resource::As, bytes, bytes)
        .and_then(|()| limit_time(inspect_seconds, seconds))
        .and_then(|()| limit(Resource::Core, 0, 0))
        .map_err(|error| format!("could not limit the compiling process: {error}"))?;
    let _ = nice(NICENESS);
    Ok(())
}
