//! Requests whose job exists already: their token finds it, also where the task is not known or the queue is full.

use std::sync::Arc;

use tokio::sync::Semaphore;
use wharf_core::ids::PluginId;
use wharf_core::job::{Job, NewJob, UniqueToken};
use wharf_core::shared_bytes::SharedBytes;
use wharf_store::{JobFilter, StoreError};

use crate::answer::{EnqueueError, Enqueued};
use crate::notice::Notice;
use crate::queue_bounds::{QueueFull, Reservation, places, places_of_unknown};
use crate::rejection::{EnqueueRejection, PROBLEMS_MAX};
use crate::request::{Absent, is_same_json, takes_long_to_read};
use crate::start::RunningHost;

/// Jobs of one token that are compared with a request whose key is not known.
const KEYS_OF_A_TOKEN_MAX: u32 = 8;
/// Requests whose payloads are compared with those of jobs at the same time: these are read whole.
static COMPARING: Semaphore = Semaphore::const_new(2);

impl RunningHost {
    /// Returns the existing jobs of requests whose task is not known here: a token finds its job wherever the plugin is.
    pub(crate) async fn find_known(&self, absent: Vec<Absent>) -> Result<Vec<(usize, Enqueued)>, EnqueueError> {
        let (mut known, mut problems) = (Vec::new(), Vec::new());
        for Absent { index, problem, token, key, payload } in absent {
            let found = match token {
                // Beyond this number problems are not reported anyway.
                Some((task, token)) if problems.len() < PROBLEMS_MAX => {
                    let is_exact = key.is_some();
                    let max = if is_exact { 1 } else { KEYS_OF_A_TOKEN_MAX };
                    let filter = JobFilter { task: Some(task), token: Some(token), key, max, ..JobFilter::default() };
                    let found = self.store.jobs(filter).await?.jobs;
                    if is_exact { found.into_iter().next() } else { self.with_payload(found, payload.into()).await? }
                }
                _ => None,
            };
            match found {
                Some(job) => {
                    let notice = Notice::JobsDeduplicated { task: job.task, count: 1 };
                    self.enqueuer.inserts.listener.notify(&notice);
                    known.push((index, Enqueued::Duplicate(job.id)));
                }
                None => problems.push((index, problem)),
            }
        }
        if problems.is_empty() {
            Ok(known)
        } else {
            Err(EnqueueError::EnqueueRejection(EnqueueRejection::of(problems)))
        }
    }

    /// Returns the job that has this payload, and with it the key that the task would find there.
    async fn with_payload(&self, jobs: Vec<Job>, payload: SharedBytes) -> Result<Option<Job>, StoreError> {
        // It is never closed.
        let _comparing = COMPARING.acquire().await;
        for job in jobs {
            let whole = self.store.job(job.id, Arc::clone(self.plugins.catalog().limits())).await?;
            let Some(stored) = whole.map(|whole| whole.job.payload) else { continue };
            let (is_long, wanted) = (takes_long_to_read(stored.len() + payload.len()), payload.clone());
            let compare = move || is_same_json(&stored, &wanted);
            let is_same = if is_long { self.checks.run(compare).await } else { compare() };
            if is_same {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    /// Reserves places in the queue for new jobs. If there are too few, jobs whose token is known need none: they exist, and
    /// are returned however many jobs wait.
    ///
    /// # Errors
    ///
    /// Returns the first plugin of which too many jobs would wait.
    pub(crate) async fn reserve_new(&self, jobs: &[NewJob]) -> Result<Reservation, QueueFull> {
        match self.bounds.try_reserve(places(jobs)) {
            Ok(reserved) => Ok(reserved),
            Err(places) => Box::pin(self.reserve_unknown(places, jobs)).await,
        }
    }

    /// Reserves these places for new jobs, or those for jobs whose token is not known.
    async fn reserve_unknown(&self, places: Vec<(PluginId, u64)>, jobs: &[NewJob]) -> Result<Reservation, QueueFull> {
        let full = match self.bounds.reserve(places).await {
            Ok(reserved) => return Ok(reserved),
            Err(full) => full,
        };
        let tokens: Vec<UniqueToken> = jobs.iter().filter_map(NewJob::unique_token).collect();
        if tokens.is_empty() {
            return Err(full);
        }
        let find = self.store.find_by_tokens(tokens.clone());
        let Ok(found) = self.store.call_with_timeout("looking up jobs by their tokens", find).await else {
            return Err(full);
        };
        let known = tokens.into_iter().zip(found).filter_map(|(token, id)| id.map(|_| token)).collect();
        self.bounds.reserve(places_of_unknown(jobs, known)).await.map_err(|_| full)
    }
}
