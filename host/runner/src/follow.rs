//! The life of one job as a stream: its log so far, then what follows.
//!
//! The truth is in the store; followers are only woken. On this node a record wakes exactly the followers of its job. What other
//! nodes record arrives as nudges of the store. These may be many, and concern other jobs, so each read that a nudge causes and
//! that finds nothing lengthens the pause before the next one.
//!
//! A follower reads only when its client takes more, and holds one page at most. Where several follow one job, the last page that
//! one of them read serves the others, too.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use wharf_core::bounds;
use wharf_core::budget::MemoryUse;
use wharf_core::ids::JobId;
use wharf_core::job::{Job, NumberedEntry, State, StateName};
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;
use wharf_engine::{Budget, Reservation};
use wharf_store::{JobSnapshot, Nudges, StoreError};

use crate::store_health::WatchedStore;

/// The job is read at least this often, whatever wakes were lost.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The bounds of the pause between two reads that nudges cause.
const NUDGE_PAUSE_MIN: Duration = Duration::from_millis(20);
const NUDGE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// One item of the stream that follows a job.
#[derive(Clone, Debug)]
pub enum JobUpdate {
    /// An entry of the job's log.
    Entry(NumberedEntry),
    /// The job as it is at the start, and after each change of its state.
    State(Box<JobSnapshot>),
}

/// The followers of jobs on this node.
pub(crate) struct Followers {
    /// The budget of memory that has the bytes which followers have read and their clients have not taken.
    budget: Budget,
    /// The number of followers; while it is zero, `jobs` is not locked.
    count: AtomicUsize,
    /// Locked for one look-up, never across an await.
    jobs: Mutex<HashMap<JobId, Arc<FollowedJob>>>,
}

/// State that the followers of one job share.
#[derive(Default)]
struct FollowedJob {
    /// Changed while `Followers::jobs` is locked.
    followers: AtomicUsize,
    notify: Notify,
    /// The last page of entries that was read, if several follow the job.
    page: Mutex<Arc<[NumberedEntry]>>,
}

impl FollowedJob {
    fn page(&self) -> MutexGuard<'_, Arc<[NumberedEntry]>> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the entries after number `after`, if the last page that was read has the next one. Entries never change, and their
    /// numbers have no gaps.
    fn entries_after(&self, after: u64) -> Option<Vec<NumberedEntry>> {
        let page = Arc::clone(&self.page());
        let at = page.iter().position(|entry| entry.number > after)?;
        (page[at].number == after + 1).then(|| page[at..].to_vec())
    }

    fn keep(&self, page: &[NumberedEntry]) {
        if self.followers.load(Ordering::SeqCst) > 1 && !page.is_empty() {
            *self.page() = page.into();
        }
    }
}

impl Followers {
    /// Nobody follows a job yet.
    pub(crate) fn new(budget: Budget) -> Followers {
        Followers { budget, count: AtomicUsize::new(0), jobs: Mutex::default() }
    }

    /// Wakes the followers of a job of which something was recorded.
    pub(crate) fn wake(&self, job: JobId) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(followed) = self.jobs().get(&job)
        {
            followed.notify.notify_waiters();
        }
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Arc<FollowedJob>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registration of one follower, until this is dropped.
struct Registration {
    followers: Arc<Followers>,
    job: JobId,
    followed: Arc<FollowedJob>,
}

impl Registration {
    fn new(followers: &Arc<Followers>, job: JobId) -> Registration {
        let followed = {
            let mut jobs = followers.jobs();
            let followed = jobs.entry(job).or_default();
            followed.followers.fetch_add(1, Ordering::SeqCst);
            Arc::clone(followed)
        };
        followers.count.fetch_add(1, Ordering::SeqCst);
        Registration { followers: Arc::clone(followers), job, followed }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.followers.count.fetch_sub(1, Ordering::SeqCst);
        let mut jobs = self.followers.jobs();
        if self.followed.followers.fetch_sub(1, Ordering::SeqCst) == 1 {
            jobs.remove(&self.job);
        }
    }
}

/// The parts of a job whose change a follower reports. A renewed lease is not among them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FollowedState {
    name: StateName,
    attempt: u32,
    cancel_requested: bool,
    due: Option<Timestamp>,
}

impl FollowedState {
    fn of(job: &Job) -> FollowedState {
        let status = &job.status;
        let due = match status.state {
            State::Waiting { due } => Some(due),
            _ => None,
        };
        FollowedState {
            name: status.state.name(),
            attempt: status.attempt,
            cancel_requested: status.cancel_requested,
            due,
        }
    }
}

/// Result of reading the store.
enum ReadResult {
    More,
    Nothing,
}

/// A follower of one job.
struct Follower {
    store: WatchedStore,
    limits: Arc<LimitTable>,
    job: JobId,
    registration: Registration,
    nudges: Nudges,
    /// The number of the last entry that was read.
    after: u64,
    /// True once entries may be sent: the state at the start comes first.
    began: bool,
    /// The state that was sent last.
    sent: Option<FollowedState>,
    ready: VecDeque<JobUpdate>,
    /// The room of what is in `ready`, if this follower read it from the store.
    memory: Option<Reservation>,
    ended: bool,
    nudge_pause: Duration,
}

/// Streams the job's log after entry `after`, its state now and at each change. Ends after the final state, or with an error; at
/// once if there is no such job.
pub(crate) fn follow(
    store: WatchedStore,
    limits: Arc<LimitTable>,
    followers: &Arc<Followers>,
    job: JobId,
    after: u64,
) -> impl Stream<Item = Result<JobUpdate, StoreError>> + Send + use<> {
    let follower = Follower::new(store, limits, followers, job, after);
    stream::unfold(follower, |mut follower| async move { Some((follower.next().await?, follower)) })
}

/// Waits until the job is final, or until `max` is over, and returns it as it is then.
///
/// # Errors
///
/// Returns the error of the last read.
pub(crate) async fn wait(
    store: WatchedStore,
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
        store: WatchedStore,
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
            registration: Registration::new(followers, job),
            after,
            began: false,
            sent: None,
            ready: VecDeque::new(),
            memory: None,
            ended: false,
            nudge_pause: NUDGE_PAUSE_MIN,
        }
    }

    async fn next(&mut self) -> Option<Result<JobUpdate, StoreError>> {
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Some(Ok(update));
            }
            self.memory = None;
            if self.ended {
                return None;
            }
            // Registered before the read, so that no wake is lost between the two.
            let followed = Arc::clone(&self.registration.followed);
            let woken = followed.notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            self.nudges.mark_unchanged();
            match self.read().await {
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Ok(ReadResult::More) => self.nudge_pause = NUDGE_PAUSE_MIN,
                Ok(ReadResult::Nothing) => self.wait_for_change(woken).await,
            }
        }
    }

    async fn until_final(&mut self) -> Result<(), StoreError> {
        loop {
            let followed = Arc::clone(&self.registration.followed);
            let woken = followed.notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            self.nudges.mark_unchanged();
            match self.read_state().await? {
                Some(state) if !state.name.is_final() => self.wait_for_change(woken).await,
                _ => return Ok(()),
            }
        }
    }

    /// Waits until there may be something new.
    async fn wait_for_change(&mut self, woken: impl Future<Output = ()>) {
        let now = Instant::now();
        let nudged = async {
            sleep_until(now + self.nudge_pause).await;
            if self.nudges.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = woken => self.nudge_pause = NUDGE_PAUSE_MIN,
            () = nudged => self.nudge_pause = (self.nudge_pause * 2).min(NUDGE_PAUSE_MAX),
            () = sleep_until(now + POLL_INTERVAL) => {}
        }
    }

    /// Reads what is new: the state at the start, then up to a page of entries, or else the state if it changed.
    async fn read(&mut self) -> Result<ReadResult, StoreError> {
        if self.began
            && let Some(entries) = self.registration.followed.entries_after(self.after)
        {
            self.push(entries);
            return Ok(ReadResult::More);
        }
        // The state is read first: what an attempt wrote is recorded before its end, so entries that are read after the end was
        // seen are complete.
        let Some(state) = self.read_state().await? else {
            self.ended = true;
            return Ok(ReadResult::More);
        };
        self.began = self.sent.is_some() || state.name.is_final();
        let at_start = self.sent.is_none() && !state.name.is_final();
        if !at_start {
            self.read_entries().await?;
        }
        if !self.ready.is_empty() {
            return Ok(ReadResult::More);
        }
        if self.sent == Some(state) {
            return Ok(ReadResult::Nothing);
        }
        // If the state has changed in between, more entries may have been written before that: the next read is for both.
        if let Some(seen) = self.store.job(self.job, Arc::clone(&self.limits)).await?
            && FollowedState::of(&seen.job) == state
        {
            self.sent = Some(state);
            self.ended = state.name.is_final();
            self.ready.push_back(JobUpdate::State(Box::new(seen)));
        }
        Ok(ReadResult::More)
    }

    async fn read_entries(&mut self) -> Result<(), StoreError> {
        let budget = &self.registration.followers.budget;
        let mut room = bounds::PAGE_BYTES_MAX;
        let (entries, bytes, mut memory) = loop {
            let memory = budget.reserve_patiently(MemoryUse::Readers, room).await;
            // Another follower may have read it meanwhile, with room of its own.
            if let Some(entries) = self.registration.followed.entries_after(self.after) {
                self.push(entries);
                return Ok(());
            }
            let entries = self.store.entries(self.job, self.after, bounds::PAGE_MAX).await?;
            let bytes: u64 = entries.iter().map(|numbered| numbered.entry.bytes() as u64).sum();
            // A page has at least one entry, which may be larger: it is read again when there is room for it.
            if bytes <= memory.bytes() || room > bounds::PAGE_BYTES_MAX {
                break (entries, bytes, memory);
            }
            room = bytes;
        };
        memory.shrink_to(bytes);
        self.memory = (bytes > 0).then_some(memory);
        self.registration.followed.keep(&entries);
        self.push(entries);
        Ok(())
    }

    fn push(&mut self, entries: Vec<NumberedEntry>) {
        if let Some(last) = entries.last() {
            self.after = last.number;
        }
        self.ready.extend(entries.into_iter().map(JobUpdate::Entry));
    }

    /// Reads the job's state without its payload and result, which may be large.
    async fn read_state(&self) -> Result<Option<FollowedState>, StoreError> {
        Ok(self.store.job_summary(self.job).await?.as_ref().map(FollowedState::of))
    }
}

#[cfg(test)]
mod tests {
    use wharf_core::job::Entry;

    use super::*;

    fn page(numbers: std::ops::RangeInclusive<u64>) -> Vec<NumberedEntry> {
        let entry = |number| NumberedEntry {
            number,
            attempt: 1,
            at: Timestamp::ZERO,
            entry: Entry::Chunk(vec![0; 100].into()),
        };
        numbers.map(entry).collect()
    }

    fn numbers(entries: Option<Vec<NumberedEntry>>) -> Option<Vec<u64>> {
        entries.map(|entries| entries.into_iter().map(|entry| entry.number).collect())
    }

    #[tokio::test]
    async fn a_page_that_one_follower_read_serves_those_that_come_to_it() {
        let followers = Arc::new(Followers::new(Budget::new(1 << 30)));
        let job = JobId::from_number(7).unwrap();
        let first = Registration::new(&followers, job);
        first.followed.keep(&page(1..=4));
        assert_eq!(numbers(first.followed.entries_after(0)), None, "nobody else would read it");
        let second = Registration::new(&followers, job);
        first.followed.keep(&page(3..=6));
        assert_eq!(numbers(second.followed.entries_after(2)), Some(vec![3, 4, 5, 6]));
        assert_eq!(numbers(second.followed.entries_after(4)), Some(vec![5, 6]));
        for elsewhere in [0, 1, 6, 7, u64::MAX] {
            assert_eq!(numbers(second.followed.entries_after(elsewhere)), None, "after {elsewhere}");
        }
        first.followed.keep(&[]);
        assert!(second.followed.entries_after(2).is_some(), "the end of the log does not hide it");
        drop((first, second));
        assert!(followers.jobs().is_empty() && followers.count.load(Ordering::SeqCst) == 0);
    }
}
