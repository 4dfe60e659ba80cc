//! What the parts of a host have in common, and what they all do alike: hear the store, tell what became of a request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use wharf_core::ids::TaskName;
use wharf_engine::Engine;
use wharf_store::{Inserted, Store, StoreError};

use crate::catalog::Catalog;
use crate::follow::Followers;
use crate::notice::{Notice, Tell};

/// Handles only: each part has its clone.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) catalog: Arc<ArcSwap<Catalog>>,
    pub(crate) followers: Arc<Followers>,
    /// What the store said when it last failed, if it has not worked since.
    pub(crate) trouble: Arc<ArcSwapOption<String>>,
    pub(crate) tasks: TaskTracker,
    /// The runtime on which all this runs, and not the guests.
    pub(crate) home: Handle,
    /// Places for what guests ask of the store.
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) tell: Tell,
}

impl Shared {
    /// Awaits a call of the store. Listeners hear when it goes from working to failing, and back.
    /// A store that panics is broken: whoever waits for its answer gets one.
    pub(crate) async fn ask<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let answer = AssertUnwindSafe(call).catch_unwind().await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::Broken(format!("it panicked while {doing}"))));
        match &answer {
            Ok(_) if self.trouble.load().is_some() => {
                if self.trouble.swap(None).is_some() {
                    (self.tell)(&Notice::StoreMended);
                }
            }
            Ok(_) => {}
            Err(error) => {
                let why = error.to_string();
                if self.trouble.swap(Some(Arc::new(why.clone()))).is_none_or(|before| *before != why) {
                    (self.tell)(&Notice::StoreTrouble { doing, why });
                }
            }
        }
        answer
    }

    /// Tells what became of a job that was to be added, and wakes who follows the jobs that it touched.
    pub(crate) fn tell_inserted(&self, task: TaskName, inserted: &Inserted) {
        match inserted {
            Inserted::Added { replaced, cancel_asked, .. } => {
                for job in replaced.iter().chain(cancel_asked) {
                    self.followers.wake(*job);
                }
                for job in cancel_asked {
                    (self.tell)(&Notice::CancelAsked { job: *job });
                }
                for job in replaced {
                    (self.tell)(&Notice::JobReplaced { job: *job });
                }
                (self.tell)(&Notice::JobsEnqueued { task, count: 1 });
            }
            Inserted::Known { .. } => (self.tell)(&Notice::JobsKnown { task, count: 1 }),
            Inserted::Discarded { .. } => (self.tell)(&Notice::JobsDiscarded { task, count: 1 }),
        }
    }
}
