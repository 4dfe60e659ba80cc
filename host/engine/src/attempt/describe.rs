//! Calls a plugin's `describe` for its manifest: once, at load, in a sandbox from which nothing can be reached.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use wasmtime::{Store, Trap};
use wharf_core::bounds;
use wharf_core::budget::MemoryUse;
use wharf_core::job::Stream;
use wharf_core::rollcall::Reply;

use crate::attempt::report::{self, Report};
use crate::attempt::run::{self, PoolExhausted};
use crate::call::{AttemptLimits, GuestJob, HostCalls};
use crate::compile::linked::{Exports, Linked};
use crate::inspect::line_table::LineTable;
use crate::sandbox::limiter::Denied;
use crate::sandbox::log::Log;
use crate::sandbox::plugin_env::PluginEnv;
use crate::sandbox::store_data::{Sandbox, SandboxParts};
use crate::schedule::attempt_handle::{AttemptHandle, EndReason};
use crate::schedule::budget::Account;
use crate::schedule::metered::Metered;
use crate::schedule::watchdog::Watchdog;
use crate::spec::problem::{LoadError, Problem};

/// The host of a call that belongs to no job: refuses every call and drops every line of the log.
struct NoHost;

const CONSTANT_TEXT: &str = "return the manifest as a constant text";
const NO_SANDBOX: &str = "the machine could not give the host what a sandbox needs, such as open files, or some GiB of \
                          address space, which is not memory: see `ulimit -n` and `ulimit -v`";
const NO_JOB: &str = "`describe` runs at load, without a job";

impl HostCalls for NoHost {
    fn emit(&self, _: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        async { Err(NO_JOB.to_owned()) }.boxed()
    }
    fn log(&self, _: Stream, _: String) {}
    fn log_dropped(&self, _: u64) {}
    fn progress(&self, _: f32, _: String) {}
    fn enqueue(&self, _: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        async { Err(NO_JOB.to_owned()) }.boxed()
    }
    fn broadcast(&self, _: String, _: Vec<u8>, _: Duration, _: Duration) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        async { Err(NO_JOB.to_owned()) }.boxed()
    }
}

/// Calls `describe` and returns the manifest's text.
///
/// # Errors
/// [`PoolExhausted`] if the pool has no free slot at this moment. The inner error says why `describe` returned no text.
pub(crate) async fn describe(
    linked: Arc<Linked>,
    env: Arc<PluginEnv>,
) -> Result<Result<String, LoadError>, PoolExhausted> {
    let handle = AttemptHandle::new();
    let limits = AttemptLimits {
        timeout: bounds::DESCRIBE_TIMEOUT,
        cpu: bounds::DESCRIBE_TIMEOUT,
        stall: None,
        memory_bytes: bounds::MEMORY_BYTES_DEFAULT.min(env.budget.most(MemoryUse::Describe)),
        cancel_grace: bounds::CANCEL_GRACE,
        first_lease_end: None,
    };
    let log = Log::new(Arc::new(NoHost), handle.clone());
    let parts = SandboxParts {
        env: Arc::clone(&env),
        host_calls: Arc::new(NoHost),
        handle: handle.clone(),
        limits: limits.clone(),
        log: log.clone(),
        account: Account::new(MemoryUse::Describe, 0, 0),
        program: None,
        tick: None,
    };
    let sandbox = match Sandbox::new(parts, handle.start_clocks()) {
        Ok(sandbox) => sandbox,
        Err(why) => return Ok(Err(LoadError::passing(Problem::new(why)))),
    };
    let mut store = Store::new(linked.engine(), sandbox);
    run::apply_limits(&mut store);

    let Exports::Contract(exports) = &linked.exports else {
        return Ok(Err(Problem::new("it does not export `describe`: a bug of the host").into()));
    };
    let mut is_instantiated = false;
    let guest = async {
        let instance = exports.pre.instantiate_async(&mut store).await?;
        is_instantiated = true;
        exports.manifest.load(&mut store, &instance)?.call_describe(&mut store).await
    };
    let guest_return = {
        let watchdog = Watchdog::new(&env.runtime, &handle, &limits);
        let (inner, handle, watchdog, cpu) = (pin!(guest), &handle, &watchdog, limits.cpu);
        Metered { inner, handle, watchdog, cpu }.await
    };
    log.finish();
    match guest_return {
        Some(Ok(text)) => Ok(Ok(text)),
        Some(Err(error)) if !is_instantiated && handle.end_reason().is_none() && run::is_pool_exhausted(&error) => {
            Err(PoolExhausted)
        }
        guest_return => {
            let error = guest_return.and_then(Result::err);
            let denied =
                error.as_ref().map_or(Denied::Nothing, |error| store.data().limiter.cause_of(error, is_instantiated));
            if let Some(EndReason::Stopped(_, why)) = handle.end_reason() {
                return Ok(Err(LoadError::passing(Problem::new(format!("`describe` was ended: {why}")))));
            }
            // The machine lacked something before any code of the plugin ran.
            let passing = !is_instantiated && error.as_ref().is_some_and(is_system_error);
            let denied = (denied, limits.memory_bytes);
            let mut problem = failed(&handle, denied, &log, &linked.description.lines, error.as_ref());
            if passing {
                problem = problem.hint(NO_SANDBOX);
            }
            Ok(Err(LoadError { problems: vec![problem], passing }))
        }
    }
}

fn is_system_error(error: &wasmtime::Error) -> bool {
    let cause = error.root_cause();
    cause.is::<rustix::io::Errno>()
        || cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.raw_os_error().is_some())
}

/// Returns the problem of a component that begins with more of something than one sandbox may have.
fn too_many(error: &wasmtime::Error) -> Option<String> {
    let text = error.root_cause().to_string();
    let (what, max) = match text.strip_prefix("resource limit exceeded: ")?.split(' ').next()? {
        "instance" => ("core instances", bounds::INSTANCES_MAX),
        "memory" => ("memories", bounds::MEMORIES_MAX),
        "table" => ("tables", bounds::TABLES_MAX),
        _ => return None,
    };
    Some(format!("too many {what} at start; the limit is {max} in all"))
}

fn failed(
    handle: &AttemptHandle,
    (denied, memory_bytes): (Denied, u64),
    log: &Log,
    lines: &LineTable,
    error: Option<&wasmtime::Error>,
) -> Problem {
    let trap = error.and_then(|error| error.downcast_ref::<Trap>());
    let too_many = error.and_then(too_many);
    let (headline, advice) = match (handle.end_reason(), denied, error) {
        (Some(EndReason::TimedOut(..)), ..) => {
            (format!("`describe` did not return within {} s", bounds::DESCRIBE_TIMEOUT.as_secs()), CONSTANT_TEXT)
        }
        (_, Denied::Memory | Denied::Budget, _) => {
            let max = bytesize::ByteSize(memory_bytes).display().iec();
            (format!("`describe` used more memory than the limit of {max}"), CONSTANT_TEXT)
        }
        (_, Denied::Table, _) => (
            format!("too many table elements at start; the limit is {} in all", bounds::TABLE_ELEMENTS_MAX),
            "make its tables smaller",
        ),
        _ if too_many.is_some() => (too_many.unwrap_or_default(), "compose it of fewer"),
        (_, _, Some(error)) => {
            let why = trap.map_or_else(|| error.root_cause().to_string(), |trap| report::trap_text(*trap));
            let is_abort = trap == Some(&Trap::UnreachableCodeReached);
            match log.last_error().filter(|_| is_abort) {
                Some(guest_error) => (format!("`describe` failed: {guest_error}\ntrapped: {why}"), ""),
                None => (format!("`describe` failed: {why}"), ""),
            }
        }
        _ => ("`describe` was ended".to_owned(), ""),
    };
    let text =
        Report { guest_error: None, headline, error, lines, stderr: &log.last_lines(), advice: advice.to_owned() }
            .text();
    let mut lines = text.splitn(2, '\n');
    Problem::new(lines.next().unwrap_or_default()).hint(lines.next().unwrap_or_default())
}
