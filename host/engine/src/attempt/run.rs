//! Runs one attempt in its sandbox, from the first instruction to the outcome.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Instance, ResourceTableError};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};
use wasmtime_wasi::I32Exit;
use wharf_core::bounds;
use wharf_core::budget::{MemoryUse, attempt_memory_max};
use wharf_core::outcome::{self, Interruption, Outcome, TimeoutKind, Usage};

use crate::attempt::end::AttemptEnd;
use crate::attempt::report::{self, Report};
use crate::call::{AttemptLimits, CallInput, HostCalls};
use crate::compile::linked::{ContractExports, Exports};
use crate::plugin::Plugin;
use crate::sandbox::bindings::wharf::plugin::types::{Failure, Job, Message};
use crate::sandbox::guest_error;
use crate::sandbox::limiter::Denied;
use crate::sandbox::log::Log;
use crate::sandbox::program_output::{ProgramIo, ProgramOutput};
use crate::sandbox::store_data::{Sandbox, SandboxParts};
use crate::schedule::attempt_handle::{AttemptHandle, EndReason};
use crate::schedule::budget::{Account, Reservation};
use crate::schedule::metered::{self, Metered};
use crate::schedule::watchdog::Watchdog;
use crate::spec::manifest::RECEIVE;
use crate::spec::typed::json_writer::NoText;

const SEND_CHUNKS: &str = "send large output in chunks with `emit`";

/// Everything that one attempt runs with.
pub(crate) struct Run {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) input: CallInput,
    pub(crate) limits: AttemptLimits,
    pub(crate) host_calls: Arc<dyn HostCalls>,
    pub(crate) handle: AttemptHandle,
    pub(crate) memory: SandboxMemory,
}

/// The memory of the host's budget that a sandbox has at its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SandboxMemory {
    /// The use of the memory.
    pub(crate) of: MemoryUse,
    /// The bytes that are reserved for it.
    pub(crate) reserved: u64,
    /// Bytes of its first pages that are not reserved, and that it may have besides.
    pub(crate) first_pages: u64,
}

/// The result of the guest's function, or the error that it ended with; `None` if the host ended it while it waited.
type GuestReturn = Option<wasmtime::Result<Result<Vec<u8>, GuestFailure>>>;

/// The failure of a guest, in the terms in which it said so.
pub(crate) enum GuestFailure {
    /// A failure in the terms of the contract.
    Contract(Failure),
    /// The exit status of a program.
    Exit(u8),
    /// Its output was not taken, for this reason.
    Output(String),
    /// The error of its `result`, as JSON.
    Error(Vec<u8>),
    /// This version cannot be called with this payload, or its result has no text. Another version, or another call, may do.
    Unfit(String),
}

/// Bytes of a function's error that are looked at: more than a failure's text has.
const ERROR_BYTES_READ: usize = 64 * 1024;
/// Bytes up to which no room is kept for what an attempt leaves: it is there for a moment.
const SMALL_BYTES_MAX: u64 = 4096;

/// The pool has no free slot for a sandbox. Nothing has run yet, so that the attempt can be tried again.
pub(crate) struct PoolExhausted;

impl Run {
    /// Runs the attempt to its end. `started_at` is when its clocks started, on the assumption that the pool has a slot.
    ///
    /// # Errors
    /// [`PoolExhausted`] if the pool has no free slot at this moment.
    pub(crate) async fn try_run(
        &self,
        started_at: Instant,
        watchdog: &Watchdog<'_>,
    ) -> Result<AttemptEnd, PoolExhausted> {
        let log = Log::new(Arc::clone(&self.host_calls), self.handle.clone());
        let program = self.program_io();
        let output = program.as_ref().map(|program| program.output.clone());
        let mut store = match self.new_sandbox(&log, program, started_at) {
            Ok(sandbox) => Store::new(self.plugin.linked.engine(), sandbox),
            Err(why) => {
                return Ok(attempt_end(started_at, Outcome::Interrupted(Interruption::Host, why), Usage::default()));
            }
        };
        apply_limits(&mut store);

        let mut instantiated_after = None;
        let guest = async {
            match &self.plugin.linked.exports {
                Exports::Contract(exports) => {
                    let instance = exports.pre.instantiate_async(&mut store).await?;
                    instantiated_after = Some(started_at.elapsed());
                    self.call_contract(exports, &mut store, &instance).await
                }
                // In boxes of their own, so that a call by the contract is no larger for them.
                Exports::Plain(exports) => {
                    let instance = Box::pin(exports.pre.instantiate_async(&mut store)).await?;
                    instantiated_after = Some(started_at.elapsed());
                    Box::pin(self.call_plain(exports, &mut store, &instance, output.as_ref())).await
                }
                Exports::Module(pre) => {
                    let instance = Box::pin(pre.instantiate_async(&mut store)).await?;
                    instantiated_after = Some(started_at.elapsed());
                    Box::pin(self.call_module(&mut store, &instance, output.as_ref())).await
                }
            }
        };
        let (handle, cpu) = (&self.handle, self.limits.cpu);
        let guest_return = Metered { inner: pin!(guest), handle, watchdog, cpu }.await;
        // What it did with a grant that was taken away meanwhile does not count.
        store.data().is_ended();
        if let Some(Err(error)) = &guest_return
            && instantiated_after.is_none()
            && is_pool_exhausted(error)
            && self.handle.end_reason().is_none()
        {
            return Err(PoolExhausted);
        }

        let log_bytes = log.finish();
        let context =
            EndContext { run: self, sandbox: store.data(), log: &log, is_instantiated: instantiated_after.is_some() };
        let outcome = context.outcome(guest_return);
        let result_bytes = if let Outcome::Returned(result) = &outcome { result.len() as u64 } else { 0 };
        let sent = &store.data().sent;
        let usage = Usage {
            queue_wait: Duration::ZERO,
            cpu: handle.meter().spent(),
            wall: Duration::ZERO,
            memory_peak_bytes: store.data().limiter.peak_bytes(),
            in_bytes: self.input.payload().len() as u64 + handle.meter().received_bytes(),
            out_bytes: result_bytes
                + sent.chunk_bytes
                + output.as_ref().map_or(0, ProgramOutput::chunk_bytes)
                + sent.broadcast_bytes
                + sent.kv_bytes
                + log_bytes,
        };
        let output_bytes = output.as_ref().map_or(0, ProgramOutput::held_bytes);
        let held_bytes = store.data().limiter.account.peak().saturating_sub(self.memory.first_pages) + output_bytes;
        let left = self.room_left(result_bytes + sent.job_bytes + sent.kv_bytes.min(bounds::KV_WRITES_BYTES_MAX));
        let leaving = Instant::now();
        let account = store.data_mut().limiter.take_account();
        drop(store);
        // Until the sandbox is gone its pages are there: only now others may have them.
        drop(account);
        drop(output);
        let mut attempt_end = attempt_end(started_at, outcome, usage);
        (attempt_end.held_bytes, attempt_end.left) = (held_bytes, left);
        attempt_end.sandbox = instantiated_after.unwrap_or_default() + leaving.elapsed();
        Ok(attempt_end)
    }

    fn new_sandbox(&self, log: &Log, program: Option<ProgramIo>, started_at: Instant) -> Result<Sandbox, String> {
        if let Some(why) = self.plugin.env.revoked() {
            return Err(why.to_owned());
        }
        let mut account = self.account();
        if let Some(program) = &program {
            program.output.count_with(&mut account);
        }
        let parts = SandboxParts {
            env: Arc::clone(&self.plugin.env),
            host_calls: Arc::clone(&self.host_calls),
            handle: self.handle.clone(),
            limits: self.limits.clone(),
            log: log.clone(),
            account,
            program,
            tick: self.input.tick().copied(),
        };
        Sandbox::new(parts, started_at)
    }

    fn account(&self) -> Account {
        let SandboxMemory { of, reserved, first_pages } = self.memory;
        Account::new(of, reserved + first_pages, bounds::ATTEMPT_BYTES + self.payload_bytes())
    }

    /// Returns the bytes of its payload. That of a broadcast is one for all its subscribers, and counted once.
    fn payload_bytes(&self) -> u64 {
        match &self.input {
            CallInput::Job { payload, .. } => payload.len() as u64,
            CallInput::Message { .. } => 0,
        }
    }

    /// Reserves room for so many bytes that stay in the host when the sandbox is gone: its account gives back all that it has
    /// then, and others would take it at once.
    fn room_left(&self, bytes: u64) -> Option<Reservation> {
        let SandboxMemory { of, reserved, .. } = self.memory;
        // What was reserved for a job when it started is given back only when its end is counted.
        let has_room = of == MemoryUse::Attempts && self.payload_bytes() + bytes <= reserved;
        (bytes > SMALL_BYTES_MAX && !has_room).then(|| self.plugin.env.budget.reserve_anyway(of, bytes))
    }

    /// Calls the plugin's handler or its subscriber, by the kind of input.
    async fn call_contract(
        &self,
        exports: &ContractExports,
        store: &mut Store<Sandbox>,
        instance: &Instance,
    ) -> wasmtime::Result<Result<Vec<u8>, GuestFailure>> {
        let returned = match &self.input {
            CallInput::Job { id, task, key, payload, attempt, .. } => {
                let job = Job { id, task, key: key.as_deref(), payload, attempt: *attempt };
                let handler = exports.handler.as_ref().ok_or_else(absent)?.load(&mut *store, instance)?;
                handler.call_handle(store, job).await?
            }
            CallInput::Message { id, topic, payload } => {
                let message = Message { id, topic, payload };
                let subscriber = exports.subscriber.as_ref().ok_or_else(absent)?.load(&mut *store, instance)?;
                subscriber.call_receive(store, message).await?
            }
        };
        Ok(returned.map_err(GuestFailure::Contract))
    }
}

/// The error of a call of what is not there: a bug of the host.
pub(crate) fn absent() -> wasmtime::Error {
    wasmtime::Error::msg("the plugin does not export the function to call")
}

/// Makes the end of an attempt that started at `started_at`; its wall time is the time since then.
pub(crate) fn attempt_end(started_at: Instant, outcome: Outcome, usage: Usage) -> AttemptEnd {
    let usage = Usage { wall: started_at.elapsed(), ..usage };
    AttemptEnd { outcome, usage, sandbox: Duration::ZERO, held_bytes: 0, left: None }
}

/// Applies the limits of its sandbox to a store, and makes its guest yield at each tick.
pub(crate) fn apply_limits(store: &mut Store<Sandbox>) {
    store.limiter_async(|sandbox| sandbox);
    store.set_max_component_handles(bounds::HANDLES_MAX);
    store.set_hostcall_fuel(bounds::HOSTCALL_BYTES_MAX as usize);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        let sandbox = store.data();
        if sandbox.is_ended() {
            return Err(metered::Stopped.into());
        }
        metered::tick(&sandbox.handle, sandbox.limits.cpu)
    });
}

/// Returns true if the pool is used up, or, where there is no pool, the kernel's memory mappings are.
pub(crate) fn is_pool_exhausted(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
        || error
            .root_cause()
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::OutOfMemory)
}

/// A run that has ended, with everything that its outcome is derived from.
struct EndContext<'a> {
    run: &'a Run,
    sandbox: &'a Sandbox,
    log: &'a Log,
    /// The component was instantiated and the guest's function called.
    is_instantiated: bool,
}

impl EndContext<'_> {
    fn outcome(&self, guest_return: GuestReturn) -> Outcome {
        let outcome = match (self.run.handle.end_reason(), guest_return) {
            (Some(end_reason), guest_return) => {
                self.by_host(end_reason, guest_return.as_ref().and_then(|guest_return| guest_return.as_ref().err()))
            }
            (None, Some(Ok(Ok(result)))) => self.returned(result),
            (None, Some(Ok(Err(failure)))) => Outcome::Failed(self.failed(failure)),
            (None, Some(Err(error))) => self.by_guest(&error),
            (None, None) => {
                Outcome::Interrupted(Interruption::Host, "the host dropped the attempt: a bug of the host".to_owned())
            }
        };
        // However else it ended after the request to cancel: it was cancelled.
        match outcome {
            Outcome::Returned(_) | Outcome::Interrupted(..) => outcome,
            _ if self.run.handle.is_cancel_requested() => Outcome::Cancelled,
            _ => outcome,
        }
    }

    fn by_host(&self, end_reason: &EndReason, error: Option<&wasmtime::Error>) -> Outcome {
        let report = |headline: String, advice: String| self.report(None, headline, error, advice);
        match end_reason {
            EndReason::Cancelled => Outcome::Cancelled,
            EndReason::Stopped(why, report) => Outcome::Interrupted(*why, report.clone()),
            EndReason::OutputBound(limit) => {
                Outcome::OutputBound(report(format!("output limit reached: {limit}"), String::new()))
            }
            EndReason::TimedOut(clock, limit) => {
                let (headline, key) = match clock {
                    TimeoutKind::Wall => (format!("timed out: it ran for {limit:?}"), "timeout"),
                    TimeoutKind::Cpu => (format!("timed out: it used {limit:?} of CPU time"), "cpu"),
                    TimeoutKind::Stall => (format!("stalled: no output and no progress for {limit:?}"), "stall"),
                };
                let report = report(headline, self.how_to_raise(key));
                Outcome::TimedOut { clock: *clock, limit: *limit, report }
            }
        }
    }

    fn returned(&self, result: Vec<u8>) -> Outcome {
        let max = bounds::OUTPUT_BYTES_MAX;
        if result.len() as u64 > max {
            let headline = format!("the result is {} bytes; the limit is {max}", result.len());
            return Outcome::OutputBound(self.report(None, headline, None, SEND_CHUNKS.to_owned()));
        }
        if self.sandbox.sent.refused {
            let headline = format!(
                "the attempt returned, but some of its chunks were refused; the limit is {} chunks, {} MiB in all",
                bounds::CHUNKS_MAX,
                bounds::CHUNKS_BYTES_MAX / bounds::MIB
            );
            let advice = "send less, or return when `emit` fails".to_owned();
            return Outcome::OutputBound(self.report(None, headline, None, advice));
        }
        Outcome::Returned(result)
    }

    fn by_guest(&self, error: &wasmtime::Error) -> Outcome {
        if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
            let headline = format!("the plugin called exit({code}) instead of returning");
            let guest_error = self.log.last_error().filter(|_| *code != 0);
            let advice = "return a result or a failure instead".to_owned();
            return Outcome::Trapped(self.report(guest_error, headline, None, advice));
        }
        match self.sandbox.limiter.cause_of(error, self.is_instantiated) {
            Denied::Memory => {
                let limit_bytes = self.run.limits.memory_bytes;
                let limit = bytesize::ByteSize(limit_bytes).display().iec();
                let headline = format!("out of memory: the limit is {limit}");
                let report = self.report(None, headline, Some(error), self.how_to_raise("memory"));
                return Outcome::OutOfMemory { limit_bytes, report };
            }
            Denied::Table => {
                let headline = format!("too many table elements; the limit is {} in all", bounds::TABLE_ELEMENTS_MAX);
                return Outcome::Trapped(self.report(None, headline, Some(error), String::new()));
            }
            Denied::Budget => {
                let limit_bytes = attempt_memory_max(self.run.plugin.env.budget.total());
                let limit = bytesize::ByteSize(limit_bytes).display().iec();
                let headline = format!("out of memory: this host's budget has at most {limit} for one attempt");
                let advice = "to raise it, set `memory.budget` in wharf.toml".to_owned();
                let report = self.report(None, headline, Some(error), advice);
                return Outcome::OutOfMemory { limit_bytes, report };
            }
            Denied::Nothing => {}
        }
        if matches!(error.downcast_ref::<NoText>(), Some(NoText::TooLarge)) {
            let headline = format!("{}; the limit of a result", NoText::TooLarge);
            return Outcome::OutputBound(self.report(None, headline, None, "return less".to_owned()));
        }
        let root = error.root_cause().to_string();
        // The one error of wasmtime's that has no type of its own.
        if root.contains("fuel allocated for hostcalls") {
            let headline = format!(
                "more than {} MiB crossed between plugin and host in one call",
                bounds::HOSTCALL_BYTES_MAX / bounds::MIB
            );
            return Outcome::OutputBound(self.report(None, headline, Some(error), SEND_CHUNKS.to_owned()));
        }
        if matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full)) {
            let headline = format!(
                "too many host resources at once (new jobs, streams, files, requests); the limit is {}",
                bounds::HOST_RESOURCES_MAX
            );
            let advice = "drop each as soon as it is not needed any more".to_owned();
            return Outcome::Trapped(self.report(None, headline, Some(error), advice));
        }
        let trap = error.downcast_ref::<Trap>();
        let guest_error =
            trap.filter(|trap| **trap == Trap::UnreachableCodeReached).and_then(|_| self.log.last_error());
        let what = trap.map_or(root, |trap| report::trap_text(*trap));
        let advice = guest_error.as_deref().map(guest_error::advice).unwrap_or_default().to_owned();
        Outcome::Trapped(self.report(guest_error, format!("trapped: {what}"), Some(error), advice))
    }

    fn failed(&self, failure: GuestFailure) -> outcome::Failure {
        match failure {
            GuestFailure::Contract(failure) => failed(failure),
            GuestFailure::Exit(status) => {
                let headline = format!("the program ended with exit status {status}");
                let report = self.report(self.log.last_error(), headline, None, String::new());
                let discards = self.run.plain_settings().is_some_and(|plain| plain.discard_on.contains(&status));
                if discards { outcome::Failure::Discard(report) } else { outcome::Failure::Retry(report) }
            }
            GuestFailure::Error(json) => {
                let begin = &json[..json.len().min(ERROR_BYTES_READ)];
                let text = report::shortened(String::from_utf8_lossy(begin).into_owned());
                let discards = self.run.plain_settings().is_some_and(|plain| plain.discard_errors);
                if discards { outcome::Failure::Discard(text) } else { outcome::Failure::Retry(text) }
            }
            GuestFailure::Unfit(why) => outcome::Failure::Retry(report::shortened(why)),
            GuestFailure::Output(why) => outcome::Failure::Retry(self.report(
                None,
                format!("its output was not taken: {why}"),
                None,
                String::new(),
            )),
        }
    }

    fn report(
        &self,
        guest_error: Option<String>,
        headline: String,
        error: Option<&wasmtime::Error>,
        advice: String,
    ) -> String {
        let lines = &self.run.plugin.linked.description.lines;
        Report { guest_error, headline, error, lines, stderr: &self.log.last_lines(), advice }.text()
    }

    /// Describes where a limit of this call is set: in the manifest, and in the operator's settings.
    fn how_to_raise(&self, key: &str) -> String {
        let plugin = &self.run.plugin.id;
        let table = match &self.run.input {
            CallInput::Job { task, .. } => format!("tasks.{task}"),
            CallInput::Message { .. } => RECEIVE.to_owned(),
        };
        format!(
            "to raise the limit, set {key} = \"...\" under [{table}] in the manifest, or under [plugins.{plugin}.{table}] in wharf.toml"
        )
    }
}

fn failed(failure: Failure) -> outcome::Failure {
    match failure {
        Failure::Retry(why) => outcome::Failure::Retry(report::shortened(why)),
        Failure::RetryAfter((why, after_ms)) => {
            outcome::Failure::RetryAfter(report::shortened(why), Duration::from_millis(after_ms))
        }
        Failure::Discard(why) => outcome::Failure::Discard(report::shortened(why)),
    }
}
