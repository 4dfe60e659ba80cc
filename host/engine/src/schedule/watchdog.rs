//! Someone on the host's own runtime who looks at the clocks of an attempt that lasts, where no guest delays it.

use std::sync::OnceLock;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::call::AttemptLimits;
use crate::schedule::attempt_handle::AttemptHandle;

/// The clocks of one attempt. Most attempts end within their first turn: only for one that does not somebody is called.
pub(crate) struct Watch<'a> {
    home: &'a Handle,
    control: &'a AttemptHandle,
    limits: &'a AttemptLimits,
    watcher: OnceLock<AbortHandle>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(home: &'a Handle, control: &'a AttemptHandle, limits: &'a AttemptLimits) -> Watch<'a> {
        Watch { home, control, limits, watcher: OnceLock::new() }
    }

    /// The attempt takes more than one turn: from now on its clocks are looked at.
    pub(crate) fn begin(&self) {
        self.watcher.get_or_init(|| {
            self.control.lasts();
            let (control, limits) = (self.control.clone(), self.limits.clone());
            self.home.spawn(async move { control.watch(&limits).await }).abort_handle()
        });
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.abort();
        }
    }
}
