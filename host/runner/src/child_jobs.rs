//! The jobs that one attempt enqueues, until its end takes them along.
//!
//! A guest gets an ID for each job at once, and each ID is that of a job that exists already or will exist with the attempt's
//! success. If a token belongs to a job that is already known, also to another child of this attempt, the guest gets the ID
//! of that job. What turns out only at the success is recorded under the ID that was given out (`Event::NotEnqueued`).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt, ready};
use wharf_core::bounds;
use wharf_core::ids::JobId;
use wharf_core::job::{NewJob, UniqueToken};
use wharf_engine::GuestJob;

use crate::guest_store::GuestStore;
use crate::plugin_view::PluginView;
use crate::request::{ChildrenRejected, prepare_children};
use crate::store_health::WatchedStore;

/// The jobs so far. Locked for a few assignments and never across an await, by the one guest while it enqueues, and by its end.
#[derive(Default)]
pub(crate) struct Children(Mutex<Vec<NewJob>>);

type Tokens = HashMap<UniqueToken, JobId>;

impl Children {
    /// Takes the jobs that a guest enqueues, and returns the IDs under which the guest knows them.
    ///
    /// # Errors
    ///
    /// Returns why the jobs are refused: then none of them was taken.
    pub(crate) fn add<'a>(
        &'a self,
        view: &PluginView,
        store: &'a GuestStore,
        jobs: Vec<GuestJob>,
    ) -> BoxFuture<'a, Result<Vec<String>, ChildrenRejected>> {
        let new = match prepare_children(view, &**store.store(), jobs) {
            Ok(new) => new,
            Err(rejected) => return ready(Err(rejected)).boxed(),
        };
        let tokens: Vec<UniqueToken> = new.iter().filter_map(NewJob::unique_token).collect();
        if tokens.is_empty() {
            return ready(self.keep(new, Tokens::new())).boxed();
        }
        async move {
            let wanted = tokens.clone();
            let query = async move |store: WatchedStore| store.find_by_tokens(wanted).await;
            // If the store fails, the duplicates turn out with the success of the attempt.
            let found = store.call("looking up jobs by their tokens", query).await.unwrap_or_default();
            let known = tokens.into_iter().zip(found).filter_map(|(token, id)| Some((token, id?))).collect();
            self.keep(new, known)
        }
        .boxed()
    }

    /// Keeps the jobs whose token is new. `known` holds the tokens of jobs that exist already.
    fn keep(&self, new: Vec<NewJob>, mut known: Tokens) -> Result<Vec<String>, ChildrenRejected> {
        let rejected = |why: String| ChildrenRejected { why, passes: false };
        let mut children = self.lock();
        if new.iter().any(|job| job.token.is_some()) {
            known.extend(children.iter().filter_map(|job| Some((job.unique_token()?, job.id))));
        }
        let (mut ids, mut added) = (Vec::with_capacity(new.len()), Vec::with_capacity(new.len()));
        for job in new {
            let id = job.unique_token().map_or(job.id, |token| *known.entry(token).or_insert(job.id));
            ids.push(id.to_string());
            added.extend((id == job.id).then_some(job));
        }
        let (count, bytes) = (children.len() + added.len(), payload_bytes(&children) + payload_bytes(&added));
        if count > bounds::BATCH_JOBS_MAX {
            let max = bounds::BATCH_JOBS_MAX;
            return Err(rejected(format!("the attempt would enqueue {count} jobs; the limit is {max}")));
        }
        if bytes > bounds::BATCH_BYTES_MAX {
            let max = bounds::BATCH_BYTES_MAX;
            return Err(rejected(format!("the attempt would enqueue {bytes} bytes of payloads; the limit is {max}")));
        }
        children.extend(added);
        Ok(ids)
    }

    /// Takes out all jobs, at the attempt's end.
    pub(crate) fn take(&self) -> Vec<NewJob> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<NewJob>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn payload_bytes(jobs: &[NewJob]) -> u64 {
    jobs.iter().map(|job| job.payload.len() as u64).sum()
}
