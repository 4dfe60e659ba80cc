//! The jobs that one attempt enqueues, until its end takes them along.
//!
//! A guest gets an ID for each job at once, and each ID is that of a job that exists already or will exist with the attempt's
//! success. If a token belongs to a job that is already known, also to another child of this attempt, the guest gets the ID
//! of that job. What turns out only at the success is recorded under the ID that was given out (`Event::NotEnqueued`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use wharf_core::bounds;
use wharf_core::ids::{JobId, PluginId};
use wharf_core::job::{Due, Lineage, NewJob, UniqueToken};
use wharf_engine::GuestJob;

use crate::guest_store::GuestStore;
use crate::parse_room;
use crate::plugin_view::PluginView;
use crate::queue_bounds::{QueueBounds, Reservation, places, places_of_unknown};
use crate::request::{ChildrenRejected, prepare_children, takes_long};
use crate::store_health::WatchedStore;

/// The jobs of one guest.
pub(crate) struct Children {
    /// The job that enqueues them, as the parent, with its generation.
    by: Lineage,
    /// Locked for a few assignments and never across an await, by the one guest while it enqueues, and by its end.
    taken: Mutex<Taken>,
}

/// The jobs so far, and their places among those that wait.
#[derive(Default)]
struct Taken {
    jobs: Vec<NewJob>,
    /// The bytes of their payloads.
    bytes: u64,
    /// The jobs that have a token.
    tokens: Tokens,
    places: Vec<Reservation>,
}

type Tokens = HashMap<UniqueToken, JobId>;

impl Children {
    /// No jobs yet, of a guest that runs for the parent of `by`, or of one that no job has called.
    pub(crate) fn new(by: Lineage) -> Children {
        Children { by, taken: Mutex::default() }
    }

    /// Takes the jobs that a guest enqueues, and returns the IDs under which the guest knows them.
    ///
    /// # Errors
    ///
    /// Returns why the jobs are refused: then none of them was taken.
    pub(crate) fn add<'a>(
        &'a self,
        view: &PluginView,
        store: &'a GuestStore,
        bounds: &'a Arc<QueueBounds>,
        jobs: Vec<GuestJob>,
    ) -> BoxFuture<'a, Result<Vec<String>, ChildrenRejected>> {
        if takes_long(view, payloads(&jobs)) {
            let view = view.clone();
            return async move {
                let new = prepare_apart(view, store, jobs).await?;
                self.take_in(store, bounds, new).await
            }
            .boxed();
        }
        match prepare_children(view, &**store.store(), jobs) {
            Ok(new) => self.take_in(store, bounds, new),
            Err(rejected) => ready(Err(rejected)).boxed(),
        }
    }

    /// Keeps the jobs whose token is new, by what the store knows, if their plugins' queues have room.
    fn take_in<'a>(
        &'a self,
        store: &'a GuestStore,
        bounds: &'a Arc<QueueBounds>,
        new: Vec<NewJob>,
    ) -> BoxFuture<'a, Result<Vec<String>, ChildrenRejected>> {
        let tokens: Vec<UniqueToken> = new.iter().filter_map(NewJob::unique_token).collect();
        match bounds.try_reserve(places(&new)) {
            Ok(reserved) if tokens.is_empty() => ready(self.keep(bounds, new, reserved, Tokens::new())).boxed(),
            reserved => self.ask_and_keep(store, bounds, (new, tokens), reserved).boxed(),
        }
    }

    /// Like `keep`, but asks the store: which of the `tokens` it knows, and for the places that are missing.
    async fn ask_and_keep(
        &self,
        store: &GuestStore,
        bounds: &Arc<QueueBounds>,
        (new, tokens): (Vec<NewJob>, Vec<UniqueToken>),
        reserved: Result<Reservation, Vec<(PluginId, u64)>>,
    ) -> Result<Vec<String>, ChildrenRejected> {
        let known: Tokens = if tokens.is_empty() {
            Tokens::new()
        } else {
            let wanted = tokens.clone();
            let query = async move |store: WatchedStore| store.find_by_tokens(wanted).await;
            // If the store fails, the duplicates turn out with the success of the attempt.
            let found = store.call("looking up jobs by their tokens", query).await.unwrap_or_default();
            tokens.iter().cloned().zip(found).filter_map(|(token, id)| Some((token, id?))).collect()
        };
        let reserved = match reserved {
            Ok(reserved) => reserved,
            Err(_) => {
                // What exists already needs no place, however many jobs wait.
                let places = places_of_unknown(&new, self.known_of(tokens, &known));
                bounds.reserve(places).await.map_err(|full| rejected(full.to_string()))?
            }
        };
        self.keep(bounds, new, reserved, known)
    }

    /// Returns those of the `tokens` that a job has, of the store or of this guest.
    fn known_of(&self, tokens: Vec<UniqueToken>, known: &Tokens) -> HashSet<UniqueToken> {
        let own = &self.lock().tokens;
        tokens.into_iter().filter(|token| known.contains_key(token) || own.contains_key(token)).collect()
    }

    /// Keeps the jobs whose token is new. `known` holds the tokens of jobs that the store has already.
    fn keep(
        &self,
        bounds: &QueueBounds,
        new: Vec<NewJob>,
        mut reserved: Reservation,
        mut known: Tokens,
    ) -> Result<Vec<String>, ChildrenRejected> {
        let mut taken = self.lock();
        let wanted = new.len();
        let (mut ids, mut added) = (Vec::with_capacity(wanted), Vec::with_capacity(wanted));
        for job in new {
            let id = match job.unique_token() {
                None => job.id,
                Some(token) => match taken.tokens.get(&token) {
                    Some(own) => *own,
                    None => *known.entry(token).or_insert(job.id),
                },
            };
            ids.push(id.to_string());
            added.extend((id == job.id).then_some(job));
        }
        if added.len() < wanted {
            // The others exist already.
            reserved.reduce_to(places(&added));
        }
        let added_bytes: u64 = added.iter().map(|job| job.payload.len() as u64).sum();
        let (count, bytes) = (taken.jobs.len() + added.len(), taken.bytes + added_bytes);
        if count > bounds::BATCH_JOBS_MAX {
            let max = bounds::BATCH_JOBS_MAX;
            return Err(rejected(format!("the attempt would enqueue {count} jobs; the limit is {max}")));
        }
        if bytes > bounds::BATCH_BYTES_MAX {
            let max = bounds::BATCH_BYTES_MAX;
            return Err(rejected(format!("the attempt would enqueue {bytes} bytes of payloads; the limit is {max}")));
        }
        let before = self.lineage(&taken.jobs).generation;
        let delay = taken.jobs.first().or(added.first()).and_then(delay);
        let generation = Lineage::of_children(self.by, count, delay).generation;
        // The earlier jobs are of this generation, too, and it may be a later one than when they were taken.
        let earlier = taken.places.iter().filter(|_| generation > before).flat_map(Reservation::plugins);
        for plugin in reserved.plugins().chain(earlier) {
            let max = bounds.generations_max(plugin);
            if generation > max {
                return Err(rejected(format!(
                    "the jobs would be generation {generation} of jobs that enqueue one another; the limit is {max}: enqueue a single job with a \
                     delay of {:?} or more, which does not count, or raise `jobs.generations-max`, or `generations-max` of \
                     [plugins.{plugin}] in wharf.toml",
                    bounds::GENERATION_PAUSE
                )));
            }
        }
        if !added.is_empty() {
            taken.tokens.extend(added.iter().filter_map(|job| Some((job.unique_token()?, job.id))));
            taken.jobs.append(&mut added);
            taken.bytes = bytes;
            taken.places.push(reserved);
        }
        Ok(ids)
    }

    /// Takes out all jobs, at the attempt's end. Their places are kept until this is dropped.
    pub(crate) fn take(&self) -> Vec<NewJob> {
        let mut jobs = std::mem::take(&mut self.lock().jobs);
        let lineage = self.lineage(&jobs);
        jobs.iter_mut().for_each(|job| job.lineage = lineage);
        jobs
    }

    fn lineage(&self, jobs: &[NewJob]) -> Lineage {
        Lineage::of_children(self.by, jobs.len(), jobs.first().and_then(delay))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns the jobs that a guest enqueues into new jobs off the threads that run guests, with room for what is parsed.
async fn prepare_apart(
    view: PluginView,
    store: &GuestStore,
    mut jobs: Vec<GuestJob>,
) -> Result<Vec<NewJob>, ChildrenRejected> {
    let mut room = None;
    if parse_room::takes_room(&view, payloads(&jobs)) {
        let counted = view.clone();
        let count = move || (parse_room::room_needed(&counted, payloads(&jobs)), jobs);
        let (bytes, counted) = store.run_apart(count).await.map_err(rejected)?;
        jobs = counted;
        room = Some(parse_room::for_guest(store.budget(), bytes).await.map_err(|none| rejected(none.to_string()))?);
    }
    let queue = store.store().clone();
    let work = move || {
        let _until_parsed = room;
        prepare_children(&view, &*queue, jobs)
    };
    store.run_apart(work).await.map_err(rejected)?
}

fn payloads(jobs: &[GuestJob]) -> impl Iterator<Item = (&str, &[u8])> {
    jobs.iter().map(|job| (&*job.task, &*job.payload))
}

fn rejected(why: String) -> ChildrenRejected {
    ChildrenRejected { why, passes: false }
}

fn delay(job: &NewJob) -> Option<Duration> {
    match job.due {
        Some(Due::In(delay)) => Some(delay),
        Some(Due::At(_)) | None => None,
    }
}

#[cfg(test)]
mod tests;
