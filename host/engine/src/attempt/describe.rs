//! Asks a plugin what it is: once, at load, in a sandbox from which nothing can be reached.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use wasmtime::{Store, Trap};
use wharf_core::bounds;
use wharf_core::job::Stream;
use wharf_core::rollcall::Reply;

use crate::attempt::report::{self, Parts};
use crate::attempt::run::{self, NoRoom};
use crate::call::{AttemptLimits, GuestJob, HostCalls};
use crate::compile::linked::Linked;
use crate::inspect::line_table::Lines;
use crate::sandbox::limiter::Denied;
use crate::sandbox::log::Log;
use crate::sandbox::plugin_env::Premises;
use crate::sandbox::state::{Furnishing, Sandbox};
use crate::schedule::attempt_handle::{AttemptHandle, Ending};
use crate::schedule::metered::Turns;
use crate::schedule::watchdog::Watch;
use crate::spec::problem::Problem;

/// There is no job: nothing can be sent, nobody hears.
struct Nobody;

const NO_JOB: &str = "`describe` runs at load, without a job";

impl HostCalls for Nobody {
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

/// Calls `describe`.
///
/// # Errors
/// When the pool has no room at this moment. Within: when it does not return a text, and why.
pub(crate) async fn describe(linked: Arc<Linked>, premises: Arc<Premises>) -> Result<Result<String, Problem>, NoRoom> {
    let control = AttemptHandle::new();
    let limits = AttemptLimits {
        timeout: bounds::DESCRIBE_TIMEOUT,
        cpu: bounds::DESCRIBE_TIMEOUT,
        stall: None,
        memory_bytes: bounds::MEMORY_BYTES_DEFAULT,
        cancel_grace: bounds::CANCEL_GRACE,
        deadline: None,
    };
    let log = Log::new(Arc::new(Nobody), control.clone());
    let furnishing = Furnishing {
        premises: Arc::clone(&premises),
        attending: Arc::new(Nobody),
        control: control.clone(),
        limits: limits.clone(),
        log: log.clone(),
    };
    let sandbox = match Sandbox::new(furnishing, control.begin()) {
        Ok(sandbox) => sandbox,
        Err(why) => return Ok(Err(Problem::new(why))),
    };
    let mut store = Store::new(linked.pre.engine(), sandbox);
    run::bound(&mut store);

    let mut has_begun = false;
    let guest = async {
        let instance = linked.pre.instantiate_async(&mut store).await?;
        has_begun = true;
        linked.manifest.load(&mut store, &instance)?.call_describe(&mut store).await
    };
    let came = {
        let watch = Watch::new(&premises.home, &control, &limits);
        let (inner, control, watch, cpu) = (pin!(guest), &control, &watch, limits.cpu);
        Turns { inner, control, watch, cpu }.await
    };
    log.finish();
    match came {
        Some(Ok(text)) => Ok(Ok(text)),
        Some(Err(error)) if !has_begun && control.ending().is_none() && run::is_want_of_room(&error) => Err(NoRoom),
        came => {
            let error = came.and_then(Result::err);
            let denied =
                error.as_ref().map_or(Denied::Nothing, |error| store.data().space.blamed_for(error, has_begun));
            Ok(Err(failed(&control, denied, &log, &linked.description.lines, error.as_ref())))
        }
    }
}

fn failed(
    control: &AttemptHandle,
    denied: Denied,
    log: &Log,
    lines: &Lines,
    error: Option<&wasmtime::Error>,
) -> Problem {
    let trap = error.and_then(|error| error.downcast_ref::<Trap>());
    let (what, advice) = match (control.ending(), denied, error) {
        (Some(Ending::TimedOut(..)), ..) => (
            format!("`describe` does not return: it was ended after {} s", bounds::DESCRIBE_TIMEOUT.as_secs()),
            "let it return the manifest as a constant text",
        ),
        (_, Denied::Memory, _) => {
            let max = bytesize::ByteSize(bounds::MEMORY_BYTES_DEFAULT).display().iec();
            (format!("`describe` takes more than {max} of memory"), "let it return the manifest as a constant text")
        }
        (_, Denied::Table, _) => (
            format!(
                "it has tables of more than {} elements in all before it does anything",
                bounds::TABLE_ELEMENTS_MAX
            ),
            "let its tables be smaller",
        ),
        (_, _, Some(error)) => {
            let why = trap.map_or_else(|| error.root_cause().to_string(), |trap| report::trap_words(*trap));
            (format!("`describe` failed: {why}"), "")
        }
        _ => ("`describe` was ended".to_owned(), ""),
    };
    let text = Parts { what, error, lines, stderr: &log.last_lines(), advice: advice.to_owned() }.text();
    let mut lines = text.splitn(2, '\n');
    Problem::new(lines.next().unwrap_or_default()).hint(lines.next().unwrap_or_default())
}
