//! The linker of everything that a plugin may import: the interfaces of this package and the standard ones of WASI.

mod replies;
mod kv;
mod holds;
mod schedule;

use std::time::Duration;

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi_config::WasiConfig;
use wharf_core::bounds;

use crate::call::GuestJob;
use crate::sandbox::bindings::Plugin;
use crate::sandbox::bindings::wharf::plugin::{attempt, broadcasts, jobs, types};
use crate::sandbox::guest_logging;
use crate::sandbox::imports::replies::ReplyBudget;
use crate::sandbox::monotonic_clock;
use crate::sandbox::open_file;
use crate::sandbox::store_data::Sandbox;

/// Makes the linker of everything that a plugin may import. The sandbox refuses the parts that reach outside unless
/// they are granted: standard libraries import most of WASI whether their program uses it or not.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Sandbox>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    monotonic_clock::add_to_linker(&mut linker)?;
    open_file::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, |sandbox: &mut Sandbox| WasiConfig::from(sandbox.config()))?;
    guest_logging::add_to_linker(&mut linker)?;
    Plugin::add_to_linker::<Sandbox, HasSelf<Sandbox>>(&mut linker, |sandbox| sandbox)?;
    Ok(linker)
}

impl types::Host for Sandbox {}

impl attempt::Host for Sandbox {
    async fn emit(&mut self, chunk: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        self.refuse_if_ended()?;
        if self.handle.is_cancel_requested() {
            return Ok(Err("the attempt is cancelled".to_owned()));
        }
        let bytes = chunk.len() as u64;
        if bytes > bounds::CHUNK_BYTES_MAX {
            return Ok(Err(format!(
                "the chunk is {bytes} bytes; the limit is {}; send it in parts",
                bounds::CHUNK_BYTES_MAX
            )));
        }
        if self.sent.chunks == bounds::CHUNKS_MAX || self.sent.chunk_bytes + bytes > bounds::CHUNKS_BYTES_MAX {
            let what = format!(
                "an attempt can send at most {} chunks, {} MiB in all",
                bounds::CHUNKS_MAX,
                bounds::CHUNKS_BYTES_MAX / bounds::MIB
            );
            // Refused once; a guest that goes on is ended.
            if std::mem::replace(&mut self.sent.refused, true) {
                return Err(self.end_at_output_bound(what));
            }
            return Ok(Err(what));
        }
        // So much of what it sends may wait for the store.
        let unwritten = |sent: u64| sent.min(bounds::UNWRITTEN_BYTES_MAX);
        let more = unwritten(self.sent.chunk_bytes + bytes) - unwritten(self.sent.chunk_bytes);
        self.sent.chunks += 1;
        self.sent.chunk_bytes += bytes;
        self.keep_bytes(more).await?;
        let stall_pause = self.handle.pause_stall();
        let taken = self.host_calls.emit(chunk).await;
        drop(stall_pause);
        Ok(taken)
    }

    fn progress(&mut self, fraction: f32, note: String) -> wasmtime::Result<()> {
        self.refuse_if_ended()?;
        self.handle.note_activity();
        let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        let note = note[..note.floor_char_boundary(bounds::PROGRESS_NOTE_BYTES_MAX as usize)].to_owned();
        self.host_calls.progress(fraction, note);
        Ok(())
    }

    fn cancelled(&mut self) -> wasmtime::Result<bool> {
        self.refuse_if_ended()?;
        Ok(self.handle.is_cancel_requested())
    }

    fn remaining_ms(&mut self) -> wasmtime::Result<u64> {
        self.refuse_if_ended()?;
        let remaining = self.handle.remaining(&self.limits, self.started_at);
        Ok(u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX))
    }
}

impl jobs::Host for Sandbox {
    async fn enqueue(&mut self, handles: Vec<Resource<GuestJob>>) -> wasmtime::Result<Result<Vec<String>, String>> {
        self.refuse_if_ended()?;
        if self.sent.jobs + handles.len() > bounds::BATCH_JOBS_MAX {
            return Ok(Err(format!("an attempt can enqueue at most {} jobs", bounds::BATCH_JOBS_MAX)));
        }
        let mut taken = Vec::with_capacity(handles.len());
        for handle in handles {
            taken.push(self.table.delete(handle)?);
        }
        let count = taken.len();
        let stall_pause = self.handle.pause_stall();
        let answer = self.host_calls.enqueue(taken).await;
        drop(stall_pause);
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
        if self.handle.is_cancel_requested() {
            return Ok(Err("the attempt is cancelled".to_owned()));
        }
        let bytes = payload.len() as u64;
        if bytes > bounds::PAYLOAD_BYTES_MAX {
            return Ok(Err(format!("the payload is {bytes} bytes; the limit is {}", bounds::PAYLOAD_BYTES_MAX)));
        }
        self.sent.broadcast_bytes += bytes;
        let replies_before = std::mem::take(&mut self.sent.replies_kept);
        self.drop_bytes(replies_before);
        self.keep_bytes(bytes).await?;
        let remaining = self.handle.remaining(&self.limits, self.started_at);
        let timeout = Duration::from_millis(timeout_ms).min(remaining);
        let stall_pause = self.handle.pause_stall();
        let replies = self.host_calls.broadcast(topic, payload, timeout, remaining).await;
        drop(stall_pause);
        // Its subscribers had what was left of its own time: if they used it up, the attempt has timed out, whichever
        // clock was first.
        self.handle.check_timeouts(&self.limits);
        self.refuse_if_ended()?;
        let mut budget = ReplyBudget::new();
        let converted = replies.map(|replies| replies.into_iter().map(|reply| budget.convert(reply)).collect());
        self.handle.meter().receive(budget.taken());
        // They are copied to the guest after this, so they count until the next ones.
        self.drop_bytes(bytes);
        self.sent.replies_kept = budget.taken();
        self.keep_bytes(budget.taken()).await?;
        Ok(converted)
    }
}

impl jobs::HostNewJob for Sandbox {
    async fn new(&mut self, task: String, payload: Vec<u8>) -> wasmtime::Result<Resource<GuestJob>> {
        self.count_job_bytes(task.len() + payload.len()).await?;
        Ok(self.table.push(GuestJob { task, payload, key: None, delay: None, priority: 0, token: None })?)
    }

    async fn key(&mut self, job: Resource<GuestJob>, key: String) -> wasmtime::Result<()> {
        self.count_job_bytes(key.len()).await?;
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

    async fn token(&mut self, job: Resource<GuestJob>, token: String) -> wasmtime::Result<()> {
        self.count_job_bytes(token.len()).await?;
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
        self.drop_bytes(bytes as u64);
        Ok(())
    }
}
