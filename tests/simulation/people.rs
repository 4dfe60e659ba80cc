//! People: they enqueue, cancel, retry, change limits and hold jobs, whatever state the world is in.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::author::Author;
use wharf_core::hold::{HoldLength, HoldReason, HoldScope, NewHold};
use wharf_core::ids::{Group, JobId, TaskName};
use wharf_core::job::{Due, NewJob};
use wharf_core::key::{Key, Lane};
use wharf_core::lifecycle::Event;
use wharf_core::limits::{Limits, OnConflict, Override};
use wharf_core::planner::Input;
use wharf_store::{HoldStore as _, Inserted, Queue as _};

use crate::faults::Fault;
use crate::ground::{Ground, Happening, at_once};
use crate::node::ForNode;
use crate::world::{NODES, World};

impl World {
    pub(crate) fn people(&mut self) {
        if self.ground.calm {
            return;
        }
        // Where nothing fails but what kills nodes, jobs that are held would only keep others from running alone.
        let kinds = if self.ground.odds.trouble { 12 } else { 10 };
        match self.ground.rng.u32(0..kinds) {
            0 => self.cancel(),
            1 => self.retry(),
            2 => self.set_limit(),
            10 => self.hold(),
            11 => self.release(),
            _ => self.enqueue(),
        }
        let next = self.ground.between(Duration::from_millis(100), Duration::from_secs(4));
        self.ground.after(next, Happening::People);
    }

    fn enqueue(&mut self) {
        let count = self.ground.rng.usize(1..6);
        let jobs: Vec<NewJob> = (0..count).map(|_| new_job(&mut self.ground, &self.tasks)).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let inserted = at_once(self.ground.store.insert(jobs, Arc::clone(&self.declared))).expect("memory never fails");
        self.ground.tell(|| format!("enqueue {ids:?}: {inserted:?}"));
        for one in &inserted {
            self.ground.checkers.inserted(one);
            if let Inserted::Added { replaced, cancel_requested, .. } = one {
                replaced.iter().for_each(|job| self.ground.checkers.changed(*job, &self.ground.store));
                cancel_requested.iter().for_each(|job| self.ask_nodes_to_cancel(*job));
            }
        }
        self.nudge();
    }

    fn cancel(&mut self) {
        let Some(job) = self.ground.checkers.any_job(&mut self.ground.rng) else { return };
        let results = at_once(self.ground.store.record(Arc::new(vec![(job, Event::CancelRequested)])))
            .expect("memory never fails");
        self.ground.tell(|| format!("cancel {job}: {results:?}"));
        self.ground.checkers.recorded(job, &Event::CancelRequested, &results[0]);
        if results[0].is_ok() {
            self.ground.faults.note(Fault::Cancel);
            self.ask_nodes_to_cancel(job);
            self.nudge();
        }
    }

    /// The host that was asked tells its own loop; others hear of it when they renew.
    fn ask_nodes_to_cancel(&mut self, job: JobId) {
        let asked = self.ground.rng.usize(0..NODES);
        let delay = self.ground.between(Duration::ZERO, Duration::from_millis(5));
        self.ground.send_to_node(&self.nodes[asked], delay, ForNode::Hear(Input::CancelRequested(job)));
    }

    fn retry(&mut self) {
        let Some(job) = self.ground.checkers.any_job(&mut self.ground.rng) else { return };
        let results = at_once(
            self.ground
                .store
                .record(Arc::new(vec![(job, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 })])),
        )
        .expect("memory never fails");
        self.ground.checkers.recorded(job, &Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }, &results[0]);
        if results[0].is_ok() {
            self.ground.faults.note(Fault::Retry);
            self.nudge();
        }
    }

    fn set_limit(&mut self) {
        let (_, group) = &self.tasks[self.ground.rng.usize(0..self.tasks.len())];
        let limits = Limits {
            per_key: self.ground.rng.bool().then(|| self.ground.rng.u32(0..4)),
            total: self.ground.rng.bool().then(|| self.ground.rng.u32(0..6)),
        };
        self.ground.faults.note(Fault::LimitChanged);
        self.ground.tell(|| format!("limits of {group}: {limits:?}"));
        at_once(self.ground.store.set_override(Override { group: group.clone(), key: None, limits }, Author::anyone()))
            .expect("memory never fails");
        self.nudge();
    }
}

/// What people hold, and perhaps release.
const SCOPES: [&str; 7] =
    ["all", "plugin:a", "task:a/two", "group:pair", "key:k1", "group:b/keyed key:k2", "group:pair key:k3"];

impl World {
    fn scope(&mut self) -> HoldScope {
        SCOPES[self.ground.rng.usize(0..SCOPES.len())].parse().expect("a scope")
    }

    fn hold(&mut self) {
        let max = Duration::from_secs(40);
        let length = (self.ground.rng.u32(0..3) > 0).then(|| self.ground.between(Duration::from_millis(1), max));
        let (scope, reason) = (self.scope(), HoldReason::default());
        let hold = NewHold { scope, length: length.map(HoldLength::For), reason, by: Author::anyone() };
        self.ground.faults.note(if length.is_some() { Fault::HeldForATime } else { Fault::Held });
        let set = at_once(self.ground.store.set_hold(hold)).expect("memory never fails");
        self.ground.tell(|| format!("hold {set:?}"));
        self.nudge();
    }

    fn release(&mut self) {
        let scope = self.scope();
        let released = at_once(self.ground.store.release_hold(scope, Author::anyone())).expect("memory never fails");
        if let Some(hold) = released {
            self.ground.faults.note(Fault::Released);
            self.ground.tell(|| format!("release {hold:?}"));
            self.nudge();
        }
    }

    /// Releases the holds that do not end by themselves. Nobody is told of those that do.
    pub(crate) fn release_all(&mut self) {
        let holds = at_once(self.ground.store.holds(None, 1000)).expect("memory never fails").holds;
        for hold in holds.into_iter().filter(|hold| hold.until.is_none()) {
            at_once(self.ground.store.release_hold(hold.scope, Author::anyone())).expect("memory never fails");
        }
    }
}

pub(crate) fn new_job(ground: &mut Ground, tasks: &[(TaskName, Group)]) -> NewJob {
    // The last of several is the one that kills.
    let harmless = tasks.len().saturating_sub(1).max(1);
    let kills = tasks.len() > 1 && ground.in_thousand(ground.odds.kills);
    let (task, group) = tasks[if kills { harmless } else { ground.rng.usize(0..harmless) }].clone();
    let key: Option<Key> =
        (ground.rng.u32(0..5) > 0).then(|| format!("k{}", ground.rng.u32(0..4)).parse().expect("a key"));
    let delay = (ground.rng.u32(0..5) == 0).then(|| ground.between(Duration::ZERO, Duration::from_secs(20)));
    NewJob {
        id: ground.store.next_id().unwrap(),
        task,
        lane: Lane { group, key },
        payload: b"{}".into(),
        priority: ground.rng.i32(0..3),
        due: delay.map(Due::In),
        token: None,
        on_conflict: match ground.rng.u32(0..12) {
            0 => OnConflict::Discard,
            1 => OnConflict::ReplaceWaiting,
            2 => OnConflict::CancelRunning,
            _ => OnConflict::Wait,
        },
        batch: None,
        lineage: Default::default(),
        tick: None,
    }
}
