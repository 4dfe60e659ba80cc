//! The activity of this node, as the loop adds to it and others read it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wharf_core::activity::{Activity, ActivityLog};
use wharf_core::ids::TaskName;
use wharf_core::key::Key;
use wharf_core::outcome::{OutcomeKind, Usage};

/// The activity of this node. Clones share it.
#[derive(Clone)]
pub(crate) struct SharedActivity {
    /// Counts begin here. The machine's own clock cannot be set back.
    started: Instant,
    /// Locked to add one attempt or to sum up, never across an await.
    log: Arc<Mutex<ActivityLog>>,
}

impl SharedActivity {
    /// Returns the activity of a node that starts now.
    pub(crate) fn new() -> SharedActivity {
        SharedActivity { started: Instant::now(), log: Arc::default() }
    }

    /// Adds an attempt that begins at `now`.
    pub(crate) fn add_start(&self, task: &TaskName, now: Instant) {
        self.log().add_start(task, now.saturating_duration_since(self.started));
    }

    /// Adds an attempt that ended at `now`.
    pub(crate) fn add(&self, task: &TaskName, key: Option<&Key>, kind: OutcomeKind, usage: &Usage, now: Instant) {
        self.log().add(task, key, kind, usage, now.saturating_duration_since(self.started));
    }

    /// Returns the activity until now.
    pub(crate) fn now(&self) -> Activity {
        self.log().activity(self.started.elapsed())
    }

    fn log(&self) -> MutexGuard<'_, ActivityLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
