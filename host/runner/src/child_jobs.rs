//! The jobs that one attempt enqueues, until its end takes them along.
//!
//! A guest is given an id for each at once, and each id stands for a job that there is, or will be with the attempt's success.
//! What is known when it asks is answered with what stands: a token that a job has already, also one of these. What is known
//! only at the success stands under the id that was given (`Event::NotEnqueued`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt, ready};
use wharf_core::bounds;
use wharf_core::ids::{JobId, TaskName};
use wharf_core::job::{NewJob, Token};
use wharf_engine::GuestJob;
use wharf_store::Store;

use crate::request::{NotAdded, View, prepare_children};
use crate::shared::Shared;

/// Locked for a few assignments and never across an await, by the one guest while it enqueues, and by its end.
#[derive(Default)]
pub(crate) struct Children(Mutex<Vec<NewJob>>);

type Tokens = HashMap<(TaskName, Token), JobId>;

impl Children {
    /// Takes what a guest enqueues, and answers with the ids of the jobs that stand for it. Where it is an error,
    /// none of these jobs was taken.
    pub(crate) fn add<'a>(
        &'a self,
        view: &View,
        shared: &'a Shared,
        jobs: Vec<GuestJob>,
    ) -> BoxFuture<'a, Result<Vec<String>, NotAdded>> {
        let new = match prepare_children(view, &*shared.store, jobs) {
            Ok(new) => new,
            Err(not) => return ready(Err(not)).boxed(),
        };
        let tokens: Vec<(TaskName, Token)> = new.iter().filter_map(token_of).collect();
        if tokens.is_empty() {
            return ready(self.keep(new, Tokens::new())).boxed();
        }
        async move {
            let of = tokens.clone();
            let known = async move |store: Arc<dyn Store>| store.find_by_tokens(of).await;
            // What cannot be found out now is found out with the success of the attempt.
            let known = shared.ask_for_guest("looking for jobs by their tokens", known).await.unwrap_or_default();
            let known = tokens.into_iter().zip(known).filter_map(|(token, id)| Some((token, id?))).collect();
            self.keep(new, known)
        }
        .boxed()
    }

    /// `known` are tokens that jobs have which stand already.
    fn keep(&self, new: Vec<NewJob>, mut known: Tokens) -> Result<Vec<String>, NotAdded> {
        let never = |why: String| NotAdded { why, passes: false };
        let mut children = self.lock();
        if new.iter().any(|job| job.token.is_some()) {
            known.extend(children.iter().filter_map(|job| Some((token_of(job)?, job.id))));
        }
        let (mut ids, mut added) = (Vec::with_capacity(new.len()), Vec::with_capacity(new.len()));
        for job in new {
            let stands = token_of(&job).map_or(job.id, |token| *known.entry(token).or_insert(job.id));
            ids.push(stands.to_string());
            added.extend((stands == job.id).then_some(job));
        }
        let (count, bytes) = (children.len() + added.len(), payload_bytes(&children) + payload_bytes(&added));
        if count > bounds::BATCH_JOBS_MAX {
            return Err(never(format!(
                "one attempt may enqueue {} jobs; these would be {count}",
                bounds::BATCH_JOBS_MAX
            )));
        }
        if bytes > bounds::BATCH_BYTES_MAX {
            return Err(never(format!(
                "one attempt may enqueue payloads of {} bytes; these would be {bytes}",
                bounds::BATCH_BYTES_MAX
            )));
        }
        children.extend(added);
        Ok(ids)
    }

    /// All of them, at the attempt's end.
    pub(crate) fn take(&self) -> Vec<NewJob> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<NewJob>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn token_of(job: &NewJob) -> Option<(TaskName, Token)> {
    Some((job.task.clone(), job.token.clone()?))
}

fn payload_bytes(jobs: &[NewJob]) -> u64 {
    jobs.iter().map(|job| job.payload.len() as u64).sum()
}
