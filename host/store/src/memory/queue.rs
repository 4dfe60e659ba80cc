//! The queue in memory: its jobs, where each stands among the others, and what an event changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wharf_core::ids::{JobId, JobIds, NodeId, TaskName};
use wharf_core::job::{Job, JobStatus, NewJob, NumberedEntry, State, Token};
use wharf_core::key::Lane;
use wharf_core::lease::NodeMark;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, OnConflict};
use wharf_core::time::Timestamp;

use super::kv::Values;
use crate::change::change;
use crate::conflict::{ConflictDecision, HOLDERS_NAMED, LaneCounts, in_its_place, not_taken, resolve};
use crate::store::{Inserted, Recorded};
use crate::wait_reason::Holders;

pub(super) struct Queue {
    pub(super) ids: JobIds,
    pub(super) jobs: BTreeMap<JobId, Kept>,
    pub(super) tokens: BTreeMap<(TaskName, Token), JobId>,
    /// Lanes that have due jobs.
    pub(super) ready: BTreeMap<Lane, Due>,
    pub(super) delayed: BTreeSet<(Timestamp, JobId)>,
    pub(super) running: BTreeMap<Lane, BTreeSet<JobId>>,
    /// The last turn that was given out.
    pub(super) turn: u64,
    /// Holds the overrides only.
    pub(super) overrides: LimitTable,
    /// What manifests and settings said at the last insert or claim.
    pub(super) declared: Arc<LimitTable>,
    pub(super) values: Values,
    /// What nodes have written down of themselves.
    pub(super) marks: BTreeMap<NodeId, (Timestamp, NodeMark)>,
}

/// The due jobs of a lane.
pub(super) struct Due {
    pub(super) turn: u64,
    /// Those of each task, in the order in which they are served. No line is empty.
    pub(super) lines: BTreeMap<TaskName, BTreeSet<(Reverse<i32>, Timestamp, JobId)>>,
}

pub(super) struct Kept {
    pub(super) job: Job,
    pub(super) entries: Vec<NumberedEntry>,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue {
            ids: JobIds::after(None),
            jobs: BTreeMap::new(),
            tokens: BTreeMap::new(),
            ready: BTreeMap::new(),
            delayed: BTreeSet::new(),
            running: BTreeMap::new(),
            turn: 0,
            overrides: LimitTable::default(),
            declared: Arc::default(),
            values: Values::default(),
            marks: BTreeMap::new(),
        }
    }

    pub(super) fn limits(&self) -> LimitTable {
        self.declared.with_overrides(self.overrides.overrides())
    }

    /// Puts a job where its state belongs.
    pub(super) fn place(&mut self, id: JobId, now: Timestamp) {
        let job = &self.jobs[&id].job;
        match job.standing.state {
            State::Waiting { due } if due <= now => self.make_ready(id),
            State::Waiting { due } => _ = self.delayed.insert((due, id)),
            State::Running { .. } => _ = self.running.entry(job.lane.clone()).or_default().insert(id),
            State::Succeeded | State::Failed | State::Cancelled => {}
        }
    }

    pub(super) fn make_ready(&mut self, id: JobId) {
        let job = &self.jobs[&id].job;
        let State::Waiting { due } = job.standing.state else { return };
        let lane = self.ready.entry(job.lane.clone()).or_insert_with(|| {
            // A lane joins at the back of the ring.
            self.turn += 1;
            Due { turn: self.turn, lines: BTreeMap::new() }
        });
        lane.lines.entry(job.task.clone()).or_default().insert((Reverse(job.priority), due, id));
    }

    /// Takes a job from where its state put it.
    pub(super) fn take_away(&mut self, id: JobId) {
        let job = &self.jobs[&id].job;
        match job.standing.state {
            State::Waiting { due } => {
                self.delayed.remove(&(due, id));
                let Some(lane) = self.ready.get_mut(&job.lane) else { return };
                let Some(line) = lane.lines.get_mut(&job.task) else { return };
                line.remove(&(Reverse(job.priority), due, id));
                if line.is_empty() {
                    lane.lines.remove(&job.task);
                }
                if lane.lines.is_empty() {
                    self.ready.remove(&job.lane);
                }
            }
            State::Running { .. } => {
                if let Some(holders) = self.running.get_mut(&job.lane) {
                    holders.remove(&id);
                    if holders.is_empty() {
                        self.running.remove(&job.lane);
                    }
                }
            }
            State::Succeeded | State::Failed | State::Cancelled => {}
        }
    }

    pub(super) fn apply(&mut self, id: JobId, event: Event, now: Timestamp) -> Result<Recorded, Refusal> {
        let kept = self.jobs.get(&id).ok_or(Refusal::Unknown)?;
        let change = change(&kept.job.standing, &event, now)?;
        self.take_away(id);
        let kept = self.jobs.get_mut(&id).expect("found above");
        kept.job.standing = change.standing;
        kept.job.finished_at = change.finished_at;
        if change.report.is_some() {
            kept.job.report = change.report;
        }
        if change.attempt_ended {
            kept.job.bill = change.bill;
        }
        let mut children = Vec::new();
        match event {
            Event::Claimed { .. } => kept.job.started_at = Some(now),
            Event::Wrote { attempt, entries } => {
                let last = kept.entries.len() as u64;
                let numbered = (last + 1..).zip(entries);
                kept.entries.extend(numbered.map(|(number, entry)| NumberedEntry { number, attempt, at: now, entry }));
            }
            Event::Succeeded { output, children: new, changes, .. } => {
                kept.job.result = Some(output);
                children = new;
                changes.iter().for_each(|changes| self.values.change(changes));
            }
            _ => {}
        }
        self.place(id, now);
        let children = children.into_iter().map(|job| self.insert_child(job, now)).collect();
        Ok(Recorded { state: change.standing.state.name(), cancel_asked: change.standing.cancel_asked, children })
    }

    /// Adds a job whose id was given out before: where it is not taken, it stands under this id and says so.
    pub(super) fn insert_child(&mut self, new: NewJob, now: Timestamp) -> Inserted {
        let (id, instead) = (new.id, in_its_place(&new));
        let inserted = self.insert(new, now);
        // One that is written twice stands there already.
        if let Some(why) = not_taken(id, &inserted)
            && !self.jobs.contains_key(&id)
            && let Inserted::Added { .. } = self.insert(instead, now)
        {
            self.apply(id, Event::NotEnqueued(why), now).expect("a waiting job can be cancelled");
        }
        inserted
    }

    pub(super) fn insert(&mut self, mut new: NewJob, now: Timestamp) -> Inserted {
        let token = new.token.clone().map(|token| (new.task.clone(), token));
        if let Some(id) = token.as_ref().and_then(|token| self.tokens.get(token).copied()) {
            return Inserted::Duplicate { id };
        }
        while self.jobs.contains_key(&new.id) {
            new.id = self.ids.next(now);
        }

        let (mut replaced, mut asked) = (Vec::new(), Vec::new());
        if new.on_conflict != OnConflict::Wait {
            let running: Vec<JobId> = self.running.get(&new.lane).into_iter().flatten().copied().collect();
            let waiting = self.waiting(&new.lane);
            let leaving = |id: &JobId| self.jobs[id].job.standing.cancel_asked;
            let crowd = LaneCounts {
                running: running.len() as u32,
                leaving: running.iter().filter(|id| leaving(id)).count() as u32,
                waiting: waiting.len() as u32,
            };
            match resolve(new.on_conflict, crowd, self.limits().per_key(&new.lane)) {
                ConflictDecision::Take => {}
                ConflictDecision::Discard => {
                    let holders = running.into_iter().chain(waiting).take(HOLDERS_NAMED);
                    return Inserted::Discarded { holders: holders.collect() };
                }
                ConflictDecision::TakeInstead { ask } => {
                    asked = running.into_iter().filter(|id| !leaving(id)).take(ask as usize).collect();
                    replaced = waiting;
                }
            }
        }
        for id in &replaced {
            self.apply(*id, Event::Replaced, now).expect("a waiting job can be replaced");
        }
        for id in &asked {
            self.apply(*id, Event::CancelAsked, now).expect("a running job can be asked to end");
        }

        let id = new.id;
        let job = Job {
            id,
            task: new.task,
            lane: new.lane,
            priority: new.priority,
            token: new.token,
            batch: new.batch,
            payload: new.payload,
            standing: JobStatus::new(new.due.map_or(now, |due| due.from(now))),
            enqueued_at: now,
            started_at: None,
            finished_at: None,
            report: None,
            result: None,
            bill: None,
        };
        self.jobs.insert(id, Kept { job, entries: Vec::new() });
        self.tokens.extend(token.map(|token| (token, id)));
        self.place(id, now);
        Inserted::Added { id, replaced, cancel_asked: asked }
    }

    /// The waiting jobs of a lane, due or not, by id.
    fn waiting(&self, lane: &Lane) -> Vec<JobId> {
        let due = self.ready.get(lane).into_iter().flat_map(|due| due.lines.values().flatten()).map(|(_, _, id)| *id);
        let delayed = self.delayed.iter().map(|(_, id)| *id).filter(|id| self.jobs[id].job.lane == *lane);
        let mut waiting: Vec<JobId> = due.chain(delayed).collect();
        waiting.sort_unstable();
        waiting
    }

    pub(super) fn holders(&self, of: impl Fn(&Lane) -> bool) -> Holders {
        let lanes = self.running.iter().filter(|(lane, _)| of(lane));
        let ids: BTreeSet<JobId> = lanes.flat_map(|(_, ids)| ids).copied().collect();
        ids.into_iter().map(|id| (id, self.jobs[&id].job.started_at.unwrap_or_default())).collect()
    }
}
