//! What plugins may import of this package, and the linker that offers it with the standard WASI interfaces.

mod replies;
mod kv;

use std::time::Duration;

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi_config::WasiConfig;
use wharf_core::bounds;

use crate::call::GuestJob;
use crate::sandbox::monotonic_clock;
use crate::sandbox::state::Sandbox;
use crate::schedule::attempt_handle::Ending;
use crate::schedule::metered::Stopped;

wasmtime::component::bindgen!({
    path: "../../wit",
    // All that the contract has; what stands in no world there needs a grant.
    inline: "package wharf:host; world plugin { include wharf:plugin/plugin@0.1.0; import wharf:plugin/kv@0.1.0; }",
    world: "wharf:host/plugin",
    imports: {
        "wharf:plugin/attempt.emit": async | trappable,
        "wharf:plugin/broadcasts.broadcast": async | trappable,
        "wharf:plugin/jobs.enqueue": async | trappable,
        "wharf:plugin/kv": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: { "wharf:plugin/jobs.new-job": crate::call::GuestJob },
});

use replies::Room;
pub(crate) use wharf::plugin::types::{Failure, Job, Message};
use wharf::plugin::{attempt, broadcasts, jobs, types};

/// Everything that a plugin may import. What of it leads outside is refused by the sandbox unless it is granted:
/// standard libraries import most of WASI whether their program uses it or not.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Sandbox>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    monotonic_clock::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, |sandbox: &mut Sandbox| WasiConfig::from(sandbox.config()))?;
    Plugin::add_to_linker::<Sandbox, HasSelf<Sandbox>>(&mut linker, |sandbox| sandbox)?;
    Ok(linker)
}

impl Sandbox {
    /// Ends the attempt for going on past an output bound.
    fn past_bound(&self, what: String) -> wasmtime::Error {
        self.control.end(Ending::Output(what));
        Stopped.into()
    }
}

impl types::Host for Sandbox {}

impl attempt::Host for Sandbox {
    async fn emit(&mut self, chunk: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        self.refuse_if_ended()?;
        if self.control.is_cancel_asked() {
            return Ok(Err("the attempt is cancelled".to_owned()));
        }
        let bytes = chunk.len() as u64;
        if bytes > bounds::CHUNK_BYTES_MAX {
            return Ok(Err(format!(
                "the chunk has {bytes} bytes; {} is the most: send it in parts",
                bounds::CHUNK_BYTES_MAX
            )));
        }
        if self.sent.chunks == bounds::CHUNKS_MAX || self.sent.chunk_bytes + bytes > bounds::CHUNKS_BYTES_MAX {
            let what = format!(
                "an attempt may send {} chunks, {} MiB in all",
                bounds::CHUNKS_MAX,
                bounds::CHUNKS_BYTES_MAX / bounds::MIB
            );
            // Told once; a guest that does not listen is ended.
            if std::mem::replace(&mut self.sent.refused, true) {
                return Err(self.past_bound(what));
            }
            return Ok(Err(what));
        }
        self.sent.chunks += 1;
        self.sent.chunk_bytes += bytes;
        let excused = self.control.excuse();
        let taken = self.attending.emit(chunk).await;
        drop(excused);
        Ok(taken)
    }

    fn progress(&mut self, fraction: f32, note: String) -> wasmtime::Result<()> {
        self.refuse_if_ended()?;
        self.control.sign();
        let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        let note = note[..note.floor_char_boundary(bounds::PROGRESS_NOTE_BYTES_MAX as usize)].to_owned();
        self.attending.progress(fraction, note);
        Ok(())
    }

    fn cancelled(&mut self) -> wasmtime::Result<bool> {
        self.refuse_if_ended()?;
        Ok(self.control.is_cancel_asked())
    }

    fn remaining_ms(&mut self) -> wasmtime::Result<u64> {
        self.refuse_if_ended()?;
        let remaining = self.control.remaining(&self.limits, self.began);
        Ok(u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX))
    }
}

impl jobs::Host for Sandbox {
    async fn enqueue(&mut self, handles: Vec<Resource<GuestJob>>) -> wasmtime::Result<Result<Vec<String>, String>> {
        self.refuse_if_ended()?;
        if self.sent.jobs + handles.len() > bounds::BATCH_JOBS_MAX {
            return Ok(Err(format!("an attempt may enqueue {} jobs", bounds::BATCH_JOBS_MAX)));
        }
        let mut taken = Vec::with_capacity(handles.len());
        for handle in handles {
            taken.push(self.table.delete(handle)?);
        }
        let count = taken.len();
        let excused = self.control.excuse();
        let answer = self.attending.enqueue(taken).await;
        drop(excused);
        if answer.is_ok() {
            self.sent.jobs += count;
        }
        Ok(answer)
    }
}

impl broadcasts::Host for Sandbox {
    async fn broadcast(
        &mut self,
        topic: String,
        payload: Vec<u8>,
        timeout_ms: u64,
    ) -> wasmtime::Result<Result<Vec<broadcasts::Reply>, String>> {
        self.refuse_if_ended()?;
        if self.control.is_cancel_asked() {
            return Ok(Err("the attempt is cancelled".to_owned()));
        }
        let bytes = payload.len() as u64;
        if bytes > bounds::PAYLOAD_BYTES_MAX {
            return Ok(Err(format!("the payload has {bytes} bytes; {} is the most", bounds::PAYLOAD_BYTES_MAX)));
        }
        self.sent.broadcast_bytes += bytes;
        let remaining = self.control.remaining(&self.limits, self.began);
        let timeout = Duration::from_millis(timeout_ms).min(remaining);
        let excused = self.control.excuse();
        let answered = self.attending.broadcast(topic, payload, timeout, remaining).await;
        drop(excused);
        // Its subscribers had what was left of its own time: where they used it up, so has it, whoever noticed first.
        self.control.look(&self.limits);
        self.refuse_if_ended()?;
        let mut room = Room::new();
        let crossed = answered.map(|replies| replies.into_iter().map(|reply| room.cross(reply)).collect());
        self.control.meter().receive(room.taken());
        Ok(crossed)
    }
}

impl Sandbox {
    /// What a job in the making holds is memory of the host, not of the sandbox: counted as it comes.
    fn hold(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.refuse_if_ended()?;
        self.sent.job_bytes += bytes as u64;
        if self.sent.job_bytes > bounds::BATCH_BYTES_MAX {
            return Err(self.past_bound(format!(
                "the jobs that an attempt enqueues may have {} MiB in all",
                bounds::BATCH_BYTES_MAX / bounds::MIB
            )));
        }
        Ok(())
    }
}

impl jobs::HostNewJob for Sandbox {
    fn new(&mut self, task: String, payload: Vec<u8>) -> wasmtime::Result<Resource<GuestJob>> {
        self.hold(task.len() + payload.len())?;
        Ok(self.table.push(GuestJob { task, payload, key: None, delay: None, priority: 0, token: None })?)
    }

    fn key(&mut self, job: Resource<GuestJob>, key: String) -> wasmtime::Result<()> {
        self.hold(key.len())?;
        self.table.get_mut(&job)?.key = Some(key);
        Ok(())
    }

    fn delay_ms(&mut self, job: Resource<GuestJob>, delay: u64) -> wasmtime::Result<()> {
        self.refuse_if_ended()?;
        self.table.get_mut(&job)?.delay = Some(Duration::from_millis(delay));
        Ok(())
    }

    fn priority(&mut self, job: Resource<GuestJob>, priority: i32) -> wasmtime::Result<()> {
        self.refuse_if_ended()?;
        self.table.get_mut(&job)?.priority = priority;
        Ok(())
    }

    fn token(&mut self, job: Resource<GuestJob>, token: String) -> wasmtime::Result<()> {
        self.hold(token.len())?;
        self.table.get_mut(&job)?.token = Some(token);
        Ok(())
    }

    fn drop(&mut self, job: Resource<GuestJob>) -> wasmtime::Result<()> {
        let job = self.table.delete(job)?;
        let bytes = job.task.len()
            + job.payload.len()
            + job.key.map_or(0, |key| key.len())
            + job.token.map_or(0, |token| token.len());
        self.sent.job_bytes = self.sent.job_bytes.saturating_sub(bytes as u64);
        Ok(())
    }
}
