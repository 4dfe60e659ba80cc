//! The handle of a running host. Every request of a client is a method here, those of operators in the files below it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::oneshot;
use wharf_core::attempt::Attempt;
use wharf_core::author::Author;
use wharf_core::backlog::Backlog;
use wharf_core::bounds;
use wharf_core::find::{JobCursor, JobOrder, JobQuery};
use wharf_core::ids::{JobId, NodeId, PluginId};
use wharf_core::job::{Job, NewJob, State, StateName};
use wharf_core::kv::KvUsage;
use wharf_core::lifecycle::Event;
use wharf_core::node::Node;
use wharf_core::planner::Input;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::time::Timestamp;
use wharf_engine::{Budget, Reservation};
use wharf_store::{FindPage, FindRequest, JobFilter, JobPage, JobSnapshot, StoreError, StoreSize};

use crate::answer::{ChangeError, Durable, EnqueueError, Enqueued, HealthSnapshot};
use crate::broadcast::{self, Batch, Broadcast, BroadcastError, Broadcaster, CallChain, Replies};
use crate::catalog::Catalog;
use crate::folder::SettingsRequest;
use crate::follow::{self, Followers, JobUpdate};
use crate::live_settings::{LiveSettings, SettingsChanges, SettingsRejection};
use crate::loop_message::LoopMessage;
use crate::notice::{Listener, Notice};
use crate::operations;
use crate::plugin_view::PluginView;
use crate::queue_bounds::places;
use crate::request::Request;
use crate::search_room::room_to_search;
use crate::start::{Parts, RunningHost, Settings, StartError, start};
use crate::summary::{self, Summary};
use crate::wait_reason::{JobView, ThisNode, nodes_for, why_waiting};

mod draining;
mod operating;
mod scheduling;

pub use draining::{DrainError, DrainedNode};

/// Time for which the end of a host waits for each: its deregistration, and the tasks that were stopped.
const TASKS_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for which an immediate stop waits for the attempts that were given back to be recorded.
const STOP_NOW_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle to a running host. Clones are handles to the same host; when the last one is dropped, it ends as if its power was
/// cut.
#[derive(Clone)]
pub struct Host(Arc<RunningHost>);

impl Host {
    /// Starts a host; `on_notice` is called for everything that happens in it, and must not block. Plugins are loaded in the
    /// background: [`Host::ready`] waits until the plugin folder was scanned once.
    ///
    /// # Errors
    ///
    /// Returns [`StartError::Settings`] if settings contradict each other, [`StartError::Folder`] if the plugin folder cannot be
    /// read, and [`StartError::Store`] if the store is broken. A store that is only busy does not keep the host from starting.
    pub async fn start(
        parts: Parts,
        settings: Settings,
        on_notice: impl Fn(&Notice) + Send + Sync + 'static,
    ) -> Result<Host, StartError> {
        start(parts, settings, Listener::new(on_notice)).await.map(|running| Host(Arc::new(running)))
    }

    /// Waits until every file that was in the plugin folder at the start was loaded or refused.
    pub async fn ready(&self) {
        // Closed only when the host has stopped, which will never be ready.
        let _ = self.0.first_scan.clone().wait_for(|done| *done).await;
    }

    /// Adds jobs, all or none. They are durable when this returns.
    ///
    /// # Errors
    ///
    /// Returns [`EnqueueError::EnqueueRejection`] with the problems of all requests if any request is invalid: then nothing was
    /// added. Returns [`EnqueueError::QueueFull`] if too many jobs of a plugin wait, and [`EnqueueError::Store`] if the store
    /// failed; after [`StoreError::Unknown`] the jobs may have been added.
    pub async fn enqueue(&self, requests: Vec<Request>) -> Result<Vec<Enqueued>, EnqueueError> {
        self.enqueue_with_room(requests, None).await
    }

    /// Adds jobs as [`Host::enqueue`] does. `room` is that of the requests in the budget of memory: it is kept until the store
    /// has the jobs, also if the caller has given up before.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Host::enqueue`].
    pub async fn enqueue_with_room(
        &self,
        requests: Vec<Request>,
        room: Option<Reservation>,
    ) -> Result<Vec<Enqueued>, EnqueueError> {
        let view = self.view();
        let prepared = self.0.prepare(view.clone(), requests).await?;
        let limits = view.limits(&prepared.groups_elsewhere);
        // What few requests need stands in a box, here and below: the future of every request would have room for it, and is moved
        // more than once.
        let known = match prepared.absent {
            absent if absent.is_empty() => Vec::new(),
            absent => Box::pin(self.0.find_known(absent)).await?,
        };
        let (indices, jobs): (Vec<usize>, Vec<NewJob>) = prepared.jobs.into_iter().unzip();
        // The store is not called without new jobs: a job that is known is returned also by a store that cannot write.
        let inserted = if jobs.is_empty() {
            Vec::new()
        } else {
            let _places = self.0.reserve_new(&jobs).await?;
            self.0.enqueuer.insert(jobs, limits, room).await?
        };
        let mut results: Vec<_> = indices.into_iter().zip(inserted.into_iter().map(Enqueued::from)).collect();
        if !known.is_empty() {
            results.extend(known);
            results.sort_unstable_by_key(|(index, _)| *index);
        }
        Ok(results.into_iter().map(|(_, enqueued)| enqueued).collect())
    }

    /// Calls every subscriber of a topic now, in parallel.
    ///
    /// # Errors
    ///
    /// Returns [`BroadcastError::Draining`] while the host is stopping or drained, `TooMany` if as many broadcasts are open as may be,
    /// `Loading` while the host has just started, and `BadTopic`, `TooLarge`, `TooLong` or `FirstOfNone` if the request is
    /// invalid.
    pub fn broadcast(&self, request: Broadcast) -> Result<Replies, BroadcastError> {
        if self.0.load.borrow().draining {
            return Err(BroadcastError::Draining);
        }
        Arc::clone(&self.0.broadcasts).start(request, &CallChain::default())
    }

    /// Adds a job for each subscriber of a topic, all or none. They are durable when this returns. `room` is that of the payload
    /// in the budget of memory, and kept until the store has the jobs.
    ///
    /// # Errors
    ///
    /// Returns [`BroadcastError::BadTopic`] if the topic is invalid, `TooLarge` if the payloads of all jobs together are too
    /// large, `Loading` or `Elsewhere` if a subscriber would be missed, `QueueFull` if too many jobs of a subscriber wait, and
    /// `Store` if the store failed.
    pub async fn broadcast_durably(
        &self,
        topic: &str,
        payload: SharedBytes,
        room: Option<Reservation>,
    ) -> Result<Durable, BroadcastError> {
        let view = self.view();
        let prepared = broadcast::prepare(&view, topic, payload, &*self.0.store)?;
        let (batch, jobs, limits) = (prepared.batch, prepared.jobs, view.limits(&prepared.groups_elsewhere));
        let plugins: Vec<PluginId> = jobs.iter().map(|job| job.task.plugin()).collect();
        let _places = self.0.bounds.reserve(places(&jobs)).await?;
        let inserted = self.0.enqueuer.insert(jobs, limits, room).await?;
        let jobs = plugins.into_iter().zip(inserted.into_iter().map(Enqueued::from)).collect();
        Ok(Durable { id: batch.id, topic: batch.topic, jobs })
    }

    /// Returns a durable broadcast and how far its jobs are; `None` if no job of it exists.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn batch(&self, id: JobId) -> Result<Option<Batch>, StoreError> {
        Batch::read(&*self.0.store, id, &self.catalog()).await
    }

    /// Returns how much of the store the values of a plugin use.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn kv_usage(&self, plugin: &PluginId) -> Result<KvUsage, StoreError> {
        let (usage, _) = self.0.store.usage(plugin.clone(), Vec::new()).await?;
        Ok(usage)
    }

    /// Returns one job with its payload and result, and why it waits if it does; `None` if there is no such job.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn job(&self, id: JobId) -> Result<Option<JobView>, StoreError> {
        let view = self.view();
        let Some(seen) = self.0.store.job(id, Arc::clone(view.catalog.limits())).await? else { return Ok(None) };
        if seen.why.is_none() {
            return Ok(Some(JobView { seen, waiting: None, nodes: Vec::new() }));
        }
        let seen = if view.has_group(&seen.job.lane.group) {
            seen
        } else {
            Box::pin(self.seen_with_limits_elsewhere(seen, &view)).await?
        };
        Ok(Some(self.waiting(seen, &view)))
    }

    /// Reads a job again with the limits of its group that only other nodes declare.
    async fn seen_with_limits_elsewhere(
        &self,
        seen: JobSnapshot,
        view: &PluginView,
    ) -> Result<JobSnapshot, StoreError> {
        let limits = view.limits(std::slice::from_ref(&seen.job.lane.group));
        Ok(self.0.store.job(seen.job.id, limits).await?.unwrap_or(seen))
    }

    /// Returns a waiting job with why it waits, as far as the live nodes say.
    fn waiting(&self, seen: JobSnapshot, view: &PluginView) -> JobView {
        let load = *self.0.load.borrow();
        let (name, capacity) = (self.0.name.as_str(), self.0.capacity);
        let (budget, costs) = (&self.0.budget, Arc::clone(&self.0.costs.borrow()));
        let here = ThisNode { name, draining: load.draining, running: load.running, capacity, budget, costs: &costs };
        let nodes = nodes_for(&seen.job, view, &here);
        let waiting = seen.why.clone().map(|why| why_waiting(&seen, why, view, &nodes));
        JobView { seen, waiting, nodes }
    }

    /// Returns the attempts that a job keeps of those that ended without a result, in ascending order.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn attempts(&self, id: JobId) -> Result<Vec<Attempt>, StoreError> {
        self.0.store.attempts(id).await
    }

    /// Returns jobs, newest first, without payload and result.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn jobs(&self, filter: JobFilter) -> Result<JobPage, StoreError> {
        self.0.store.jobs(filter).await
    }

    /// Returns jobs that meet a query, without payload and result, in the order of the list and behind `after`. However many
    /// jobs there are, it returns within a moment what it has found, how far it looked, and where to go on.
    ///
    /// # Errors
    ///
    /// Returns the store's error, and [`StoreError::Busy`] if the query reads payloads and the budget of memory has no room.
    pub async fn find(
        &self,
        query: Arc<JobQuery>,
        order: JobOrder,
        after: Option<JobCursor>,
        max: u32,
    ) -> Result<FindPage, StoreError> {
        let room = room_to_search(&self.0.budget, &query).await?;
        let declared = operations::declared_limits(&self.0.plugins, &self.0.store, &query);
        self.0.store.find(FindRequest { order, after, room, ..FindRequest::new(query, declared, max) }).await
    }

    /// Requests the cancel of a job: a waiting job is cancelled at once, a running one ends by itself or is stopped after the
    /// grace period. Returns the state after the request.
    ///
    /// # Errors
    ///
    /// Returns [`ChangeError::Refused`] if there is no such job or it has finished, and [`ChangeError::Store`] if the store
    /// failed.
    pub async fn cancel(&self, id: JobId, by: Author) -> Result<StateName, ChangeError> {
        let state = self.change(id, Event::CancelRequested, by).await?;
        self.notify(&Notice::CancelRequested { job: id });
        if state.is_final() {
            self.notify_ended(id, state).await;
        } else {
            self.0.enqueuer.send_to_loop(Input::CancelRequested(id));
        }
        Ok(state)
    }

    /// Has a failed or cancelled job tried again: `attempts` times while it fails, whatever its task allows. Returns the state after the
    /// request.
    ///
    /// # Errors
    ///
    /// Returns [`ChangeError::Refused`] if there is no such job, it has not finished, or it succeeded,
    /// [`ChangeError::QueueFull`] if too many jobs of its plugin wait, and [`ChangeError::Store`] if the store failed.
    pub async fn retry(&self, id: JobId, attempts: u32, by: Author) -> Result<StateName, ChangeError> {
        let job = self.0.store.job_summary(id).await?;
        // Any other job will not wait: its retry is refused, which a full queue must not hide.
        let again = job.filter(|job| matches!(job.status.state, State::Failed | State::Cancelled));
        let place = again.map(|job| (job.task.plugin(), 1));
        let _place = self.0.bounds.reserve(place.into_iter().collect()).await?;

        let state = self.change(id, Event::RetryRequested { delay: Duration::ZERO, attempts }, by).await?;
        self.notify(&Notice::RetryRequested { job: id });
        Ok(state)
    }

    async fn change(&self, id: JobId, event: Event, by: Author) -> Result<StateName, ChangeError> {
        let store = &self.0.store;
        let recorded = store.call_with_timeout("recording a request", store.change_job(id, event, by)).await?;
        self.0.enqueuer.inserts.followers.wake(id);
        recorded.map(|recorded| recorded.state).map_err(ChangeError::Refused)
    }

    async fn notify_ended(&self, job: JobId, state: StateName) {
        // If the store fails here, only the notice is lost.
        if let Ok(Some(Job { task, .. })) = self.0.store.job_summary(job).await {
            self.notify(&Notice::JobEnded { task, job, state });
        }
    }

    /// Streams a job: its log after entry number `after`, its state at the start and at each change. Ends after the final state,
    /// or with the first error of the store.
    pub fn follow(&self, id: JobId, after: u64) -> impl Stream<Item = Result<JobUpdate, StoreError>> + Send + use<> {
        follow::follow(self.0.store.clone(), Arc::clone(self.catalog().limits()), self.followers(), id, after)
    }

    /// Waits until a job has finished, or until `max` is over. Returns the job as it is then; `None` if there is no such job.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn wait(&self, id: JobId, max: Duration) -> Result<Option<JobSnapshot>, StoreError> {
        follow::wait(self.0.store.clone(), Arc::clone(self.catalog().limits()), self.followers(), id, max).await
    }

    /// Returns the plugins of this moment.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.plugins.catalog()
    }

    /// Replaces the settings that may change while the host runs: all of them, or none.
    ///
    /// New attempts get the new settings. Running attempts go on with those that they began with, unless their plugin has less
    /// granted now: then they end at their next host call, and their jobs run again, which costs them nothing. Jobs that wait
    /// keep their limit group and their key. A plugin that was refused for its settings is loaded again.
    ///
    /// # Errors
    ///
    /// Returns [`SettingsRejection::Invalid`] if the settings do not fit a loaded plugin, and [`SettingsRejection::Stopping`] if
    /// the host is stopping.
    pub async fn change_settings(&self, settings: LiveSettings) -> Result<SettingsChanges, SettingsRejection> {
        let (answer, answered) = oneshot::channel();
        let request = SettingsRequest { settings, answer };
        self.0.to_folder.send(request).await.map_err(|_| SettingsRejection::Stopping)?;
        let answer = answered.await.unwrap_or(Err(SettingsRejection::Stopping));
        self.0.schedules_changed.notify_one();
        answer
    }

    /// Returns the nodes that share the store, this one among them.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        self.0.store.nodes().await
    }

    /// Returns the time by the store's clock.
    pub fn now(&self) -> Timestamp {
        self.0.store.now()
    }

    /// Returns the ID of this node.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Returns the host's budget of memory.
    pub fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Returns what waits and runs on all nodes, by task, as far as a bounded look shows it. The tasks of this node are always among
    /// them.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let view = self.view();
        let mut backlog = self.0.store.backlog(view.all_limits(), bounds::FIND_TIME).await?;
        view.catalog.runs().for_each(|run| _ = backlog.task(&run.name));
        Ok(backlog)
    }

    /// Returns the size of the store.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn store_size(&self) -> Result<StoreSize, StoreError> {
        self.0.store.size().await
    }

    /// Returns random bytes that all hosts of the store share, to seal what a client brings back to any of them.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn seal_key(&self) -> Result<[u8; 32], StoreError> {
        self.0.store.seal_key().await
    }

    /// Returns a summary of what happens on all nodes.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn summary(&self) -> Result<Summary, StoreError> {
        let declared = self.0.plugins.view(self.0.store.now()).all_limits();
        summary::summary(&self.0.store, (self.0.node, &self.0.activity.now()), declared).await
    }

    /// Returns the health of this host at this moment.
    pub fn health(&self) -> HealthSnapshot {
        let load = *self.0.load.borrow();
        HealthSnapshot {
            running: load.running,
            capacity: self.0.capacity,
            draining: load.draining,
            stopping: load.stopping,
            broadcasts: self.0.broadcasts.open(),
            first_scan_done: *self.0.first_scan.borrow(),
            alive: !load.stopped && self.0.load.has_changed().is_ok(),
            store: self.0.store.failure().map_or(Ok(()), Err),
        }
    }

    /// Waits until the loop that runs jobs takes its next turn. Returns false if the loop has ended, so that no turn follows. A loop that
    /// hangs leaves the caller waiting: whoever watches over the host does something only when this has returned.
    pub async fn turned(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        // A loop that has ended drops the message, and the answer with it.
        let _ = self.0.enqueuer.to_loop.send(LoopMessage::Turned(answer));
        answered.await.is_ok()
    }

    /// Stops gracefully: claims no more jobs, lets running attempts finish for `timeout`, then stops them and gives their jobs
    /// back. Returns when everything is recorded.
    pub async fn drain(&self, timeout: Duration) {
        let running = self.0.load.borrow().running;
        self.notify(&Notice::DrainStarted { timeout, running });
        self.0.enqueuer.send_to_loop(Input::Drain { until: self.0.store.now() + timeout });
        // Broadcasts of jobs end with these; those of clients get the timeout.
        let broadcasts = tokio::time::timeout(timeout, self.0.broadcasts.ended());
        let mut load = self.0.load.clone();
        let loop_ended = async {
            // Closed when the loop has ended some other way.
            let _ = load.wait_for(|load| load.stopped).await;
        };
        let _ = tokio::join!(loop_ended, broadcasts);
        self.end().await;
        self.notify(&Notice::DrainEnded);
    }

    /// Stops everything that runs and gives the jobs back, without waiting for attempts to finish.
    pub async fn stop_now(&self) {
        let _ = tokio::time::timeout(STOP_NOW_TIMEOUT, self.drain(Duration::ZERO)).await;
        self.end().await;
    }

    /// Ends everything else that runs, so that nothing but handles of the host keeps the store open.
    async fn end(&self) {
        self.0.stopping.cancel();
        // If this fails, the other nodes find out that this one is silent.
        let _ = tokio::time::timeout(TASKS_TIMEOUT, self.0.store.deregister(self.0.node)).await;
        self.0.tasks.close();
        let _ = tokio::time::timeout(TASKS_TIMEOUT, self.0.tasks.wait()).await;
    }

    fn view(&self) -> PluginView {
        self.0.plugins.view(self.0.store.now())
    }

    fn followers(&self) -> &Arc<Followers> {
        &self.0.enqueuer.inserts.followers
    }

    fn notify(&self, notice: &Notice) {
        self.0.enqueuer.inserts.listener.notify(notice);
    }
}
