//! Room for what a sandbox holds, in the host's budget of memory. Where there is none, the guest is suspended until there is.

use std::pin::Pin;
use std::task::{Context, Poll};

use wasmtime::ResourceLimiterAsync;
use wharf_core::bounds;

use crate::sandbox::store_data::Sandbox;
use crate::schedule::budget::{Asker, TooMuch};

/// An answer that is known at once. It has no size, so that a box of it allocates nothing.
struct Known<const IS_GRANTED: bool>;

impl<const IS_GRANTED: bool> Future for Known<IS_GRANTED> {
    type Output = wasmtime::Result<bool>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<wasmtime::Result<bool>> {
        Poll::Ready(Ok(IS_GRANTED))
    }
}

type Growing<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<bool>> + Send + 'a>>;

impl Sandbox {
    /// Waits for room for a growth that the sandbox's own limit allows. Returns false if there will never be room for it.
    async fn wait_to_grow(&mut self, bytes: u64) -> bool {
        let asker = Asker { budget: &self.outbound.env.budget, handle: &self.handle };
        self.limiter.account.add(asker, bytes).await.is_ok()
    }

    /// Counts bytes that the host has received from the guest and keeps, and waits until there is room for them.
    ///
    /// # Errors
    /// The attempt ends: more was received than the budget could ever hold, or the attempt was released meanwhile.
    pub(crate) async fn keep_bytes(&mut self, bytes: u64) -> wasmtime::Result<()> {
        let asker = Asker { budget: &self.outbound.env.budget, handle: &self.handle };
        match self.limiter.account.add_present(asker, bytes).await {
            Ok(()) => self.refuse_if_ended(),
            Err(TooMuch) => {
                let what = format!(
                    "what the host must keep for it is more than this host's budget of memory can hold: {} for all \
                     (`memory.budget`)",
                    bytesize::ByteSize(self.outbound.env.budget.total()).display().iec()
                );
                Err(self.end_at_output_bound(what))
            }
        }
    }

    /// Counts the bytes of a job that the guest is making: they take memory of the host, not of the sandbox.
    pub(crate) async fn count_job_bytes(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.refuse_if_ended()?;
        self.sent.job_bytes += bytes as u64;
        if self.sent.job_bytes > bounds::BATCH_BYTES_MAX {
            return Err(self.end_at_output_bound(format!(
                "the jobs that an attempt enqueues can have at most {} MiB in all",
                bounds::BATCH_BYTES_MAX / bounds::MIB
            )));
        }
        self.keep_bytes(bytes as u64).await
    }

    /// Counts bytes out that the host does not keep any more.
    pub(crate) fn drop_bytes(&mut self, bytes: u64) {
        self.limiter.account.subtract(bytes);
    }
}

impl ResourceLimiterAsync for Sandbox {
    // What `async_trait` makes of a method, written out: most growths need no future that can wait, and no allocation.
    fn memory_growing<'this, 'growing>(
        &'this mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Growing<'growing>
    where
        'this: 'growing,
        Self: 'growing,
    {
        match self.limiter.memory_grows(current, desired, maximum) {
            None => Box::pin(Known::<false>),
            Some(bytes) if self.limiter.account.fits(bytes) => Box::pin(Known::<true>),
            Some(bytes) => Box::pin(async move {
                let has_room = self.wait_to_grow(bytes).await;
                if !has_room {
                    self.limiter.take_back_memory();
                }
                Ok(has_room)
            }),
        }
    }

    /// Called only after a growth that was granted: the other cause, pages of one byte, is switched off.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.limiter.memory_grow_failed();
        Ok(())
    }

    fn table_growing<'this, 'growing>(
        &'this mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Growing<'growing>
    where
        'this: 'growing,
        Self: 'growing,
    {
        match self.limiter.table_grows(current, desired, maximum) {
            None => Box::pin(Known::<false>),
            Some(bytes) if self.limiter.account.fits(bytes) => Box::pin(Known::<true>),
            Some(bytes) => Box::pin(async move {
                let has_room = self.wait_to_grow(bytes).await;
                if !has_room {
                    self.limiter.take_back_table();
                }
                Ok(has_room)
            }),
        }
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.limiter.table_grow_failed();
        Ok(())
    }

    fn instances(&self) -> usize {
        bounds::INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        bounds::MEMORIES_MAX
    }

    fn tables(&self) -> usize {
        bounds::TABLES_MAX
    }
}
