//! Bulk operations on hosts that die between any two of their calls: exactly the jobs of the preview are changed, once each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use wharf_core::author::Author;
use wharf_core::bulk::{BulkAct, BulkOperation, NewOperation, NextStep, OperationState, OperationStep, Trial};
use wharf_core::find::{AsOf, JobCursor, JobQuery};
use wharf_core::hold::{HoldReason, HoldScope, NewHold};
use wharf_core::ids::{JobId, TaskName};
use wharf_core::job::{Due, NewJob, StateName};
use wharf_core::lifecycle::Event;
use wharf_core::outcome::{OutcomeKind, Report, Usage};
use wharf_store::{
    FindPage, FindRequest, HoldStore as _, JobFinder as _, MemoryStore, OperationStore as _, Queue as _,
};

use crate::ground::{Hands, at_once, claim_of};

const SEEDS: u64 = 300;
const HOSTS: usize = 3;
const JOBS: usize = 60;
/// Few, so that an operation takes many steps.
const STEP_JOBS: u32 = 7;
const LEASE: Duration = Duration::from_secs(60);
const KEYS: [&str; 3] = ["a", "b", "c"];

/// What a host is about to do: each call of the store is one turn, and the host may die after each.
#[derive(Clone)]
enum Doing {
    Looking,
    Finding(BulkOperation),
    Taking(OperationStep),
}

struct World {
    rng: Rng,
    hands: Arc<Hands>,
    store: MemoryStore,
    task: TaskName,
    hosts: [Doing; HOSTS],
    operation: JobId,
    /// How often the operation changed each job.
    changed: BTreeMap<JobId, u32>,
    /// The jobs that somebody else changed since the beginning, before the operation did.
    touched: BTreeSet<JobId>,
    deaths: u32,
    /// The attempts that run.
    running: Vec<(JobId, u32)>,
}

impl World {
    fn new(seed: u64) -> World {
        let hands = Arc::new(Hands(AtomicU64::new(1_000_000_000)));
        World {
            rng: Rng::with_seed(seed),
            store: MemoryStore::open(hands.clone()),
            hands,
            task: "sim/do".parse().expect("a task"),
            hosts: [const { Doing::Looking }; HOSTS],
            operation: JobId::from_number(1).expect("an id"),
            changed: BTreeMap::new(),
            touched: BTreeSet::new(),
            deaths: 0,
            running: Vec::new(),
        }
    }

    fn pass(&mut self, micros: u64) {
        self.hands.0.fetch_add(micros, Ordering::SeqCst);
    }

    fn enqueue(&mut self, count: usize) {
        let jobs = (0..count).map(|number| {
            let key = KEYS[number % KEYS.len()].parse().expect("a key");
            let due = (number % 5 == 4).then_some(Due::In(LEASE));
            let id = self.store.next_id().expect("an id");
            NewJob { due, ..NewJob::ready(id, self.task.clone(), Some(key), [].into()) }
        });
        at_once(self.store.insert(jobs.collect(), Arc::default())).expect("memory never fails");
    }

    /// Runs some jobs, of which most fail.
    fn work(&mut self, max: u32) {
        self.claim(max);
        while !self.running.is_empty() {
            self.end_one();
        }
    }

    /// Starts some jobs.
    fn claim(&mut self, max: u32) {
        let claimed = at_once(self.store.claim(claim_of(&self.task, max, LEASE))).expect("memory never fails");
        for leased in claimed.leased {
            let (job, attempt) = (leased.lease.job, leased.lease.attempt);
            self.running.push((job, attempt));
            self.touch(job);
        }
    }

    /// Ends an attempt that runs: mostly it fails, and of the failures some are tried again.
    fn end_one(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let (job, attempt) = self.running.swap_remove(self.rng.usize(..self.running.len()));
        let usage = Usage::default();
        let event = if self.rng.u32(..4) == 0 {
            Event::Succeeded { attempt, output: [].into(), children: vec![], changes: None, usage }
        } else {
            let report = Report { kind: OutcomeKind::Trapped, text: "unreachable".to_owned() };
            let retry_in = (self.rng.u32(..3) == 0).then_some(LEASE);
            Event::Failed { attempt, report, retry_in, usage, origin: None }
        };
        self.record(job, event);
    }

    /// Holds one of the keys, or releases it.
    fn hold(&mut self) {
        let key = KEYS[self.rng.usize(..KEYS.len())].parse().expect("a key");
        let scope = HoldScope::Key { group: None, key };
        if self.rng.bool() {
            let hold = NewHold { scope, length: None, reason: HoldReason::default(), by: Author::anyone() };
            at_once(self.store.set_hold(hold)).expect("memory never fails");
        } else {
            at_once(self.store.release_hold(scope, Author::anyone())).expect("memory never fails");
        }
    }

    fn record(&mut self, job: JobId, event: Event) {
        let results = at_once(self.store.record(Arc::new(vec![(job, event)]))).expect("memory never fails");
        if results[0].is_ok() {
            self.touch(job);
        }
    }

    fn touch(&mut self, job: JobId) {
        if !self.changed.contains_key(&job) {
            self.touched.insert(job);
        }
    }

    fn find(&self, query: JobQuery, as_of: Option<AsOf>, after: Option<JobId>, max: u32) -> FindPage {
        let after = after.map(|id| JobCursor { id, finished_at: None });
        let find = FindRequest { as_of, after, ..FindRequest::new(Arc::new(query), Arc::default(), max) };
        at_once(self.store.find(find)).expect("memory never fails")
    }

    fn preview(&self, query: &JobQuery) -> BTreeSet<JobId> {
        let (mut all, mut after) = (BTreeSet::new(), None);
        loop {
            let page = self.find(query.clone(), None, after, 1000);
            all.extend(page.jobs.iter().map(|job| job.id));
            after = page.next.map(|next| next.id);
            if after.is_none() {
                return all;
            }
        }
    }

    /// One call of a host.
    fn turn(&mut self, host: usize) {
        self.hosts[host] = match self.hosts[host].clone() {
            Doing::Looking => match at_once(self.store.open_operations()).expect("memory never fails").pop() {
                Some(operation) => Doing::Finding(operation),
                None => Doing::Looking,
            },
            Doing::Finding(operation) => self.decide(&operation).map_or(Doing::Looking, Doing::Taking),
            Doing::Taking(step) => {
                let taken = at_once(self.store.take_operation_step(step)).expect("memory never fails");
                for job in taken.into_iter().flat_map(|taken| taken.changed) {
                    *self.changed.entry(job).or_default() += 1;
                }
                Doing::Looking
            }
        };
        if self.rng.u32(..5) == 0 {
            // It dies: what it knew is gone. Another takes its place.
            self.hosts[host] = Doing::Looking;
            self.deaths += 1;
        }
    }

    fn decide(&self, operation: &BulkOperation) -> Option<OperationStep> {
        let state = |job: &JobId| {
            let found = at_once(self.store.job_summary(*job)).expect("memory never fails");
            found.map(|job| job.status.state.name())
        };
        let tried: Vec<Option<StateName>> = operation.tried.iter().map(state).collect();
        match operation.next(&tried, STEP_JOBS, self.store.now()) {
            NextStep::Nothing | NextStep::Await => None,
            NextStep::GoOn => Some(operation.step_to(OperationState::Running, None)),
            NextStep::Halt(reason) => Some(operation.step_to(OperationState::Halted, Some(reason))),
            NextStep::Change { max } => {
                let query = operation.query().expect("it was written by this version");
                let page = self.find(query, Some(operation.as_of()), operation.cursor, max);
                Some(operation.step_on(&page.jobs, page.moved_on, page.next.map(|next| next.id)))
            }
        }
    }

    fn play(&mut self) -> OperationState {
        self.enqueue(JOBS);
        while self.preview(&JobQuery::parse("state:waiting", self.store.now()).expect("a query")).len() > JOBS / 6 {
            self.work(9);
            self.pass(LEASE.as_micros() as u64 / 10);
        }
        self.enqueue(9);
        let acts = [
            (BulkAct::Retry, "state:failed"),
            (BulkAct::Cancel, "state:waiting"),
            (BulkAct::Delete, "state:failed,succeeded"),
            (BulkAct::SetPriority, "state:waiting"),
            (BulkAct::Cancel, "state:held"),
            (BulkAct::Cancel, "state:ready"),
            (BulkAct::RunNow, "state:delayed,retrying"),
            (BulkAct::Cancel, "state:retrying,held"),
            (BulkAct::Cancel, "state:running"),
            (BulkAct::Cancel, "state:waiting,running"),
        ];
        (0..3).for_each(|_| self.hold());
        self.claim(4);
        let (act, filter) = acts[self.rng.usize(..acts.len())];
        let query = JobQuery::parse(filter, self.store.now()).expect("a query");
        let trial = (act == BulkAct::Retry && self.rng.bool()).then_some(Trial { jobs: 2, within: LEASE });
        let new = NewOperation {
            id: self.store.next_id().expect("an id"),
            act,
            query: query.clone(),
            author: Author::anyone(),
            token: None,
            trial,
            spread: Duration::ZERO,
            attempts: 1,
            priority: 3,
        };
        let preview = self.preview(&query);
        let started = at_once(self.store.start_operation(new, Arc::default()))
            .expect("memory never fails")
            .expect("none is open");
        self.operation = started.id;
        self.touched.clear();
        // What happens from here on happens later than the beginning.
        self.pass(1);
        let ended = loop {
            match self.rng.u32(..13) {
                0 => self.claim(3),
                1 => self.enqueue(2),
                10 => self.end_one(),
                11 => self.hold(),
                // Those that wait for their next attempt are due.
                12 => self.pass(LEASE.as_micros() as u64 / 3),
                2 if !preview.is_empty() => {
                    let job = *preview.iter().nth(self.rng.usize(..preview.len())).expect("one of them");
                    let retry = Event::RetryRequested { delay: Duration::ZERO, attempts: 1 };
                    let event = if self.rng.bool() { retry } else { Event::CancelRequested };
                    self.record(job, event);
                }
                3 => self.pass(1),
                _ => {
                    let host = self.rng.usize(..HOSTS);
                    self.turn(host);
                }
            }
            let operation = at_once(self.store.operation(self.operation)).expect("memory never fails").expect("kept");
            if operation.state.is_final() {
                break operation;
            }
            if operation.state == OperationState::Trying && !operation.tried.is_empty() {
                self.work(5);
            }
        };
        // Whoever comes late with a step changes nothing.
        let before = self.changed.clone();
        (0..HOSTS).for_each(|host| self.turn(host));
        assert_eq!(self.changed, before, "a step was taken after the end");

        assert!(self.changed.values().all(|times| *times == 1), "a job was changed twice: {:?}", self.changed);
        let changed: BTreeSet<JobId> = self.changed.keys().copied().collect();
        assert!(changed.is_subset(&preview), "these were not previewed: {:?}", changed.difference(&preview));
        assert_eq!(ended.changed, changed.len() as u64);
        if ended.state == OperationState::Done {
            let missed: BTreeSet<JobId> = preview.difference(&changed).copied().collect();
            assert!(missed.is_subset(&self.touched), "nobody touched these: {:?}", missed.difference(&self.touched));
        } else {
            assert_eq!(changed.len(), ended.tried.len(), "a trial that fails changes no job more");
            assert!(changed.len() <= 2, "more than the trial");
        }
        ended.state
    }
}

#[test]
fn exactly_the_previewed_jobs_are_changed_once_whichever_hosts_die() {
    let (mut deaths, mut done, mut halted) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.play())) {
            Ok(OperationState::Done) => done += 1,
            Ok(_) => halted += 1,
            Err(panic) => {
                eprintln!("seed {seed} failed; SEED plays histories of another test: run this one again");
                std::panic::resume_unwind(panic);
            }
        }
        deaths += world.deaths;
    }
    println!("{SEEDS} operations: {done} done, {halted} halted, {deaths} deaths");
    assert!(done > 50 && halted > 10 && deaths > 500, "{done} done, {halted} halted, {deaths} deaths");
}
