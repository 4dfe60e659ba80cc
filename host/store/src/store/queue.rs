//! The queue: jobs, their leases and their logs, and the limits under which they run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wharf_core::author::Author;
use wharf_core::ids::{JobId, PluginId};
use wharf_core::job::{Job, NewJob, NumberedEntry, UniqueToken};
use wharf_core::kv::KvChanges;
use wharf_core::lease::Lease;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};
use wharf_core::time::Timestamp;

use super::claim::{Claim, Claimed};
use super::error::StoreError;
use super::expired_jobs::{ExpiredDeleted, ExpiredJobs};
use super::job_view::{JobFilter, JobPage, JobSnapshot, QueueStats};
use super::written::{Inserted, Recorded, Renewed};

/// A receiver of wake-ups that mean "check again". They carry no data, because one may come late, twice or never.
pub type Nudges = tokio::sync::watch::Receiver<u64>;

/// The jobs of a store. All calls judge time by the store's own clock.
///
/// Each call returns a [`StoreError`] if the store fails; its variants say whether something was written.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Returns the time by the store's clock, the only clock that decides whether a lease has expired.
    fn now(&self) -> Timestamp;

    /// Makes an ID that no job of this store has or had.
    ///
    /// # Errors
    /// `Busy` if other hosts make IDs for the store as well, and this one can no longer be sure that it owns its ID
    /// source.
    fn next_id(&self) -> Result<JobId, StoreError>;

    /// Adds jobs in order: all of them or none. `declared` has the limits that apply to `on_conflict`.
    ///
    /// The result for a job whose token is known is the earlier job; no other duplicate is reported. If another job has
    /// the ID of a new one, the new job is added under a fresh ID.
    async fn insert(&self, jobs: Vec<NewJob>, declared: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError>;

    /// Leases up to `claim.free` jobs. `wharf_core::admission::admit` chooses them inside the transaction.
    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError>;

    /// Applies events in order, each by `JobStatus::after`. A refused event changes nothing; the others are applied.
    ///
    /// The end of an attempt is one transaction: its slot, its children, the changes to its plugin's kv values and the
    /// job's next status. The IDs of children were given out before. A child that is not enqueued is stored under its
    /// ID as a cancelled job whose report says why. Whoever calls keeps a share of the events, to send them again after an error.
    async fn record(&self, events: Arc<Vec<(JobId, Event)>>) -> Result<Vec<Result<Recorded, Refusal>>, StoreError>;

    /// Adds jobs as `record` adds children and changes kv values, in one transaction. A subscriber of a live broadcast
    /// leaves these behind; it has no job.
    async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        declared: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
    ) -> Result<Vec<Inserted>, StoreError>;

    /// Extends leases to `length` from now. `length` is at most the length for which they were claimed.
    async fn renew(&self, leases: Vec<Lease>, length: Duration) -> Result<Vec<Renewed>, StoreError>;

    /// Ends at most `max` leases that have expired. Each is a `LeaseExpired` event with the mark of the lease's node.
    /// Returns the jobs whose leases ended.
    async fn reclaim(&self, max: u32) -> Result<Vec<JobId>, StoreError>;

    /// Returns the jobs with these tokens, in the order of `of`.
    async fn find_by_tokens(&self, of: Vec<UniqueToken>) -> Result<Vec<Option<JobId>>, StoreError>;

    /// Returns one job with payload and result, and the reason if it waits.
    async fn job(&self, id: JobId, declared: Arc<LimitTable>) -> Result<Option<JobSnapshot>, StoreError>;

    /// Returns one job without payload and result, which may be large, and without the reason if it waits.
    async fn job_summary(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let filter = JobFilter { before: JobId::from_number(id.number() + 1), max: 1, ..JobFilter::default() };
        Ok(self.jobs(filter).await?.jobs.pop().filter(|job| job.id == id))
    }

    /// Returns a page of jobs, newest first, without payload and result.
    async fn jobs(&self, wanted: JobFilter) -> Result<JobPage, StoreError>;

    /// Returns how many jobs of a durable broadcast were deleted, by age or by an operator; zero if no job of it remains.
    async fn deleted_of_batch(&self, batch: JobId) -> Result<u64, StoreError>;

    /// Returns the entries of a job's log after number `after`, in order. It returns at most `max` with
    /// at most `bounds::PAGE_BYTES_MAX` bytes, but at least one entry if there is any.
    async fn entries(&self, id: JobId, after: u64, max: u32) -> Result<Vec<NumberedEntry>, StoreError>;

    /// Looks through finished jobs, the oldest first, and deletes those that were kept long enough by the store's clock, with their
    /// logs and results. The kv values of their plugins stay. A job stays as long as one that it enqueued, or another one of its
    /// durable broadcast, has not finished.
    async fn delete_expired(&self, expired: ExpiredJobs) -> Result<ExpiredDeleted, StoreError>;

    /// Returns the limit overrides in force.
    async fn overrides(&self) -> Result<Vec<Override>, StoreError>;

    /// Sets an override, or removes it if both of its limits are `None`. A raised limit takes effect with the next
    /// claim. Under a lowered limit, running jobs continue and no new one starts until few enough are running. The act is
    /// added to the audit log, unless an override was to be removed that does not exist.
    async fn set_override(&self, change: Override, by: Author) -> Result<(), StoreError>;

    /// Returns how many jobs of each plugin wait, due or not; plugins without any may be left out. It is cheap, however
    /// many jobs there are.
    async fn waiting_jobs(&self) -> Result<BTreeMap<PluginId, u64>, StoreError>;

    /// Returns counts for operators and metrics.
    async fn stats(&self) -> Result<QueueStats, StoreError>;

    /// Returns a receiver that changes after every write that may let a job start, or that a follower may wait for.
    fn nudges(&self) -> Nudges;
}
