//! The memory store: the rules in their simplest form. It loses everything when it is dropped.
//!
//! It is the oracle of the tests: it keeps no derived state but the number of waiting jobs, which a host asks for each second,
//! so that stores that do are compared with it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use wharf_core::activity::Activity;
use wharf_core::attempt::Attempt;
use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::backlog::Backlog;
use wharf_core::bounds;
use wharf_core::bulk::{BulkOperation, NewOperation, OperationStep};
use wharf_core::failure::{FailureDetails, FailureGroup, FailureState};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::hold::{Hold, HoldScope, NewHold};
use wharf_core::ids::{Group, JobId, NodeId, PluginId, TaskName};
use wharf_core::job::{Job, JobStatus, NewJob, NumberedEntry, State, UniqueToken};
use wharf_core::keep::FinishedPlace;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::lease::{Lease, NodeMark};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Limits, Override};
use wharf_core::log_page::log_page;
use wharf_core::node::Node;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::time::Timestamp;
use wharf_core::wait_reason::wait_reason;

use crate::announced_plugins::PluginDigest;
use crate::clock::Clock;
use crate::node_list::{MARKS_KEPT, NodeList};
use crate::store::{
    AttemptStore, Claim, Claimed, ExpiredDeleted, ExpiredJobs, FailureFilter, FailurePage, FailureStore, FindPage,
    FindRequest, HoldPage, HoldStore, Inserted, JobFilter, JobFinder, JobPage, JobSnapshot, KvStore, NodeMessages,
    NodeRegistry, Nudges, OperationStore, Queue, QueueStats, Recorded, Renewed, StepTaken, Store, StoreError,
    StoreFiles, StoreSize, by_plugin,
};

mod audit;
mod kv;
mod failures;
mod schedule_map;
mod queue;
mod find;
mod backlog;
mod operations;
mod schedules;
mod claim;

use queue::{JobRecord, MemoryQueue};

/// A queue in memory: for tests, and for work that may be lost with the host.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    /// Locked within one call of this file, never across an await: no call waits for anything.
    queue: Mutex<MemoryQueue>,
    nudge: watch::Sender<u64>,
    nodes: NodeList,
    seal_key: [u8; 32],
}

/// Returns bytes that nobody guesses: the standard library draws the keys of its hash maps from the system.
fn random_bytes() -> [u8; 32] {
    let numbers: [[u8; 8]; 4] = std::array::from_fn(|at| RandomState::new().hash_one(at).to_ne_bytes());
    std::array::from_fn(|at| numbers[at / 8][at % 8])
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn open(clock: Arc<dyn Clock>) -> MemoryStore {
        MemoryStore {
            clock,
            queue: Mutex::new(MemoryQueue::new()),
            nudge: watch::Sender::new(0),
            nodes: NodeList::default(),
            seal_key: random_bytes(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, MemoryQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nudge(&self) {
        self.nudge.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Queue for MemoryStore {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn next_id(&self) -> Result<JobId, StoreError> {
        Ok(self.queue().ids.next(self.clock.now()))
    }

    async fn insert(&self, jobs: Vec<NewJob>, declared: Arc<LimitTable>) -> Result<Vec<Inserted>, StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        queue.declared = declared;
        let inserted = jobs.into_iter().map(|job| queue.insert(job, now)).collect();
        drop(queue);
        self.nudge();
        Ok(inserted)
    }

    async fn insert_with_changes(
        &self,
        jobs: Vec<NewJob>,
        declared: Arc<LimitTable>,
        changes: Option<Arc<KvChanges>>,
    ) -> Result<Vec<Inserted>, StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        queue.declared = declared;
        changes.iter().for_each(|changes| queue.values.change(changes));
        let inserted = jobs.into_iter().map(|job| queue.insert_child(job, now)).collect();
        drop(queue);
        self.nudge();
        Ok(inserted)
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let claimed = self.queue().claim(claim, self.now());
        if !claimed.leased.is_empty() {
            self.nudge();
        }
        Ok(claimed)
    }

    async fn record(&self, events: Arc<Vec<(JobId, Event)>>) -> Result<Vec<Result<Recorded, Refusal>>, StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        let apply = |(id, event): &(JobId, Event)| {
            if event.is_recordable() { queue.apply(*id, event.clone(), now) } else { Err(Refusal::Stale) }
        };
        let recorded = events.iter().map(apply).collect();
        drop(queue);
        self.nudge();
        Ok(recorded)
    }

    async fn renew(&self, leases: Vec<Lease>, length: Duration) -> Result<Vec<Renewed>, StoreError> {
        let until = self.now() + length;
        let mut queue = self.queue();
        let mut renew = |requested: Lease| {
            let status = queue.jobs.get_mut(&requested.job).map(|record| &mut record.job.status);
            let Some(JobStatus { state: State::Running { lease }, cancel_requested, .. }) = status else {
                return Renewed::Lost(requested);
            };
            let Some(renewed) = lease.renewed(requested.attempt, until) else { return Renewed::Lost(requested) };
            *lease = renewed;
            if *cancel_requested { Renewed::RenewedCancelRequested(renewed) } else { Renewed::Renewed(renewed) }
        };
        Ok(leases.into_iter().map(&mut renew).collect())
    }

    async fn reclaim(&self, max: u32) -> Result<Vec<JobId>, StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        let running = queue.running.values().flatten();
        let leases = running.filter_map(|id| match queue.jobs[id].job.status.state {
            State::Running { lease } if lease.is_expired(now) => Some(lease),
            _ => None,
        });
        let mut expired: Vec<Lease> = leases.collect();
        expired.sort_by_key(|lease| (lease.until, lease.job));
        expired.truncate(max as usize);
        for lease in &expired {
            let mark = queue.marks.get(&lease.node).map_or_else(NodeMark::default, |(_, mark)| *mark);
            let event = Event::LeaseExpired { attempt: lease.attempt, mark: mark.about(lease.job, lease.attempt) };
            queue.apply(lease.job, event, now).expect("a running job's lease can expire");
        }
        drop(queue);
        if !expired.is_empty() {
            self.nudge();
        }
        Ok(expired.into_iter().map(|lease| lease.job).collect())
    }

    async fn find_by_tokens(&self, tokens: Vec<UniqueToken>) -> Result<Vec<Option<JobId>>, StoreError> {
        let queue = self.queue();
        Ok(tokens.iter().map(|token| queue.tokens.get(token).copied()).collect())
    }

    async fn job(&self, id: JobId, declared: Arc<LimitTable>) -> Result<Option<JobSnapshot>, StoreError> {
        let now = self.now();
        let queue = self.queue();
        let Some(JobRecord { job, entries, .. }) = queue.jobs.get(&id) else { return Ok(None) };
        let table = declared.with_overrides(queue.overrides.overrides());
        let why = match job.status.state {
            State::Waiting { due } => {
                let limits = Limits { per_key: table.per_key(&job.lane), total: table.of(&job.lane.group).total };
                let lane = queue.holders(|lane| *lane == job.lane);
                let group = queue.holders(|lane| lane.group == job.lane.group);
                // A ready job stays ready, even if the clock is set back.
                let due = if queue.delayed.contains(&(due, id)) { due } else { due.min(now) };
                let hold = queue.holds.on_job(&job.task, &job.lane, now);
                Some(wait_reason(due, now, limits, lane, group).or_held(hold))
            }
            _ => None,
        };
        Ok(Some(JobSnapshot { job: job.clone(), why, entries: entries.len() as u64 }))
    }

    async fn jobs(&self, filter: JobFilter) -> Result<JobPage, StoreError> {
        let max = filter.max.clamp(1, bounds::PAGE_MAX) as usize;
        let queue = self.queue();
        let newest_first = queue.jobs.values().rev().map(|record| &record.job);
        let matches = |job: &&Job| {
            filter.before.is_none_or(|before| job.id < before)
                && filter.state.is_none_or(|state| job.status.state.name() == state)
                && filter.task.as_ref().is_none_or(|task| job.task == *task)
                && (filter.key.is_none() || job.lane.key == filter.key)
                && (filter.token.is_none() || job.token == filter.token)
                && filter.batch.is_none_or(|batch| job.batch.as_ref().is_some_and(|of| of.id == batch))
        };
        let summary = |job: &Job| Job { payload: SharedBytes::default(), result: None, ..job.clone() };
        let mut jobs: Vec<Job> = newest_first.filter(matches).take(max + 1).map(summary).collect();
        let more = jobs.len() > max;
        jobs.truncate(max);
        Ok(JobPage { jobs, more })
    }

    async fn deleted_of_batch(&self, batch: JobId) -> Result<u64, StoreError> {
        Ok(self.queue().deleted_of_batch.get(&batch).copied().unwrap_or_default())
    }

    async fn entries(&self, id: JobId, after: u64, max: u32) -> Result<Vec<NumberedEntry>, StoreError> {
        let max = max.clamp(1, bounds::PAGE_MAX) as usize;
        let queue = self.queue();
        let entries = queue.jobs.get(&id).map(|record| record.entries.as_slice()).unwrap_or_default();
        log_page(entries.iter().filter(|entry| entry.number > after).take(max).cloned().map(Ok))
    }

    async fn delete_expired(&self, expired: ExpiredJobs) -> Result<ExpiredDeleted, StoreError> {
        let ExpiredJobs { rules, from, before, max } = expired;
        let (now, mut queue) = (self.now(), self.queue());
        let finished = queue.jobs.values().filter_map(|record| Some((record.job.finished_at?, Some(record.job.id))));
        let mut old: Vec<FinishedPlace> = finished.filter(|place| *place > from && place.0 < before).collect();
        old.sort();
        old.truncate(max as usize);
        let (parents, batches) = queue.referred_to();
        let is_expired = |id: &JobId| {
            let job = &queue.jobs[id].job;
            let state = job.status.state.name();
            let is_needed = parents.contains(id) || job.batch.as_ref().is_some_and(|batch| batches.contains(&batch.id));
            !is_needed && job.finished_at.is_some_and(|at| rules.is_expired(&job.task, state, at, now))
        };
        let gone: Vec<JobId> = old.iter().filter_map(|(_, id)| *id).filter(is_expired).collect();
        gone.iter().for_each(|id| _ = queue.delete(*id));
        let next = old.last().filter(|_| old.len() == max as usize).copied();
        Ok(ExpiredDeleted { deleted: gone.len() as u32, next })
    }

    async fn overrides(&self) -> Result<Vec<Override>, StoreError> {
        Ok(self.queue().overrides.overrides().collect())
    }

    async fn set_override(&self, change: Override, by: Author) -> Result<(), StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        let is_set = |set: Override| set.group == change.group && set.key == change.key;
        if change.limits != Limits::default() || queue.overrides.overrides().any(is_set) {
            queue.acts.add(NewAct::of_override(by, &change), now);
        }
        if change.limits == Limits::default() {
            queue.overrides.clear(&change.group, change.key.as_ref());
        } else {
            queue.overrides.set(change);
        }
        drop(queue);
        self.nudge();
        Ok(())
    }

    async fn waiting_jobs(&self) -> Result<BTreeMap<PluginId, u64>, StoreError> {
        Ok(by_plugin(self.queue().waiting.clone()))
    }

    async fn stats(&self) -> Result<QueueStats, StoreError> {
        let queue = self.queue();
        let mut tasks: BTreeMap<&TaskName, (u64, u64)> = BTreeMap::new();
        let mut groups: BTreeMap<&Group, u64> = BTreeMap::new();
        for JobRecord { job, .. } in queue.jobs.values() {
            match job.status.state {
                State::Waiting { .. } => tasks.entry(&job.task).or_default().0 += 1,
                State::Running { .. } => {
                    tasks.entry(&job.task).or_default().1 += 1;
                    *groups.entry(&job.lane.group).or_default() += 1;
                }
                State::Succeeded | State::Failed | State::Cancelled => {}
            }
        }
        Ok(QueueStats {
            tasks: tasks.into_iter().map(|(task, (waiting, running))| (task.clone(), waiting, running)).collect(),
            groups: groups.into_iter().map(|(group, running)| (group.clone(), running)).collect(),
        })
    }

    fn nudges(&self) -> Nudges {
        self.nudge.subscribe()
    }
}

#[async_trait]
impl JobFinder for MemoryStore {
    async fn find(&self, request: FindRequest) -> Result<FindPage, StoreError> {
        Ok(self.queue().find(&request, self.now()))
    }

    async fn backlog(&self, declared: Arc<LimitTable>, _: Duration) -> Result<Backlog, StoreError> {
        Ok(self.queue().backlog(&declared, self.now()))
    }
}

#[async_trait]
impl OperationStore for MemoryStore {
    async fn start_operation(
        &self,
        new: NewOperation,
        declared: Arc<LimitTable>,
    ) -> Result<Option<BulkOperation>, StoreError> {
        Ok(self.queue().start_operation(&new, &declared, self.now()))
    }

    async fn operation(&self, id: JobId) -> Result<Option<BulkOperation>, StoreError> {
        Ok(self.queue().operations.get(&id).cloned())
    }

    async fn operations(&self, before: Option<JobId>, max: u32) -> Result<Vec<BulkOperation>, StoreError> {
        let max = max.clamp(1, bounds::PAGE_MAX) as usize;
        let queue = self.queue();
        let newest_first = queue.operations.values().rev();
        let found = newest_first.filter(|operation| before.is_none_or(|before| operation.id < before));
        Ok(found.take(max).cloned().collect())
    }

    async fn open_operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        Ok(self.queue().open_operations())
    }

    async fn take_operation_step(&self, step: OperationStep) -> Result<Option<StepTaken>, StoreError> {
        let taken = self.queue().take_operation_step(&step, self.now());
        self.nudge();
        Ok(taken)
    }

    async fn cancel_operation(&self, id: JobId, by: Author) -> Result<Option<BulkOperation>, StoreError> {
        Ok(self.queue().cancel_operation(id, by, self.now()))
    }

    async fn delete_ended_operations(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        Ok(self.queue().delete_ended_operations(before, max))
    }
}

#[async_trait]
impl HoldStore for MemoryStore {
    async fn set_hold(&self, hold: NewHold) -> Result<Option<Hold>, StoreError> {
        let (new, now) = (hold, self.now());
        let mut queue = self.queue();
        let Some(hold) = new.set_over(queue.holds.get(&new.scope), now) else {
            return Ok(queue.holds.get(&new.scope).cloned());
        };
        if queue.holds.get(&hold.scope).is_none() && queue.holds.len() >= new.others_max() as usize {
            return Ok(None);
        }
        if let Some(act) = NewAct::of_hold(new.by, &hold) {
            queue.acts.add(act, now);
        }
        queue.holds.set(hold.clone());
        drop(queue);
        self.nudge();
        Ok(Some(hold))
    }

    async fn release_hold(&self, scope: HoldScope, by: Author) -> Result<Option<Hold>, StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        let released = queue.holds.remove(&scope).filter(|hold| hold.is_in_force(now));
        if released.is_some() {
            queue.acts.add(NewAct::of_release(by, &scope), now);
        }
        drop(queue);
        self.nudge();
        Ok(released)
    }

    async fn holds(&self, after: Option<HoldScope>, max: u32) -> Result<HoldPage, StoreError> {
        let (now, max) = (self.now(), max.clamp(1, bounds::PAGE_MAX) as usize);
        let after = after.map(|after| after.to_string());
        let queue = self.queue();
        let in_force = queue.holds.iter().filter(|hold| hold.is_in_force(now));
        let by_text: BTreeMap<String, &Hold> = in_force.map(|hold| (hold.scope.to_string(), hold)).collect();
        let page = by_text.into_iter().filter(|(scope, _)| after.as_ref().is_none_or(|after| scope > after));
        Ok(HoldPage::new(page.take(max + 1).map(|(_, hold)| hold.clone()).collect(), max))
    }

    async fn holds_of(&self, scopes: Vec<HoldScope>) -> Result<Vec<Hold>, StoreError> {
        let (now, queue) = (self.now(), self.queue());
        let found = scopes.iter().filter_map(|scope| queue.holds.get(scope)).filter(|hold| hold.is_in_force(now));
        Ok(found.cloned().collect())
    }

    async fn delete_ended_holds(&self, max: u32) -> Result<u32, StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        let ended = queue.holds.ended(now, max as usize);
        ended.iter().for_each(|scope| _ = queue.holds.remove(scope));
        Ok(ended.len() as u32)
    }
}

#[async_trait]
impl AttemptStore for MemoryStore {
    async fn attempts(&self, id: JobId) -> Result<Vec<Attempt>, StoreError> {
        Ok(self.queue().jobs.get(&id).map(|record| record.attempts.clone()).unwrap_or_default())
    }
}

#[async_trait]
impl FailureStore for MemoryStore {
    async fn failures(&self, filter: FailureFilter) -> Result<FailurePage, StoreError> {
        Ok(self.queue().failures.page(&filter))
    }

    async fn failure_details(&self, fingerprint: Fingerprint) -> Result<Option<FailureDetails>, StoreError> {
        Ok(self.queue().failures.details(fingerprint))
    }

    async fn set_failure_state(
        &self,
        fingerprint: Fingerprint,
        state: FailureState,
        by: Author,
    ) -> Result<Option<FailureGroup>, StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        let set = queue.failures.set_state(fingerprint, state, by.name().map(str::to_owned), now);
        if set.is_some() {
            queue.acts.add(NewAct::of_failure(by, fingerprint, state), now);
        }
        Ok(set)
    }

    async fn delete_failures(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        Ok(self.queue().failures.delete(before, max as usize))
    }
}

#[async_trait]
impl KvStore for MemoryStore {
    async fn value(&self, plugin: PluginId, key: KvKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.queue().values.value(&plugin, &key))
    }

    async fn value_keys(&self, plugin: PluginId, query: KvKeyQuery) -> Result<Vec<KvKey>, StoreError> {
        Ok(self.queue().values.keys(&plugin, &query))
    }

    async fn usage(&self, plugin: PluginId, keys: Vec<KvKey>) -> Result<(KvUsage, Vec<Option<u64>>), StoreError> {
        Ok(self.queue().values.usage(&plugin, &keys))
    }
}

#[async_trait]
impl NodeRegistry for MemoryStore {
    async fn register(&self, node: Node, silent: Duration) -> Result<(), StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        node.plugins.iter().for_each(|loaded| _ = queue.failures.see(&PluginDigest::from(loaded), now));
        drop(queue);
        self.nodes.announce(node, silent, now);
        Ok(())
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        self.nodes.leave(node);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        Ok(self.nodes.all())
    }

    async fn set_activity(&self, node: NodeId, activity: Arc<Activity>) -> Result<(), StoreError> {
        self.nodes.set_activity(node, activity);
        Ok(())
    }

    async fn activities(&self) -> Result<Vec<(NodeId, Arc<Activity>)>, StoreError> {
        Ok(self.nodes.activities())
    }

    async fn set_node_mark(&self, node: NodeId, mark: NodeMark) -> Result<(), StoreError> {
        let now = self.now();
        let mut queue = self.queue();
        queue.marks.retain(|_, (at, _)| *at >= now - MARKS_KEPT);
        queue.marks.insert(node, (now, mark));
        Ok(())
    }
}

#[async_trait]
impl StoreFiles for MemoryStore {
    async fn size(&self) -> Result<StoreSize, StoreError> {
        // What it keeps is part of the memory of its process.
        Ok(StoreSize::default())
    }

    async fn seal_key(&self) -> Result<[u8; 32], StoreError> {
        Ok(self.seal_key)
    }
}

impl Store for MemoryStore {
    fn messages(&self) -> Option<&dyn NodeMessages> {
        None
    }
}
