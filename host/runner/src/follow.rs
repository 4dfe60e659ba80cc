//! The life of one job as a stream: its log first, then what comes.
//!
//! Truth is in the store; whoever waits here is only woken. On this node a record wakes exactly those who follow its job;
//! what other nodes record is heard by the store's nudges, which may be many and of other jobs,
//! so that a look they cause which finds nothing makes the next one wait longer.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use wharf_core::bounds;
use wharf_core::ids::JobId;
use wharf_core::job::{Job, NumberedEntry, State, StateName};
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;
use wharf_store::{JobFilter, JobSnapshot, Nudges, Store, StoreError};

/// A look by itself, whatever wakes were lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The least and the most time between two looks that nudges cause.
const NUDGED_LOOKS_MIN: Duration = Duration::from_millis(20);
const NUDGED_LOOKS_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub enum JobUpdate {
    Entry(NumberedEntry),
    /// At the start, and at each change.
    State(Box<JobSnapshot>),
}

/// Who follows which job on this node.
#[derive(Default)]
pub(crate) struct Followers {
    /// Whether it is worth looking.
    count: AtomicUsize,
    /// Locked for one look-up, never across an await.
    jobs: Mutex<HashMap<JobId, (usize, Arc<Notify>)>>,
}

impl Followers {
    /// Something of this job was written.
    pub(crate) fn wake(&self, job: JobId) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some((_, notify)) = self.jobs().get(&job)
        {
            notify.notify_waiters();
        }
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, (usize, Arc<Notify>)>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who follows a job, as long as it lives.
struct Following {
    followers: Arc<Followers>,
    job: JobId,
    notify: Arc<Notify>,
}

impl Following {
    fn new(followers: &Arc<Followers>, job: JobId) -> Following {
        let notify = {
            let mut jobs = followers.jobs();
            let (count, notify) = jobs.entry(job).or_default();
            *count += 1;
            Arc::clone(notify)
        };
        followers.count.fetch_add(1, Ordering::SeqCst);
        Following { followers: Arc::clone(followers), job, notify }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.followers.count.fetch_sub(1, Ordering::SeqCst);
        let mut jobs = self.followers.jobs();
        if let Some((count, _)) = jobs.get_mut(&self.job) {
            *count -= 1;
            if *count == 0 {
                jobs.remove(&self.job);
            }
        }
    }
}

/// What a follower takes for a change. Renewed leases are none.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stand {
    name: StateName,
    attempt: u32,
    cancel_asked: bool,
    due: Option<Timestamp>,
}

impl Stand {
    fn of(job: &Job) -> Stand {
        let standing = &job.standing;
        let due = match standing.state {
            State::Waiting { due } => Some(due),
            _ => None,
        };
        Stand { name: standing.state.name(), attempt: standing.attempt, cancel_asked: standing.cancel_asked, due }
    }
}

enum Look {
    More,
    Nothing,
}

struct Follower {
    store: Arc<dyn Store>,
    limits: Arc<LimitTable>,
    job: JobId,
    following: Following,
    nudges: Nudges,
    after: u64,
    told: Option<Stand>,
    ready: VecDeque<JobUpdate>,
    over: bool,
    nudged_looks: Duration,
}

/// The job's log after entry `after`, its state now and at each change; ends after the final state.
/// Ends at once if there is no such job.
pub(crate) fn follow(
    store: Arc<dyn Store>,
    limits: Arc<LimitTable>,
    followers: &Arc<Followers>,
    job: JobId,
    after: u64,
) -> impl Stream<Item = Result<JobUpdate, StoreError>> + Send + use<> {
    let follower = Follower::new(store, limits, followers, job, after);
    stream::unfold(follower, |mut follower| async move { Some((follower.next().await?, follower)) })
}

/// The job once it is final, or as it is after `max`.
pub(crate) async fn wait(
    store: Arc<dyn Store>,
    limits: Arc<LimitTable>,
    followers: &Arc<Followers>,
    job: JobId,
    max: Duration,
) -> Result<Option<JobSnapshot>, StoreError> {
    let mut follower = Follower::new(store, limits, followers, job, u64::MAX);
    let until = Instant::now() + max;
    let _ = timeout_at(until, follower.until_final()).await;
    follower.store.job(job, follower.limits).await
}

impl Follower {
    fn new(
        store: Arc<dyn Store>,
        limits: Arc<LimitTable>,
        followers: &Arc<Followers>,
        job: JobId,
        after: u64,
    ) -> Follower {
        Follower {
            nudges: store.nudges(),
            store,
            limits,
            job,
            following: Following::new(followers, job),
            after,
            told: None,
            ready: VecDeque::new(),
            over: false,
            nudged_looks: NUDGED_LOOKS_MIN,
        }
    }

    async fn next(&mut self) -> Option<Result<JobUpdate, StoreError>> {
        loop {
            if let Some(followed) = self.ready.pop_front() {
                return Some(Ok(followed));
            }
            if self.over {
                return None;
            }
            // Registered before the look, so that nothing falls between the two.
            let notify = Arc::clone(&self.following.notify);
            let woken = notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            self.nudges.mark_unchanged();
            match self.look().await {
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
                Ok(Look::More) => self.nudged_looks = NUDGED_LOOKS_MIN,
                Ok(Look::Nothing) => self.rest(woken).await,
            }
        }
    }

    async fn until_final(&mut self) -> Result<(), StoreError> {
        loop {
            let notify = Arc::clone(&self.following.notify);
            let woken = notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            self.nudges.mark_unchanged();
            match self.peek().await? {
                Some(stand) if !stand.name.is_final() => self.rest(woken).await,
                _ => return Ok(()),
            }
        }
    }

    /// Until there may be something to see.
    async fn rest(&mut self, woken: impl Future<Output = ()>) {
        let now = Instant::now();
        let nudged = async {
            sleep_until(now + self.nudged_looks).await;
            if self.nudges.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = woken => self.nudged_looks = NUDGED_LOOKS_MIN,
            () = nudged => self.nudged_looks = (self.nudged_looks * 2).min(NUDGED_LOOKS_MAX),
            () = sleep_until(now + LOOK_EVERY) => {}
        }
    }

    /// Reads what is new: the state at the start, then entries up to a page, or else the state if it changed.
    async fn look(&mut self) -> Result<Look, StoreError> {
        // Where the job stands comes first: what an attempt wrote is recorded before its end,
        // so that entries which are read after the end was seen are complete.
        let Some(stand) = self.peek().await? else {
            self.over = true;
            return Ok(Look::More);
        };
        let at_start = self.told.is_none() && !stand.name.is_final();
        if !at_start {
            self.read_entries().await?;
        }
        if !self.ready.is_empty() {
            return Ok(Look::More);
        }
        if self.told == Some(stand) {
            return Ok(Look::Nothing);
        }
        // If it went on in between, it may have written more before that: the next look is for both.
        if let Some(seen) = self.store.job(self.job, Arc::clone(&self.limits)).await?
            && Stand::of(&seen.job) == stand
        {
            self.told = Some(stand);
            self.over = stand.name.is_final();
            self.ready.push_back(JobUpdate::State(Box::new(seen)));
        }
        Ok(Look::More)
    }

    async fn read_entries(&mut self) -> Result<(), StoreError> {
        let entries = self.store.entries(self.job, self.after, bounds::PAGE_MAX).await?;
        if let Some(last) = entries.last() {
            self.after = last.number;
        }
        self.ready.extend(entries.into_iter().map(JobUpdate::Entry));
        Ok(())
    }

    /// Where the job stands, without its payload and result, which may be large.
    async fn peek(&self) -> Result<Option<Stand>, StoreError> {
        let above = JobId::from_number(self.job.number() + 1);
        let page = self.store.jobs(JobFilter { before: above, max: 1, ..JobFilter::default() }).await?;
        Ok(page.jobs.first().filter(|job| job.id == self.job).map(Stand::of))
    }
}
