//! Bulk operations: one act on all jobs that met a query when the operation began, each at most once.
//!
//! An operation goes through the jobs from the newest back, a chunk at a time. Each chunk is one transaction, which changes its
//! jobs and moves the operation's cursor behind them: whoever goes on after a crash begins with the jobs that are not yet behind
//! the cursor, and two that go on at once exclude each other by the operation's step.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::author::Author;
use crate::bounds;
use crate::find::{AsOf, JobQuery, QueryError, StateFilter, WaitKind};
use crate::ids::{JobId, ParseIdError};
use crate::job::{Job, StateName, Token};
use crate::lifecycle::Event;
use crate::time::Timestamp;

/// An act of a bulk operation: a change to each of its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkAct {
    /// Tries failed and cancelled jobs again.
    Retry,
    /// Cancels waiting jobs, and asks running ones to end.
    Cancel,
    /// Deletes finished jobs.
    Delete,
    /// Makes waiting jobs that are not due start as soon as they can.
    RunNow,
    /// Gives waiting jobs another priority.
    SetPriority,
}

impl BulkAct {
    /// All acts.
    pub const ALL: [BulkAct; 5] =
        [BulkAct::Retry, BulkAct::Cancel, BulkAct::Delete, BulkAct::RunNow, BulkAct::SetPriority];

    /// Returns the name used in rows and JSON. A name never changes once it is released.
    pub const fn as_str(self) -> &'static str {
        match self {
            BulkAct::Retry => "retry",
            BulkAct::Cancel => "cancel",
            BulkAct::Delete => "delete",
            BulkAct::RunNow => "run-now",
            BulkAct::SetPriority => "set-priority",
        }
    }

    /// Returns the states of the jobs that it changes.
    pub fn states(self) -> Vec<StateFilter> {
        let states = |states: &[StateName]| states.iter().copied().map(StateFilter::State).collect();
        match self {
            BulkAct::Retry => states(&[StateName::Failed, StateName::Cancelled]),
            BulkAct::Cancel => states(&[StateName::Waiting, StateName::Running]),
            BulkAct::Delete => states(&[StateName::Succeeded, StateName::Failed, StateName::Cancelled]),
            BulkAct::SetPriority => states(&[StateName::Waiting]),
            BulkAct::RunNow => [WaitKind::Delayed, WaitKind::Retrying].map(StateFilter::Waiting).into(),
        }
    }
}

impl FromStr for BulkAct {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<BulkAct, ParseIdError> {
        let expected = "expected `retry`, `cancel`, `delete`, `run-now` or `set-priority`";
        Self::ALL.into_iter().find(|act| act.as_str() == text).ok_or_else(|| ParseIdError::new("act", text, expected))
    }
}

/// The state of an operation. The last three are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// It changes the first jobs, or waits for their ends.
    Trying,
    /// It changes jobs.
    Running,
    /// It stands still: one of its first jobs did not succeed, or its next step failed each time.
    Halted,
    /// It has gone through all jobs.
    Done,
    /// An operator stopped it.
    Cancelled,
}

impl OperationState {
    /// All states.
    pub const ALL: [OperationState; 5] = [
        OperationState::Trying,
        OperationState::Running,
        OperationState::Halted,
        OperationState::Done,
        OperationState::Cancelled,
    ];

    /// Returns the name used in rows and JSON. A name never changes once it is released.
    pub const fn as_str(self) -> &'static str {
        match self {
            OperationState::Trying => "trying",
            OperationState::Running => "running",
            OperationState::Halted => "halted",
            OperationState::Done => "done",
            OperationState::Cancelled => "cancelled",
        }
    }

    /// Returns true if the operation changes no more jobs.
    pub const fn is_final(self) -> bool {
        matches!(self, OperationState::Halted | OperationState::Done | OperationState::Cancelled)
    }
}

impl FromStr for OperationState {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<OperationState, ParseIdError> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| ParseIdError::new("state of an operation", text, "expected a known one"))
    }
}

/// A trial: an operation goes on only when its first jobs have succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Number of jobs to try first.
    pub jobs: u32,
    /// Time within which all of them must succeed, from when they were changed.
    pub within: Duration,
}

/// A bulk operation that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOperation {
    /// The operation's ID. It is made like a job's ID and is never the ID of a job.
    pub id: JobId,
    /// The act.
    pub act: BulkAct,
    /// The jobs to do it with.
    pub query: JobQuery,
    /// The operator.
    pub author: Author,
    /// An operation that this operator started with the same token is returned in place of another one.
    pub token: Option<Token>,
    /// Jobs to try first; only of [`BulkAct::Retry`].
    pub trial: Option<Trial>,
    /// Time over which the jobs' next attempts are spread; only of [`BulkAct::Retry`].
    pub spread: Duration,
    /// Number of attempts that each job gets; only of [`BulkAct::Retry`].
    pub attempts: u32,
    /// The priority that jobs get; only of [`BulkAct::SetPriority`].
    pub priority: i32,
}

impl NewOperation {
    /// Returns an operation on all of its jobs at once, without a trial or a token; a retried job gets one attempt, and any priority is 0.
    #[must_use]
    pub fn at_once(id: JobId, act: BulkAct, query: JobQuery, author: Author) -> NewOperation {
        let (spread, attempts, priority) = (Duration::ZERO, 1, 0);
        NewOperation { id, act, query, author, token: None, trial: None, spread, attempts, priority }
    }

    /// Returns true if a known operation came of this request, which was sent twice: its author and its token are the same. Its act and
    /// its filter are not compared, as those of jobs with one token are not.
    pub fn has_become(&self, known: &BulkOperation) -> bool {
        self.token.is_some() && self.token == known.token && self.author.name() == known.author.as_deref()
    }

    /// Returns true if it may begin beside the operations that have not ended.
    pub fn has_room(&self, open: &[BulkOperation]) -> bool {
        let asks_why = |one: &&BulkOperation| one.query().is_ok_and(|query| query.needs_wait_view());
        let has_room_for_holds =
            || open.iter().filter(asks_why).count() < bounds::OPERATIONS_OPEN_WITH_HOLDS_MAX as usize;
        open.len() < bounds::OPERATIONS_OPEN_MAX as usize && (!self.query.needs_wait_view() || has_room_for_holds())
    }

    /// Returns the operation as it begins at `now`.
    pub fn started_at(&self, now: Timestamp) -> BulkOperation {
        BulkOperation {
            id: self.id,
            act: self.act,
            filter: self.query.to_string(),
            author: self.author.name().map(str::to_owned),
            token: self.token.clone(),
            created_at: now,
            ended_at: None,
            state: if self.trial.is_some() { OperationState::Trying } else { OperationState::Running },
            cursor: None,
            step: 0,
            trial: self.trial,
            tried: Vec::new(),
            tried_at: None,
            spread: self.spread,
            attempts: self.attempts,
            priority: self.priority,
            changed: 0,
            skipped: 0,
            reason: None,
        }
    }
}

/// A bulk operation, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkOperation {
    /// The operation's ID.
    pub id: JobId,
    /// The act.
    pub act: BulkAct,
    /// The text of its query.
    pub filter: String,
    /// The name of the operator's token, if the host knew it.
    pub author: Option<String>,
    /// The idempotency token of its request.
    pub token: Option<Token>,
    /// When it began, by the store's clock: it is about the jobs that met the query then.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The state.
    pub state: OperationState,
    /// The last job that it has gone past; it goes on with lower IDs.
    pub cursor: Option<JobId>,
    /// Number of steps that were taken.
    pub step: u64,
    /// Its trial.
    pub trial: Option<Trial>,
    /// The jobs that its trial changed.
    pub tried: Vec<JobId>,
    /// When the trial changed its last job.
    pub tried_at: Option<Timestamp>,
    /// Time over which the jobs' next attempts are spread.
    pub spread: Duration,
    /// Number of attempts that each retried job gets.
    pub attempts: u32,
    /// The priority that jobs get.
    pub priority: i32,
    /// Number of jobs that it changed.
    pub changed: u64,
    /// Number of jobs that it left out since they had moved on when it came to them: they started, ended or came back to wait after it
    /// began. Only jobs that are in one of the query's states by then, and may have met the query when it began, are counted.
    pub skipped: u64,
    /// Why it was halted; of an operation that has not ended, what it waits for.
    pub reason: Option<String>,
}

/// The number of a job that no job's ID is below: the cursor of an operation that has gone past all jobs.
const BEHIND_ALL: u64 = 1;

/// A job that an operation is about to change, as it was when it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkTarget {
    /// The job.
    pub id: JobId,
    /// Its state.
    pub state: StateName,
    /// The number of its last attempt.
    pub attempt: u32,
    /// When it finished.
    pub finished_at: Option<Timestamp>,
    /// When an operator last retried it.
    pub retried_at: Option<Timestamp>,
    /// The delay before its next attempt.
    pub delay: Duration,
}

impl BulkTarget {
    /// Returns true if a job is still as it was found.
    pub fn is_still(
        &self,
        (state, attempt): (StateName, u32),
        finished_at: Option<Timestamp>,
        retried_at: Option<Timestamp>,
    ) -> bool {
        let found = (self.state, self.attempt, self.finished_at, self.retried_at);
        found == (state, attempt, finished_at, retried_at)
    }
}

/// One step of an operation: what a store commits together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationStep {
    /// The operation.
    pub operation: JobId,
    /// The number of steps that were taken when this one was decided. If another was taken since, nothing happens.
    pub step: u64,
    /// The jobs to change.
    pub targets: Vec<BulkTarget>,
    /// Number of jobs that were looked at and are left out, since they have moved on after the operation began.
    pub left_out: u64,
    /// The place behind all jobs that were looked at.
    pub cursor: Option<JobId>,
    /// The state that the operation has afterwards.
    pub state: OperationState,
    /// Why it is halted, or what it waits for.
    pub reason: Option<String>,
}

impl OperationStep {
    /// Leaves the targets out from this one on, which is not the first: a later step goes on with them, and counts the jobs again that
    /// moved on among them. So many did before the last target that stays. `state` is the state of the operation, which this step does
    /// not end any more.
    pub fn cut(&mut self, from: usize, moved_on: u64, state: OperationState) {
        self.targets.truncate(from);
        self.left_out = moved_on;
        self.cursor = self.targets.last().map(|target| target.id);
        self.state = state;
    }
}

/// The next thing that an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// It looks for at most this many jobs and changes them.
    Change {
        /// Maximum number of jobs.
        max: u32,
    },
    /// It waits for the jobs of its trial.
    Await,
    /// It goes on: its trial has succeeded.
    GoOn,
    /// It halts.
    Halt(String),
    /// It has ended.
    Nothing,
}

impl BulkOperation {
    /// Returns the query of the operation.
    ///
    /// # Errors
    /// If the text of its filter is not one that this version reads.
    pub fn query(&self) -> Result<JobQuery, QueryError> {
        JobQuery::parse(&self.filter, self.created_at)
    }

    /// Returns the moment of the operation's beginning: its jobs are those that met its query then.
    pub const fn as_of(&self) -> AsOf {
        AsOf { operation: self.id, at: self.created_at }
    }

    /// Returns the event that changes a job; `None` if the job is deleted.
    pub fn event(&self, target: &BulkTarget) -> Option<Event> {
        match self.act {
            BulkAct::Retry => Some(Event::RetryRequested { delay: target.delay, attempts: self.attempts }),
            BulkAct::Cancel => Some(Event::CancelRequested),
            BulkAct::Delete => None,
            BulkAct::RunNow => Some(Event::RunRequested),
            BulkAct::SetPriority => Some(Event::PriorityChanged { priority: self.priority }),
        }
    }

    /// Returns the act with its number, for people.
    pub fn act_text(&self) -> String {
        match self.act {
            BulkAct::SetPriority => format!("{} {}", self.act, self.priority),
            BulkAct::Retry if self.attempts > 1 => format!("{} with {} attempts", self.act, self.attempts),
            _ => self.act.to_string(),
        }
    }

    /// Returns the step that changes these jobs, which met the query when the operation began, and leaves so many others out. `next` is
    /// the place behind all that was looked at; `None` if there are no more jobs.
    pub fn step_on(&self, jobs: &[Job], left_out: u64, next: Option<JobId>) -> OperationStep {
        let targets: Vec<BulkTarget> = jobs.iter().map(|job| self.target(job)).collect();
        // A trial whose jobs are all that there are has yet to succeed.
        let is_tried = self.state == OperationState::Trying && !(self.tried.is_empty() && targets.is_empty());
        let (cursor, state) = match next {
            Some(next) => (Some(next), self.state),
            None if is_tried => (JobId::from_number(BEHIND_ALL), self.state),
            None => (None, OperationState::Done),
        };
        OperationStep { operation: self.id, step: self.step, targets, left_out, cursor, state, reason: None }
    }

    /// Returns a step that changes no job: the operation goes into `state`.
    pub fn step_to(&self, state: OperationState, reason: Option<String>) -> OperationStep {
        let (operation, step) = (self.id, self.step);
        OperationStep { operation, step, targets: Vec::new(), left_out: 0, cursor: None, state, reason }
    }

    /// Returns a job as the operation is about to change it.
    pub fn target(&self, job: &Job) -> BulkTarget {
        BulkTarget {
            id: job.id,
            state: job.status.state.name(),
            attempt: job.status.attempt,
            finished_at: job.finished_at,
            retried_at: job.retried_at,
            // The jobs of a trial start at once: the others wait for their ends.
            delay: if self.state == OperationState::Trying { Duration::ZERO } else { self.delay(job.id) },
        }
    }

    /// Returns the delay of a job's next attempt: one part of the spread, the same for a job whoever asks.
    fn delay(&self, id: JobId) -> Duration {
        let micros = u64::try_from(self.spread.as_micros()).unwrap_or(u64::MAX);
        // The finaliser of SplitMix64: neighbouring IDs come to lie far apart.
        let mut hash = id.number() ^ self.id.number().rotate_left(32);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        if micros == 0 { Duration::ZERO } else { Duration::from_micros(hash % micros) }
    }

    /// Returns what the operation does next. `tried` are the states of the jobs of its trial, in their order; `None` stands for one
    /// that was deleted. `max` is how many jobs one step changes at most.
    pub fn next(&self, tried: &[Option<StateName>], max: u32, now: Timestamp) -> NextStep {
        let trial = match (self.state, self.trial) {
            (state, _) if state.is_final() => return NextStep::Nothing,
            (OperationState::Trying, Some(trial)) => trial,
            _ => return NextStep::Change { max },
        };
        let missing = trial.jobs.saturating_sub(self.tried.len() as u32);
        let is_through = self.cursor.is_some_and(|cursor| cursor.number() <= BEHIND_ALL);
        if missing > 0 && !is_through {
            return NextStep::Change { max: missing.min(max) };
        }
        let jobs = || self.tried.iter().zip(tried);
        let name = |state: &Option<StateName>| state.map_or("was deleted", StateName::as_str);
        let is_bad =
            |state: &Option<StateName>| state.is_none_or(|state| state.is_final() && state != StateName::Succeeded);
        let bad: Vec<String> =
            jobs().filter(|(_, state)| is_bad(state)).map(|(id, state)| format!("{id} ({})", name(state))).collect();
        if !bad.is_empty() {
            return NextStep::Halt(format!(
                "of the jobs that were tried first, these did not succeed: {}",
                bad.join(", ")
            ));
        }
        let open: Vec<String> = jobs()
            .filter(|(_, state)| **state != Some(StateName::Succeeded))
            .map(|(id, state)| format!("{id} ({})", name(state)))
            .collect();
        if open.is_empty() {
            return NextStep::GoOn;
        }
        let until = self.tried_at.unwrap_or(self.created_at) + trial.within;
        if now < until {
            return NextStep::Await;
        }
        NextStep::Halt(format!("of the jobs that were tried first, these had not ended in time: {}", open.join(", ")))
    }

    /// Returns the operation after a step that changed these jobs; `None` if the step is not the next one.
    pub fn after(&self, step: &OperationStep, changed: &[JobId], now: Timestamp) -> Option<BulkOperation> {
        if step.step != self.step || self.state.is_final() {
            return None;
        }
        let mut after = self.clone();
        after.step += 1;
        after.cursor = step.cursor.or(self.cursor);
        after.changed += changed.len() as u64;
        after.skipped += (step.targets.len() - changed.len()) as u64 + step.left_out;
        if self.state == OperationState::Trying && !changed.is_empty() {
            after.tried.extend(changed);
            after.tried_at = Some(now);
        }
        after.state = step.state;
        after.reason.clone_from(&step.reason);
        after.ended_at = after.state.is_final().then_some(now);
        Some(after)
    }

    /// Returns the operation as an operator stops it; `None` if it has ended.
    pub fn cancelled(&self, now: Timestamp) -> Option<BulkOperation> {
        let cancelled = || BulkOperation {
            state: OperationState::Cancelled,
            step: self.step + 1,
            ended_at: Some(now),
            ..self.clone()
        };
        (!self.state.is_final()).then(cancelled)
    }
}

impl fmt::Display for BulkAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests;
