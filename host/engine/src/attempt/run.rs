//! One attempt in its sandbox, from the first instruction to the outcome.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Instance, ResourceTableError};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};
use wasmtime_wasi::I32Exit;
use wharf_core::bounds;
use wharf_core::outcome::{self, Bill, Interruption, Outcome, TimeoutKind};

use crate::attempt::report::{self, Parts};
use crate::call::{AttemptEnd, AttemptLimits, CallInput, HostCalls};
use crate::plugin::Plugin;
use crate::sandbox::imports::{Failure, Job, Message};
use crate::sandbox::limiter::Denied;
use crate::sandbox::log::Log;
use crate::sandbox::state::{Furnishing, Sandbox};
use crate::schedule::attempt_handle::{AttemptHandle, Ending};
use crate::schedule::metered::{self, Turns};
use crate::schedule::watchdog::Watch;
use crate::spec::manifest::RECEIVE;

/// All that one attempt is run with.
pub(crate) struct Run {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) given: Given,
    pub(crate) limits: AttemptLimits,
    pub(crate) attending: Arc<dyn HostCalls>,
    pub(crate) control: AttemptHandle,
}

/// What is asked, as the guest takes it.
pub(crate) enum Given {
    Job(Job),
    Message(Message),
}

impl From<CallInput> for Given {
    fn from(asked: CallInput) -> Given {
        match asked {
            CallInput::Job { id, task, key, payload, attempt } => {
                Given::Job(Job { id, task, key, payload: payload.to_vec(), attempt })
            }
            CallInput::Message { id, topic, payload } => {
                Given::Message(Message { id, topic, payload: payload.to_vec() })
            }
        }
    }
}

impl Given {
    fn payload(&self) -> &[u8] {
        match self {
            Given::Job(Job { payload, .. }) | Given::Message(Message { payload, .. }) => payload,
        }
    }
}

/// What the guest itself came to; `None` if it was ended while it waited.
type Came = Option<wasmtime::Result<Result<Vec<u8>, Failure>>>;

/// There was no room in the pool: nothing has happened, the attempt can be tried again.
pub(crate) struct NoRoom;

impl Run {
    /// `began` is when it had its room, as far as is known.
    ///
    /// # Errors
    /// When the pool has no room at this moment.
    pub(crate) async fn once(&self, began: Instant, watch: &Watch<'_>) -> Result<AttemptEnd, NoRoom> {
        let log = Log::new(Arc::clone(&self.attending), self.control.clone());
        let mut store = match self.furnish(&log, began) {
            Ok(sandbox) => Store::new(self.plugin.linked.pre.engine(), sandbox),
            Err(why) => return Ok(ended(began, Outcome::Interrupted(Interruption::Host, why), Bill::default())),
        };
        bound(&mut store);

        let mut made = None;
        let guest = async {
            let instance = self.plugin.linked.pre.instantiate_async(&mut store).await?;
            made = Some(began.elapsed());
            self.ask(&mut store, &instance).await
        };
        let (control, cpu) = (&self.control, self.limits.cpu);
        let came = Turns { inner: pin!(guest), control, watch, cpu }.await;
        if let Some(Err(error)) = &came
            && made.is_none()
            && is_want_of_room(error)
            && self.control.ending().is_none()
        {
            return Err(NoRoom);
        }

        let log_bytes = log.finish();
        let judged = Judged { run: self, sandbox: store.data(), stderr: log.last_lines(), has_begun: made.is_some() };
        let outcome = judged.outcome(came);
        let result_bytes = if let Outcome::Returned(result) = &outcome { result.len() as u64 } else { 0 };
        let sent = &store.data().sent;
        let bill = Bill {
            queue_wait: Duration::ZERO,
            guest: control.meter().spent(),
            wall: Duration::ZERO,
            memory_peak_bytes: store.data().space.peak_bytes(),
            in_bytes: self.given.payload().len() as u64 + control.meter().received_bytes(),
            out_bytes: result_bytes + sent.chunk_bytes + sent.broadcast_bytes + sent.kept_bytes + log_bytes,
        };
        let leaving = Instant::now();
        drop(store);
        let mut ended = ended(began, outcome, bill);
        ended.sandbox = made.unwrap_or_default() + leaving.elapsed();
        Ok(ended)
    }

    fn furnish(&self, log: &Log, began: Instant) -> Result<Sandbox, String> {
        let furnishing = Furnishing {
            premises: Arc::clone(&self.plugin.premises),
            attending: Arc::clone(&self.attending),
            control: self.control.clone(),
            limits: self.limits.clone(),
            log: log.clone(),
        };
        Sandbox::new(furnishing, began)
    }

    /// Calls the handler or the subscriber.
    async fn ask(&self, store: &mut Store<Sandbox>, instance: &Instance) -> wasmtime::Result<Result<Vec<u8>, Failure>> {
        let absent = || wasmtime::Error::msg("the plugin does not export what was to be called");
        let linked = &self.plugin.linked;
        match &self.given {
            Given::Job(job) => {
                let handler = linked.handler.as_ref().ok_or_else(absent)?.load(&mut *store, instance)?;
                handler.call_handle(store, job).await
            }
            Given::Message(message) => {
                let subscriber = linked.subscriber.as_ref().ok_or_else(absent)?.load(&mut *store, instance)?;
                subscriber.call_receive(store, message).await
            }
        }
    }
}

pub(crate) fn ended(began: Instant, outcome: Outcome, bill: Bill) -> AttemptEnd {
    AttemptEnd { outcome, bill: Bill { wall: began.elapsed(), ..bill }, sandbox: Duration::ZERO }
}

/// Bounds it by what its sandbox is allowed.
pub(crate) fn bound(store: &mut Store<Sandbox>) {
    store.limiter(|sandbox| &mut sandbox.space);
    store.set_max_component_handles(bounds::HANDLES_MAX);
    store.set_hostcall_fuel(bounds::HOSTCALL_BYTES_MAX as usize);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| metered::tick(&store.data().control, store.data().limits.cpu));
}

/// The pool is used up, or, where there is none, the kernel's mappings.
pub(crate) fn is_want_of_room(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
        || error
            .root_cause()
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::OutOfMemory)
}

/// An attempt that came to its end, and what is known of it.
struct Judged<'a> {
    run: &'a Run,
    sandbox: &'a Sandbox,
    stderr: Vec<String>,
    /// It was made and its handler called.
    has_begun: bool,
}

impl Judged<'_> {
    fn outcome(&self, came: Came) -> Outcome {
        let outcome = match (self.run.control.ending(), came) {
            (Some(ending), came) => self.by_host(ending, came.as_ref().and_then(|came| came.as_ref().err())),
            (None, Some(Ok(Ok(result)))) => self.returned(result),
            (None, Some(Ok(Err(failure)))) => Outcome::Failed(failed(failure)),
            (None, Some(Err(error))) => self.by_guest(&error),
            (None, None) => Outcome::Interrupted(
                Interruption::Host,
                "the attempt was dropped by its host: a bug of the host".to_owned(),
            ),
        };
        // Whatever else it came to after it was asked to end: it was cancelled.
        match outcome {
            Outcome::Returned(_) | Outcome::Interrupted(..) => outcome,
            _ if self.run.control.is_cancel_asked() => Outcome::Cancelled,
            _ => outcome,
        }
    }

    fn by_host(&self, ending: &Ending, error: Option<&wasmtime::Error>) -> Outcome {
        let told = |what: String, advice: String| self.report(what, error, advice);
        match ending {
            Ending::Cancelled => Outcome::Cancelled,
            Ending::Stopped(why, report) => Outcome::Interrupted(*why, report.clone()),
            Ending::Output(what) => {
                Outcome::OutputBound(told(format!("an output bound was reached: {what}"), String::new()))
            }
            Ending::TimedOut(clock, limit) => {
                let (what, key) = match clock {
                    TimeoutKind::Wall => (format!("timed out: it ran for {limit:?}"), "timeout"),
                    TimeoutKind::Cpu => (format!("timed out: it used {limit:?} of guest time"), "cpu"),
                    TimeoutKind::Stall => {
                        (format!("stalled: for {limit:?} it sent no output and told no progress"), "stall")
                    }
                };
                let report = told(what, self.raise(key, "\"...\""));
                Outcome::TimedOut { clock: *clock, limit: *limit, report }
            }
        }
    }

    fn returned(&self, result: Vec<u8>) -> Outcome {
        let max = bounds::OUTPUT_BYTES_MAX;
        if result.len() as u64 > max {
            let what = format!("the result has {} bytes; {max} is the most", result.len());
            return Outcome::OutputBound(self.report(what, None, "send large output in chunks with `emit`".to_owned()));
        }
        if self.sandbox.sent.refused {
            let what = "it returned, but not all of its chunks were taken: an attempt's chunks have a bound".to_owned();
            return Outcome::OutputBound(self.report(what, None, "send less, or end when `emit` fails".to_owned()));
        }
        Outcome::Returned(result)
    }

    fn by_guest(&self, error: &wasmtime::Error) -> Outcome {
        if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
            let what = format!("the plugin called exit({code}) instead of returning");
            return Outcome::Trapped(self.report(what, None, "return a result or a failure instead".to_owned()));
        }
        match self.sandbox.space.blamed_for(error, self.has_begun) {
            Denied::Memory => {
                let limit_bytes = self.run.limits.memory_bytes;
                let what =
                    format!("out of memory: {} is what it may have", bytesize::ByteSize(limit_bytes).display().iec());
                let report = self.report(what, Some(error), self.raise("memory", "\"...\""));
                return Outcome::OutOfMemory { limit_bytes, report };
            }
            Denied::Table => {
                let what = format!("it grew its tables beyond {} elements in all", bounds::TABLE_ELEMENTS_MAX);
                return Outcome::Trapped(self.report(what, Some(error), String::new()));
            }
            Denied::Nothing => {}
        }
        let root = error.root_cause().to_string();
        // The one error of wasmtime's that has no type of its own.
        if root.contains("fuel allocated for hostcalls") {
            let what = format!(
                "more than {} MiB crossed between plugin and host in one call",
                bounds::HOSTCALL_BYTES_MAX / bounds::MIB
            );
            return Outcome::OutputBound(self.report(
                what,
                Some(error),
                "send large output in chunks with `emit`".to_owned(),
            ));
        }
        if matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full)) {
            let what = format!(
                "it holds more than {} things of the host at once: jobs in the making, streams, files, requests",
                bounds::HOST_RESOURCES_MAX
            );
            return Outcome::Trapped(self.report(what, Some(error), "drop what is not needed any more".to_owned()));
        }
        let what = error.downcast_ref::<Trap>().map_or(root, |trap| report::trap_words(*trap));
        Outcome::Trapped(self.report(format!("trapped: {what}"), Some(error), String::new()))
    }

    fn report(&self, what: String, error: Option<&wasmtime::Error>, advice: String) -> String {
        let lines = &self.run.plugin.linked.description.lines;
        Parts { what, error, lines, stderr: &self.stderr, advice }.text()
    }

    fn raise(&self, key: &str, value: &str) -> String {
        let plugin = &self.run.plugin.id;
        let table = match &self.run.given {
            Given::Job(job) => format!("tasks.{}", job.task),
            Given::Message(_) => RECEIVE.to_owned(),
        };
        format!(
            "if that is too little, say {key} = {value} under [{table}] in the manifest, or under [plugins.{plugin}.{table}] in wharf.toml"
        )
    }
}

fn failed(failure: Failure) -> outcome::Failure {
    match failure {
        Failure::Retry(why) => outcome::Failure::Retry(report::bounded(why)),
        Failure::RetryAfter((why, after_ms)) => {
            outcome::Failure::RetryAfter(report::bounded(why), Duration::from_millis(after_ms))
        }
        Failure::Discard(why) => outcome::Failure::Discard(report::bounded(why)),
    }
}
