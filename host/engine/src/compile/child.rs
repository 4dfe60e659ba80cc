//! Reading and compiling a component, in a process of its own: a hostile component can make whoever reads it recurse,
//! compute and hoard without end, and then it is that process which ends, not the host.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use wharf_core::bounds;

use crate::compile::cache::Temporary;
use crate::compile::examine::Places;
use crate::inspect::description::Description;
use crate::spec::problem::{Problem, cut};

/// Where components are read and compiled.
#[derive(Clone, Debug)]
pub enum Compile {
    /// In a process of its own: `program args... COMPONENT CODE DESCRIPTION BYTES INSPECT-SECONDS SECONDS`, which calls
    /// [`compile_child_main`].
    Child { program: PathBuf, args: Vec<OsString>, max: CompileLimits },
    /// In this process, without bounds of memory and time: for tests, and for components that one made oneself.
    Here,
}

/// What the process may take.
#[derive(Clone, Copy, Debug)]
pub struct CompileLimits {
    pub memory_bytes: u64,
    /// Of processor, until the component was looked at.
    pub inspect_time: Duration,
    /// By the clock, and of processor.
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

/// The process runs at the lowest priority: running attempts go first.
const NICENESS: i32 = 19;
const STDERR_BYTES_MAX: u64 = 4096;
/// Of what such a process said, in a refusal.
const SAID_BYTES_MAX: usize = 500;

/// Where the process finds the component, and where it puts what becomes of it.
pub(crate) struct Files {
    pub(crate) component: Temporary,
    pub(crate) code: Temporary,
    pub(crate) description: Temporary,
}

impl Files {
    fn places(&self) -> Places<'_> {
        Places { component: self.component.path(), code: self.code.path(), description: self.description.path() }
    }
}

/// Why there is no description.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It says nothing of the component: the disk, or no process to be had.
    Here(Problem),
    /// The component ended its reader.
    Ended(Problem),
    /// Its reader was ended from outside, for instance as the machine ran out of memory: whose fault that was is open.
    Interrupted(Problem),
}

/// Reads the component and compiles it. Its code is in its place where the description has no problems.
///
/// # Errors
/// When nothing is known of the component after that.
pub(crate) async fn compile(how: &Compile, files: Files) -> Result<(Description, Files), Failed> {
    match how {
        Compile::Here => {
            let done = tokio::task::spawn_blocking(move || {
                files.places().examine(|| {}).map_err(|why| Failed::Here(not_compiled(&why)))?;
                description(&files).map(|description| (description, files))
            });
            done.await.map_err(|_| Failed::Ended(Problem::new("the compiler failed on it: a bug of the host")))?
        }
        Compile::Child { program, args, max } => {
            let mut command = Command::new(program);
            let Places { component, code, description: place } = files.places();
            command.args(args).args([component, code, place]);
            command.arg(max.memory_bytes.to_string());
            command.args([max.inspect_time, max.time].map(|time| time.as_secs_f64().ceil().to_string()));
            in_child(&mut command, *max, files.description.path()).await?;
            let done =
                tokio::task::spawn_blocking(move || description(&files).map(|description| (description, files))).await;
            done.map_err(|_| Failed::Here(Problem::new("the host failed on it, which is a bug of the host")))?
        }
    }
}

/// What the process wrote, which is bounded.
fn description(files: &Files) -> Result<Description, Failed> {
    let disk = |error: &dyn std::fmt::Display| {
        Failed::Here(Problem::new(format!("the cache folder does not take what is compiled: {error}")))
    };
    let mut bytes = Vec::new();
    fs::File::open(files.description.path())
        .and_then(|file| file.take(bounds::DESCRIPTION_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| disk(&error))?;
    Description::from_bytes(&bytes).ok_or_else(|| disk(&"what was written there is not what is read"))
}

/// `inspected` is there as soon as the component was looked at.
async fn in_child(command: &mut Command, max: CompileLimits, inspected: &Path) -> Result<(), Failed> {
    let broken = |error: io::Error| {
        Failed::Here(Problem::new(format!("it cannot be compiled, since the compiling process cannot be run: {error}")))
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
    let ended = tokio::time::timeout(max.time, async {
        if let Some(stderr) = &mut stderr {
            let _ = stderr.read_to_end(&mut said).await;
        }
        // The pipe is closed here, so that a child which says more than is heard does not wait for ever.
        drop(stderr.take());
        child.wait().await
    })
    .await;
    let status = match ended {
        Ok(status) => Some(status.map_err(broken)?),
        // Dropping the child kills it.
        Err(_) => None,
    };
    let end = End {
        doing: if inspected.exists() { "compiling" } else { "reading" },
        said: String::from_utf8_lossy(&said).into_owned(),
        took: began.elapsed(),
        max,
    };
    match status {
        Some(status) => end.explain(status),
        // By the clock: the machine may have had other things to do.
        None => Err(Failed::Interrupted(end.too_long())),
    }
}

/// How the process ended.
struct End {
    doing: &'static str,
    said: String,
    took: Duration,
    max: CompileLimits,
}

impl End {
    fn explain(self, status: ExitStatus) -> Result<(), Failed> {
        if status.success() {
            return Ok(());
        }
        let End { doing, said, took, max } = &self;
        let memory = bytesize::ByteSize(max.memory_bytes).display().iec();
        if ["memory allocation of", "Cannot allocate memory", "out of memory"].iter().any(|text| said.contains(text)) {
            return Err(Failed::Ended(
                Problem::new(format!("{doing} it takes more than {memory} of memory"))
                    .hint("make it smaller: split its largest functions, or leave code out"),
            ));
        }
        if said.contains("has overflowed its stack") {
            let what = format!("{doing} it takes more stack than there is: its types or its code nest too deep");
            return Err(Failed::Ended(Problem::new(what).hint("build it from sources whose types nest less deep")));
        }
        let ended_by = |signal: i32| {
            Problem::new(format!("the process that was {doing} it was ended by signal {signal} after {took:.1?}"))
                .hint(format!("if the machine is short of memory: compiling may take up to {memory}"))
        };
        match (status.signal(), status.code()) {
            (Some(signal), _) if signal == Signal::XCPU.as_raw() => Err(Failed::Ended(self.too_long())),
            (Some(signal), _) if FROM_OUTSIDE.iter().any(|outside| outside.as_raw() == signal) => {
                Err(Failed::Interrupted(ended_by(signal)))
            }
            (Some(signal), _) => Err(Failed::Ended(ended_by(signal))),
            (None, Some(CANNOT)) => Err(Failed::Here(not_compiled(said.trim()))),
            (None, _) => Err(Failed::Ended(Problem::new(format!(
                "the process that was {doing} it failed, which is a bug of the host: {}",
                short(said.trim())
            )))),
        }
    }

    fn too_long(&self) -> Problem {
        let End { doing, took, max, .. } = self;
        let limit = if *doing == "reading" { max.inspect_time.min(max.time) } else { max.time };
        Problem::new(format!("{doing} it takes too long: it was ended after {took:.1?}"))
            .hint(format!("{limit:?} by the clock and of processor is the most; make it smaller"))
    }
}

/// Signals that others send: the kernel where memory is short, an operator, whatever watches over the host.
const FROM_OUTSIDE: [Signal; 4] = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];

fn not_compiled(why: &str) -> Problem {
    Problem::new(format!("it cannot be compiled: {}", short(why)))
}

fn short(said: &str) -> String {
    let mut said = said.to_owned();
    cut(&mut said, SAID_BYTES_MAX);
    said
}

/// The exit code of a process that could not do its work, whatever the component is.
const CANNOT: i32 = 1;

/// What the process does: bounds itself, reads and compiles, says on stderr what went wrong. Returns its exit code.
/// `args` are what [`Compile::Child`] adds to the command.
pub fn compile_child_main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let done = match args.as_slice() {
        [component, code, description, bytes, inspect_seconds, seconds] => {
            match (number(bytes), number(inspect_seconds), number(seconds)) {
                (Some(bytes), Some(inspect_seconds), Some(seconds)) => {
                    let places = Places {
                        component: component.as_ref(),
                        code: code.as_ref(),
                        description: description.as_ref(),
                    };
                    let inspect_seconds = inspect_seconds.min(seconds);
                    bounded(bytes, inspect_seconds, seconds).and_then(|()| {
                        // What was spent on looking counts.
                        places.examine(|| {
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
            // Whoever does not hear it knows the code.
            let _ = writeln!(io::stderr(), "{why}");
            CANNOT as u8
        }
    }
}

const EXPECTED: &str = "expected: COMPONENT CODE DESCRIPTION BYTES INSPECT-SECONDS SECONDS";

fn number(text: &OsString) -> Option<u64> {
    text.to_str()?.parse().ok()
}

fn limit(resource: Resource, max: u64, at_last: u64) -> rustix::io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(max), maximum: Some(at_last) })
}

/// At the first bound of processor time the kernel says why it ends a process, at the second it does not.
fn limit_time(seconds: u64, at_last: u64) -> rustix::io::Result<()> {
    limit(Resource::Cpu, seconds, at_last + 1)
}

fn bounded(bytes: u64, inspect_seconds: u64, seconds: u64) -> Result<(), String> {
    // Ends with the host, should the host be killed.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    limit(Resource::As, bytes, bytes)
        .and_then(|()| limit_time(inspect_seconds, seconds))
        .and_then(|()| limit(Resource::Core, 0, 0))
        .map_err(|error| format!("the compiling process cannot be bounded: {error}"))?;
    let _ = nice(NICENESS);
    Ok(())
}
