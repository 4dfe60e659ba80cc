//! What the parts of a host have in common, and what they all do alike: hear the store, tell what became of a request.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use wharf_core::ids::TaskName;
use wharf_engine::Engine;
use wharf_store::{Inserted, Store, StoreError};

use crate::catalog::Catalog;
use crate::follow::Followers;
use crate::notice::{Listener, Notice};
use crate::other_nodes::Others;
use crate::request::View;

/// Whoever waits this long for the store's answer says so.
const OVERDUE: Duration = Duration::from_secs(10);

/// What failed and was not tried again for this long is taken for mended, if anything else works.
const QUIET: Duration = Duration::from_secs(5);

/// A call of the store that failed.
pub(crate) struct StoreFailure {
    doing: &'static str,
    why: String,
    at: Instant,
}

/// Handles only: each part has its clone.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) catalog: Arc<ArcSwap<Catalog>>,
    pub(crate) others: Arc<ArcSwap<Others>>,
    pub(crate) followers: Arc<Followers>,
    /// What the store said when it last failed, if it has not worked since.
    pub(crate) trouble: Arc<ArcSwapOption<StoreFailure>>,
    /// What the store was asked and has not answered for too long.
    pub(crate) overdue: Arc<Mutex<Vec<&'static str>>>,
    pub(crate) tasks: TaskTracker,
    /// For an answer to what people ask to be written.
    pub(crate) patience: Duration,
    /// The runtime on which all this runs, and not the guests.
    pub(crate) home: Handle,
    /// Places for what guests ask of the store.
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) tell: Listener,
}

impl Shared {
    /// What this node knows of plugins at this moment.
    pub(crate) fn view(&self) -> View {
        View { catalog: self.catalog.load_full(), others: self.others.load_full(), now: self.store.now() }
    }

    /// Awaits a call of the store. Listeners hear when it goes from working to failing, and back; and of one that hangs.
    pub(crate) async fn ask<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let watched = async {
            let mut call = std::pin::pin!(call);
            if let Ok(answer) = tokio::time::timeout(OVERDUE, &mut call).await {
                return answer;
            }
            let _until_it_answers = Overdue::new(self, doing);
            call.await
        };
        self.ask_at_length(doing, watched).await
    }

    /// The same for what may well take a while.
    /// A store that panics is broken: whoever waits for its answer gets one.
    pub(crate) async fn ask_at_length<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let answer = AssertUnwindSafe(call).catch_unwind().await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::Broken(format!("it panicked while {doing}"))));
        match &answer {
            Ok(_) if self.is_mended_by(doing) => {
                if self.trouble.swap(None).is_some() {
                    (self.tell)(&Notice::StoreMended);
                }
            }
            Ok(_) => {}
            Err(error) => self.tell_trouble(doing, error.to_string()),
        }
        answer
    }

    /// What fails or hangs again and again is not mended by other calls that are answered in between.
    fn is_mended_by(&self, doing: &str) -> bool {
        let trouble = self.trouble.load();
        trouble.as_ref().is_some_and(|trouble| trouble.doing == doing || trouble.at.elapsed() >= QUIET)
            && self.hangs_at().is_none()
    }

    fn tell_trouble(&self, doing: &'static str, why: String) {
        let trouble = StoreFailure { doing, why: why.clone(), at: Instant::now() };
        if self.trouble.swap(Some(Arc::new(trouble))).is_none_or(|before| before.why != why) {
            (self.tell)(&Notice::StoreTrouble { doing, why });
        }
    }

    /// What is wrong with the store: what it said when it last failed, if it has not worked since; or what it hangs at.
    pub(crate) fn store_trouble(&self) -> Option<String> {
        let said = self.trouble.load().as_ref().map(|trouble| trouble.why.clone());
        said.or_else(|| self.hangs_at().map(overdue))
    }

    fn hangs_at(&self) -> Option<&'static str> {
        self.overdue.lock().unwrap_or_else(PoisonError::into_inner).first().copied()
    }

    /// The same for what people ask to be written: they are not kept waiting for ever, and are told no more than is known.
    pub(crate) async fn ask_for_people<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let in_time = async {
            let silent = |_| StoreError::Unknown(format!("nothing was heard for {:?}", self.patience));
            tokio::time::timeout(self.patience, call).await.map_err(silent)?
        };
        self.ask(doing, in_time).await
    }

    /// The same for guests, on the host's own runtime, where there are timers; few at once, so that people are answered, too.
    /// The error is what the guest is told.
    pub(crate) async fn ask_for_guest<T, Q, A>(&self, doing: &'static str, question: Q) -> Result<T, String>
    where
        T: Send + 'static,
        Q: FnOnce(Arc<dyn Store>) -> A + Send + 'static,
        A: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let shared = self.clone();
        let asked = async move {
            let _place = shared.reads.acquire().await;
            shared.ask(doing, question(Arc::clone(&shared.store))).await
        };
        // Whoever is stopped waits for no answer.
        match AbortOnDropHandle::new(self.tasks.spawn_on(asked, &self.home)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("the host failed on it, which is a bug of the host".to_owned()),
        }
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
            Inserted::Duplicate { .. } => (self.tell)(&Notice::JobsKnown { task, count: 1 }),
            Inserted::Discarded { .. } => (self.tell)(&Notice::JobsDiscarded { task, count: 1 }),
        }
    }
}

fn overdue(doing: &str) -> String {
    format!("it has not answered for {OVERDUE:?} while {doing}")
}

/// A call that hangs, until it does no more.
struct Overdue<'s> {
    shared: &'s Shared,
    doing: &'static str,
}

impl Overdue<'_> {
    fn new<'s>(shared: &'s Shared, doing: &'static str) -> Overdue<'s> {
        shared.overdue.lock().unwrap_or_else(PoisonError::into_inner).push(doing);
        shared.tell_trouble(doing, overdue(doing));
        Overdue { shared, doing }
    }
}

impl Drop for Overdue<'_> {
    fn drop(&mut self) {
        let mut all = self.shared.overdue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = all.iter().position(|doing| *doing == self.doing) {
            all.swap_remove(place);
        }
    }
}
