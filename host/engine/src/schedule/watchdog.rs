//! Checks the timeouts of an attempt on the host's own runtime, where no guest delays the check.

use std::sync::OnceLock;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::call::AttemptLimits;
use crate::schedule::attempt_handle::AttemptHandle;

/// The watchdog of one attempt. Most attempts end within their first poll: its task is spawned only for one that does
/// not.
pub(crate) struct Watchdog<'a> {
    runtime: &'a Handle,
    handle: &'a AttemptHandle,
    limits: &'a AttemptLimits,
    task: OnceLock<AbortHandle>,
}

impl<'a> Watchdog<'a> {
    pub(crate) fn new(runtime: &'a Handle, handle: &'a AttemptHandle, limits: &'a AttemptLimits) -> Watchdog<'a> {
        Watchdog { runtime, handle, limits, task: OnceLock::new() }
    }

    /// Spawns the task that checks the timeouts, unless it runs: the attempt takes more than one poll.
    pub(crate) fn start(&self) {
        self.task.get_or_init(|| {
            self.handle.mark_long_lived();
            let (handle, limits) = (self.handle.clone(), self.limits.clone());
            self.runtime.spawn(async move { handle.enforce_timeouts(&limits).await }).abort_handle()
        });
    }
}

impl Drop for Watchdog<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}
