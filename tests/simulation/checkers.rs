//! What must hold after each step, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wharf_core::ids::{Group, JobId, NodeId};
use wharf_core::job::{Entry, LeasedJob, StateName};
use wharf_core::key::Lane;
use wharf_core::lease::{NodeMark, StartedSuspect, is_suspect};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Limits};
use wharf_core::planner::AttemptId;
use wharf_store::{Inserted, JobFilter, MemoryStore, Queue as _, Recorded};

use crate::faults::Odds;
use crate::ground::at_once;
use crate::node::Node;
use crate::world::KILLS;

pub(crate) struct Checkers {
    /// The clock leaps further than any lease: what acts by the machine's clock may overlap.
    wild_clock: bool,
    /// Nothing but what kills nodes can fail.
    only_killers: bool,
    /// Every job that the store said it has taken, and where it was seen last.
    jobs: BTreeMap<JobId, Known>,
    unfinished: BTreeSet<JobId>,
    /// What was in force for an attempt when it was claimed.
    limits: BTreeMap<AttemptId, Limits>,
    /// Chunks that attempts emitted, by number.
    emitted: BTreeMap<AttemptId, Vec<u32>>,
    started: BTreeSet<AttemptId>,
    /// What nodes wrote down of themselves.
    marks: BTreeMap<NodeId, NodeMark>,
    /// More may act than at the last look.
    grown: bool,
}

#[derive(Default)]
struct Known {
    state: Option<StateName>,
    /// How often it came to a final state, less how often it was asked to be tried again.
    ends: i32,
    succeeded_by: Option<u32>,
}

impl Checkers {
    pub(crate) fn new(odds: &Odds) -> Checkers {
        Checkers {
            wild_clock: odds.wild_clock,
            only_killers: !odds.trouble && odds.attempt_fails == 0,
            jobs: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            limits: BTreeMap::new(),
            emitted: BTreeMap::new(),
            started: BTreeSet::new(),
            marks: BTreeMap::new(),
            grown: false,
        }
    }

    pub(crate) fn jobs(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.started.len() as u64
    }

    pub(crate) fn all_over(&self) -> bool {
        self.unfinished.is_empty()
    }

    pub(crate) fn unfinished(&self) -> &BTreeSet<JobId> {
        &self.unfinished
    }

    pub(crate) fn any_job(&self, rng: &mut fastrand::Rng) -> Option<JobId> {
        // Rather one that is not over, if there is one.
        let from = |ids: &mut dyn Iterator<Item = JobId>, count: usize, rng: &mut fastrand::Rng| {
            ids.nth(rng.usize(0..count.max(1)))
        };
        if rng.bool() && !self.unfinished.is_empty() {
            return from(&mut self.unfinished.iter().copied(), self.unfinished.len(), rng);
        }
        from(&mut self.jobs.keys().copied(), self.jobs.len(), rng)
    }

    pub(crate) fn inserted(&mut self, inserted: &Inserted) {
        if let Inserted::Added { id, .. } = inserted {
            let before = self.jobs.insert(*id, Known::default());
            assert!(before.is_none(), "two jobs have the id {id}");
            self.unfinished.insert(*id);
        }
    }

    /// The id of a child is given out before it is known whether it is taken: it stands there all the same.
    fn child(&mut self, id: JobId, inserted: &Inserted) {
        self.inserted(inserted);
        if let Inserted::Discarded { .. } = inserted {
            let over = Known { state: Some(StateName::Cancelled), ends: 1, succeeded_by: None };
            assert!(self.jobs.insert(id, over).is_none(), "two jobs have the id {id}");
        }
    }

    pub(crate) fn claimed(&mut self, leased: &LeasedJob, table: &LimitTable) {
        let attempt = AttemptId::from(&leased.lease);
        let limits = Limits { per_key: table.per_key(&leased.lane), total: table.of(&leased.lane.group).total };
        let before = self.limits.insert(attempt, limits);
        assert!(before.is_none(), "{attempt:?} was given out twice");
        self.saw(leased.lease.job, StateName::Running);
    }

    /// `beside` it these act on its node.
    pub(crate) fn started(&mut self, leased: &LeasedJob, beside: &[AttemptId]) {
        let attempt = AttemptId::from(&leased.lease);
        assert!(self.started.insert(attempt), "{attempt:?} was started twice");
        let begun = self.marks.get(&leased.lease.node).and_then(|mark| mark.suspect);
        if is_suspect(leased.crashes) {
            assert!(beside.is_empty(), "{attempt:?} may be what kills its node, and is not alone");
            let alone = StartedSuspect { job: attempt.job, attempt: attempt.number, alone: true };
            assert_eq!(begun, Some(alone), "{attempt:?} was begun before that was written down");
        } else if let Some(begun) = begun.filter(|begun| begun.alone) {
            let alone = AttemptId { job: begun.job, number: begun.attempt };
            assert!(!beside.contains(&alone), "{attempt:?} was begun beside one that is to be alone, {alone:?}");
        }
        self.grown = true;
    }

    pub(crate) fn marked(&mut self, node: NodeId, mark: NodeMark) {
        self.marks.insert(node, mark);
    }

    /// An attempt may act for longer than it might before.
    pub(crate) fn trusted(&mut self) {
        self.grown = true;
    }

    pub(crate) fn emitted(&mut self, attempt: AttemptId, number: u32) {
        self.emitted.entry(attempt).or_default().push(number);
    }

    pub(crate) fn recorded(&mut self, job: JobId, event: &Event, result: &Result<Recorded, Refusal>) {
        let Ok(recorded) = result else { return };
        if matches!(event, Event::RetryRequested { .. }) {
            self.jobs.get_mut(&job).expect("a job that is known").ends -= 1;
            self.unfinished.insert(job);
        }
        self.saw(job, recorded.state);
        if let Event::Succeeded { attempt, .. } = event {
            let known = self.jobs.get_mut(&job).expect("seen just now");
            assert_eq!(known.succeeded_by.replace(*attempt), None, "{job} succeeded twice");
        }
        if let Event::Succeeded { children, .. } = event {
            children.iter().zip(&recorded.children).for_each(|(child, inserted)| self.child(child.id, inserted));
        }
    }

    /// The store changed the job by itself.
    pub(crate) fn changed(&mut self, job: JobId, store: &MemoryStore) {
        let seen = at_once(store.job(job, Default::default())).expect("memory never fails");
        let state = seen.unwrap_or_else(|| panic!("{job} is lost")).job.status.state.name();
        self.saw(job, state);
    }

    fn saw(&mut self, job: JobId, state: StateName) {
        let known = self.jobs.get_mut(&job).unwrap_or_else(|| panic!("{job} came from nowhere"));
        known.state = Some(state);
        if state.is_final() {
            known.ends += 1;
            assert_eq!(known.ends, 1, "{job} ended more than once, at last as {state:?}");
            self.unfinished.remove(&job);
        } else {
            assert_eq!(known.ends, 0, "{job} was over and is {state:?} again");
        }
    }

    /// Limits hold among all attempts that may act at this moment, on whatever node, asleep or not.
    pub(crate) fn look(&mut self, nodes: &[Node], elapsed: Duration) {
        if self.wild_clock || !std::mem::take(&mut self.grown) {
            return;
        }
        let mut lanes: BTreeMap<&Lane, Vec<AttemptId>> = BTreeMap::new();
        let mut groups: BTreeMap<&Group, Vec<AttemptId>> = BTreeMap::new();
        let mut jobs = BTreeSet::new();
        for (attempt, acting) in nodes.iter().flat_map(|node| &node.acting) {
            if acting.trusted_until <= elapsed {
                continue;
            }
            assert!(jobs.insert(attempt.job), "two attempts of {} act at once", attempt.job);
            lanes.entry(&acting.leased.lane).or_default().push(*attempt);
            groups.entry(&acting.leased.lane.group).or_default().push(*attempt);
        }
        for (lane, acting) in lanes {
            self.within(&acting, |limits| limits.per_key, &format!("{lane:?}"));
        }
        for (group, acting) in groups {
            self.within(&acting, |limits| limits.total, &format!("group {group}"));
        }
    }

    /// Lowering a limit drains and kills nobody: the one that was claimed last counted all others that still act.
    fn within(&self, acting: &[AttemptId], limit: impl Fn(&Limits) -> Option<u32>, of: &str) {
        let highest =
            acting.iter().map(|attempt| limit(&self.limits[attempt]).unwrap_or(u32::MAX)).max().unwrap_or_default();
        assert!(
            acting.len() <= highest as usize,
            "{} attempts act at once in {of}, {highest} may: {acting:?}",
            acting.len()
        );
    }

    pub(crate) fn look_at_the_end(&self, store: &MemoryStore) {
        let page = at_once(store.jobs(JobFilter { max: 1000, ..JobFilter::default() })).expect("memory never fails");
        assert!(!page.more, "more jobs than one page holds: raise the page");
        let there: BTreeSet<JobId> = page.jobs.iter().map(|job| job.id).collect();
        let known: BTreeSet<JobId> = self.jobs.keys().copied().collect();
        assert_eq!(there, known, "jobs were lost, or came from nowhere");
        for job in page.jobs {
            let (state, known) = (job.status.state.name(), &self.jobs[&job.id]);
            assert!(state.is_final(), "{} is {state:?}", job.id);
            assert_eq!(Some(state), known.state, "{} changed unseen", job.id);
            let kills = job.task.as_str() == KILLS;
            assert!(!kills || state != StateName::Succeeded);
            if self.only_killers && !kills {
                assert_ne!(
                    state,
                    StateName::Failed,
                    "{} was failed for what another one did: {:?}",
                    job.id,
                    job.report
                );
            }
            if let Some(number) = known.succeeded_by {
                assert_eq!(state, StateName::Succeeded);
                self.output_is_whole(AttemptId { job: job.id, number }, store);
            }
        }
        let stats = at_once(store.stats()).expect("memory never fails");
        assert!(stats.groups.is_empty(), "slots are held by nobody: {:?}", stats.groups);
    }

    /// Every chunk of the attempt that succeeded is there, in order. A call whose answer was lost may have written some twice.
    fn output_is_whole(&self, attempt: AttemptId, store: &MemoryStore) {
        let entries = at_once(store.entries(attempt.job, 0, 1000)).expect("memory never fails");
        let mut written: Vec<u32> = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.attempt == attempt.number) {
            let Entry::Chunk(bytes) = entry.entry else { continue };
            let number = u32::from_be_bytes((&*bytes).try_into().expect("four bytes"));
            if !written.contains(&number) {
                written.push(number);
            }
        }
        let emitted = self.emitted.get(&attempt).cloned().unwrap_or_default();
        assert_eq!(written, emitted, "chunks of {attempt:?} are not as they were emitted");
    }
}
