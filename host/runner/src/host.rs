//! Host: a handle of a few verbs. All that people can ask of a running host is a method here.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use wharf_core::ids::{Group, JobId, NodeId, PluginId};
use wharf_core::job::{NewJob, StateName};
use wharf_core::key::Key;
use wharf_core::kv::KvUsage;
use wharf_core::lifecycle::Event;
use wharf_core::limits::Override;
use wharf_core::node::Node;
use wharf_core::planner::Input;
use wharf_store::{JobFilter, JobPage, JobSnapshot, QueueStats, StoreError};

use crate::answer::{ChangeError, Durable, EnqueueError, Enqueued, HealthSnapshot};
use crate::broadcast::{self, Batch, Broadcast, BroadcastError, CallChain, Replies};
use crate::catalog::Catalog;
use crate::follow::{self, JobUpdate};
use crate::limits::{self, GroupLimits, LimitError};
use crate::notice::Notice;
use crate::request::{Absent, EnqueueRejection, PROBLEMS_MAX, Prepared, Request, View, draw_ids, prepare};
use crate::start::{Parts, Running, Settings, StartError, start};
use crate::wait_reason::{JobView, why_waiting};

/// Checking more than this takes long enough to be in the way of others.
const CHECKED_IN_PLACE_BYTES: usize = 128 << 10;
/// For tasks that were told to end.
const TASKS_PATIENCE: Duration = Duration::from_secs(1);
/// After a stop at once: as long as it may take to write down what was given back.
const STOP_NOW_PATIENCE: Duration = Duration::from_secs(2);

/// A running host. Clones are handles of the same one; when the last is dropped, it ends as if its power was cut.
#[derive(Clone)]
pub struct Host(Arc<Running>);

impl Host {
    /// Starts a host. Plugins are loaded in the background: `ready` says when the folder was gone through once.
    ///
    /// # Errors
    /// When the settings contradict each other, the plugin folder cannot be read, or the store is broken.
    pub async fn start(
        parts: Parts,
        settings: Settings,
        tell: impl Fn(&Notice) + Send + Sync + 'static,
    ) -> Result<Host, StartError> {
        start(parts, settings, Arc::new(tell)).await.map(|running| Host(Arc::new(running)))
    }

    /// Waits until every file that was in the plugin folder at the start was loaded or refused.
    pub async fn ready(&self) {
        // Closed only when the host has stopped, which will never be ready.
        let _ = self.0.first_scan.clone().wait_for(|done| *done).await;
    }

    /// Adds jobs, all or none. When this returns they are durable.
    ///
    /// # Errors
    /// Every problem of every request; then nothing was added.
    pub async fn enqueue(&self, requests: Vec<Request>) -> Result<Vec<Enqueued>, EnqueueError> {
        let view = self.0.shared.view();
        let prepared = self.prepare(view.clone(), requests).await?;
        let limits = view.limits(&prepared.groups_elsewhere);
        let known = self.known(prepared.absent).await?;
        let (places, jobs): (Vec<usize>, Vec<NewJob>) = prepared.jobs.into_iter().unzip();
        // Not even asked where there is nothing to add: a job that is known is answered also by a store that cannot write.
        let inserted = if jobs.is_empty() { Vec::new() } else { self.0.inserting.insert(jobs, limits).await? };
        let mut answers: Vec<_> = places.into_iter().zip(inserted.into_iter().map(Enqueued::from)).collect();
        if !known.is_empty() {
            answers.extend(known);
            answers.sort_unstable_by_key(|(place, _)| *place);
        }
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// The jobs that stand for requests whose task is not known here: a token is answered wherever its plugin is.
    async fn known(&self, absent: Vec<Absent>) -> Result<Vec<(usize, Enqueued)>, EnqueueError> {
        let (mut known, mut problems) = (Vec::new(), Vec::new());
        for Absent { index, problem, known_by } in absent {
            let found = match known_by {
                // Who is told of one more is told enough.
                Some((task, token)) if problems.len() < PROBLEMS_MAX => {
                    let wanted = JobFilter { task: Some(task), token: Some(token), max: 1, ..JobFilter::default() };
                    self.jobs(wanted).await?.jobs.pop()
                }
                _ => None,
            };
            match found {
                Some(job) => {
                    (self.0.shared.tell)(&Notice::JobsKnown { task: job.task, count: 1 });
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

    /// Makes jobs of requests, away from everybody else where that takes long.
    async fn prepare(&self, view: View, requests: Vec<Request>) -> Result<Prepared, EnqueueError> {
        let store = Arc::clone(&self.0.shared.store);
        let bytes: usize = requests.iter().map(|request| request.payload.len()).sum();
        let work = move || {
            let ids = draw_ids(&*store, requests.len())?;
            prepare(&view, requests, ids).map_err(EnqueueError::EnqueueRejection)
        };
        if bytes <= CHECKED_IN_PLACE_BYTES {
            return work();
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(jobs) => jobs,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Calls every subscriber of a topic now, in parallel.
    ///
    /// # Errors
    /// When what is asked is wrong, as many broadcasts are open as may be, or the host is stopping.
    pub fn broadcast(&self, asked: Broadcast) -> Result<Replies, BroadcastError> {
        if self.0.load.borrow().draining {
            return Err(BroadcastError::Draining);
        }
        self.0.broadcasts.begin(asked, &CallChain::default())
    }

    /// Adds a job for each subscriber of a topic, all or none. When this returns they are durable.
    ///
    /// # Errors
    /// When the topic is none, all payloads together are too large, or a subscriber would be missed.
    pub async fn broadcast_durably(&self, topic: &str, payload: Arc<[u8]>) -> Result<Durable, BroadcastError> {
        let view = self.0.shared.view();
        let prepared = broadcast::prepare(&view, topic, payload, &*self.0.shared.store)?;
        let (batch, jobs, limits) = (prepared.batch, prepared.jobs, view.limits(&prepared.groups_elsewhere));
        let plugins: Vec<PluginId> = jobs.iter().map(|job| job.task.plugin()).collect();
        let inserted = self.0.inserting.insert(jobs, limits).await?;
        let jobs = plugins.into_iter().zip(inserted.into_iter().map(Enqueued::from)).collect();
        Ok(Durable { id: batch.id, topic: batch.topic, jobs })
    }

    /// A durable broadcast as far as it is; `None` if no job of it is kept.
    ///
    /// # Errors
    /// The store's.
    pub async fn batch(&self, id: JobId) -> Result<Option<Batch>, StoreError> {
        Batch::read(&*self.0.shared.store, id, &self.catalog()).await
    }

    /// How much a plugin keeps in the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn kept(&self, plugin: &PluginId) -> Result<KvUsage, StoreError> {
        let (usage, _) = self.0.shared.store.usage(plugin.clone(), Vec::new()).await?;
        Ok(usage)
    }

    /// One job whole, and why it waits if it does.
    ///
    /// # Errors
    /// The store's.
    pub async fn job(&self, id: JobId) -> Result<Option<JobView>, StoreError> {
        let view = self.0.shared.view();
        let seen = self.0.shared.store.job(id, Arc::clone(view.catalog.limits())).await?;
        let draining = self.0.load.borrow().draining;
        Ok(seen.map(|seen| JobView {
            waiting: seen.why.clone().map(|why| why_waiting(&seen, why, &view, draining)),
            seen,
        }))
    }

    /// Jobs, newest first, without payload and result.
    ///
    /// # Errors
    /// The store's.
    pub async fn jobs(&self, wanted: JobFilter) -> Result<JobPage, StoreError> {
        self.0.shared.store.jobs(wanted).await
    }

    /// Asks a job to end: one that waits at once, one that runs by its own means or after the grace period.
    ///
    /// # Errors
    /// When there is no such job, or it is over.
    pub async fn cancel(&self, id: JobId) -> Result<StateName, ChangeError> {
        let state = self.ask(id, Event::CancelAsked).await?;
        (self.0.shared.tell)(&Notice::CancelAsked { job: id });
        if state.is_final() {
            self.tell_ended(id, state).await;
        } else {
            self.say(Input::CancelAsked(id));
        }
        Ok(state)
    }

    /// Has a job that failed or was cancelled tried again.
    ///
    /// # Errors
    /// When there is no such job, or it is not over, or it succeeded.
    pub async fn retry(&self, id: JobId) -> Result<StateName, ChangeError> {
        let state = self.ask(id, Event::RetryAsked).await?;
        (self.0.shared.tell)(&Notice::RetryAsked { job: id });
        Ok(state)
    }

    async fn ask(&self, id: JobId, event: Event) -> Result<StateName, ChangeError> {
        let shared = &self.0.shared;
        let recording = shared.store.record(vec![(id, event)]);
        let mut recorded = shared.ask_for_people("recording what was asked", recording).await?;
        shared.followers.wake(id);
        match recorded.pop() {
            Some(Ok(recorded)) => Ok(recorded.state),
            Some(Err(refusal)) => Err(ChangeError::Refused(refusal)),
            None => Err(ChangeError::Store(StoreError::Broken("it gave no answer to one event".to_owned()))),
        }
    }

    async fn tell_ended(&self, job: JobId, state: StateName) {
        let wanted = JobFilter { before: JobId::from_number(job.number() + 1), max: 1, ..JobFilter::default() };
        // Only listeners lose by it if the store fails here.
        let Ok(page) = self.jobs(wanted).await else { return };
        if let Some(task) = page.jobs.into_iter().find(|found| found.id == job).map(|job| job.task) {
            (self.0.shared.tell)(&Notice::JobEnded { task, job, state });
        }
    }

    /// The job's log after entry number `after`, its state at the start and at each change; ends after the final state.
    pub fn follow(&self, id: JobId, after: u64) -> impl Stream<Item = Result<JobUpdate, StoreError>> + Send + use<> {
        let shared = &self.0.shared;
        let limits = Arc::clone(self.catalog().limits());
        follow::follow(Arc::clone(&shared.store), limits, &shared.followers, id, after)
    }

    /// The job as soon as it is over, or as it is after `max`.
    ///
    /// # Errors
    /// The store's.
    pub async fn wait(&self, id: JobId, max: Duration) -> Result<Option<JobSnapshot>, StoreError> {
        let shared = &self.0.shared;
        let limits = Arc::clone(self.catalog().limits());
        follow::wait(Arc::clone(&shared.store), limits, &shared.followers, id, max).await
    }

    /// The plugins of this moment.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.shared.catalog.load_full()
    }

    /// The limits of every group, with what holds slots now.
    ///
    /// # Errors
    /// The store's.
    pub async fn limits(&self) -> Result<Vec<GroupLimits>, StoreError> {
        limits::limits(&self.0.shared.store, &self.catalog()).await
    }

    /// Puts an override in force, on all nodes. Raising acts at once; lowering never kills, it drains.
    ///
    /// # Errors
    /// When no plugin of any node has the group, or the override says nothing that can be set.
    pub async fn set_limit(&self, change: Override) -> Result<(), LimitError> {
        let notice =
            Notice::LimitSet { group: change.group.to_string(), key: change.key.as_ref().map(ToString::to_string) };
        limits::set(&self.0.shared, change).await?;
        (self.0.shared.tell)(&notice);
        Ok(())
    }

    /// Ends an override; false if there was none.
    ///
    /// # Errors
    /// When nobody knows the group.
    pub async fn clear_limit(&self, group: Group, key: Option<Key>) -> Result<bool, LimitError> {
        let notice = Notice::LimitSet { group: group.to_string(), key: key.as_ref().map(ToString::to_string) };
        let cleared = limits::clear(&self.0.shared, group, key).await?;
        if cleared {
            (self.0.shared.tell)(&notice);
        }
        Ok(cleared)
    }

    /// The nodes that share the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        self.0.shared.store.nodes().await
    }

    /// Which of the nodes this is.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Counts for people and metrics.
    ///
    /// # Errors
    /// The store's.
    pub async fn stats(&self) -> Result<QueueStats, StoreError> {
        self.0.shared.store.stats().await
    }

    pub fn vitals(&self) -> HealthSnapshot {
        let load = *self.0.load.borrow();
        HealthSnapshot {
            running: load.running,
            capacity: self.0.capacity,
            draining: load.draining,
            broadcasts: self.0.broadcasts.open(),
            first_scan_done: *self.0.first_scan.borrow(),
            alive: !load.stopped && self.0.load.has_changed().is_ok(),
            store: self.0.shared.store_trouble().map_or(Ok(()), Err),
        }
    }

    /// Claims no more; lets what runs finish for `patience`, then stops it and gives it back.
    /// Returns when all is written down.
    pub async fn drain(&self, patience: Duration) {
        let running = self.0.load.borrow().running;
        (self.0.shared.tell)(&Notice::DrainBegan { patience, running });
        self.say(Input::Drain { until: self.0.shared.store.now() + patience });
        // What jobs broadcast is over when they are; what people do gets the patience.
        let broadcasts = tokio::time::timeout(patience, self.0.broadcasts.ended());
        let mut load = self.0.load.clone();
        let loop_ended = async {
            // Closed when the loop has ended some other way.
            let _ = load.wait_for(|load| load.stopped).await;
        };
        let _ = tokio::join!(loop_ended, broadcasts);
        self.end().await;
        (self.0.shared.tell)(&Notice::DrainEnded);
    }

    /// Stops everything that runs and gives it back, without patience.
    pub async fn stop_now(&self) {
        let _ = tokio::time::timeout(STOP_NOW_PATIENCE, self.drain(Duration::ZERO)).await;
        self.end().await;
    }

    /// Ends what else runs, so that nothing holds the store any more but handles of the host.
    async fn end(&self) {
        self.0.stopping.cancel();
        // The others would see by themselves that it is silent.
        let _ = tokio::time::timeout(TASKS_PATIENCE, self.0.shared.store.deregister(self.0.node)).await;
        self.0.shared.tasks.close();
        let _ = tokio::time::timeout(TASKS_PATIENCE, self.0.shared.tasks.wait()).await;
    }

    fn say(&self, input: Input) {
        self.0.inserting.say(input);
    }
}
