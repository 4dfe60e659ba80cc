//! Schedules: jobs that are enqueued at the moments of a clock.
//!
//! A tick is one moment of a schedule. Whoever fires a schedule sets its next moment and inserts the jobs of its ticks in one
//! transaction, which happens only if nobody changed the schedule since it was read: so each tick has one job or none. Cron
//! expressions and time zones are not known here: callers pass the next moments in.

mod ticks;
mod firing;
mod sync;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::bounds;
use crate::find::{JsonPath, format_moment};
use crate::fingerprint;
use crate::ids::{JobId, ParseIdError, ScheduleId, TaskName};
use crate::job::Token;
use crate::key::Key;
use crate::shared_bytes::SharedBytes;
use crate::time::{Timestamp, length_text};

pub use firing::{FireRun, Fired, FiringTick, ScheduleFiring, Skip, TickInserted, TickStep};
pub use sync::{FileSchedules, StoredSchedule, SyncAct, sync};
pub use ticks::{DueTicks, due_ticks, is_told, offset};

/// The beginning of the tokens of jobs that schedules enqueue. No other job may have such a token.
pub const TOKEN_PREFIX: &str = "schedule:";

/// When a schedule ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timing {
    /// At the moments of a cron expression.
    Cron {
        /// The expression: minute, hour, day of month, month, day of week.
        expression: String,
        /// The name of its time zone.
        zone: String,
    },
    /// At the multiples of an interval since 1970, so that no restart of a host moves them.
    Every(Duration),
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Timing::Cron { expression, zone } => write!(f, "{expression} {zone}"),
            Timing::Every(interval) => write!(f, "every {}", length_text(*interval)),
        }
    }
}

impl Timing {
    /// Returns the first multiple of an interval after a moment.
    pub fn next_of_interval(interval: Duration, after: Timestamp) -> Option<Timestamp> {
        let micros = u64::try_from(interval.as_micros()).ok().filter(|micros| *micros > 0)?;
        (after.as_micros() / micros).checked_add(1)?.checked_mul(micros).map(Timestamp::from_micros)
    }
}

/// Declares a closed set of policies with their names, which never change once they are released.
macro_rules! policies {
    ($(#[$doc:meta])* $type:ident $kind:literal { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $type {
            /// All values.
            pub const ALL: &[$type] = &[$($type::$variant,)+];

            /// Returns the name used in rows, settings and JSON. A name never changes once it is released.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)+
                }
            }
        }

        impl FromStr for $type {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<$type, ParseIdError> {
                let names: Vec<&str> = Self::ALL.iter().map(|one| one.as_str()).collect();
                let unknown = || ParseIdError::new($kind, text, format!("expected one of {}", names.join(", ")));
                Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or_else(unknown)
            }
        }
    };
}

policies! {
    /// The policy for ticks that were not fired within `bounds::SCHEDULE_GRACE`.
    MissedPolicy "policy for missed ticks" {
        /// The newest one within the window is fired.
        #[default]
        Latest = "latest",
        /// None is fired.
        None = "none",
        /// Those within the window are fired, the newest `bounds::SCHEDULE_CATCH_UP_MAX` of them.
        All = "all",
    }
}

policies! {
    /// The policy for a tick that comes while jobs of earlier ticks have not finished.
    OverlapPolicy "policy for overlaps" {
        /// Its job is enqueued; limits hold as for any job.
        #[default]
        Allow = "allow",
        /// The tick is skipped.
        Skip = "skip",
        /// Its job is enqueued once those that have begun have ended, in place of one that has not begun.
        QueueOne = "queue-one",
        /// Those that wait are cancelled, and those that run are asked to end; its job is enqueued once they have ended.
        Replace = "replace",
    }
}

policies! {
    /// The place where a schedule was defined.
    ScheduleSource "source of a schedule" {
        /// Through the API.
        #[default]
        Api = "api",
        /// In the settings file of a host.
        File = "file",
    }
}

policies! {
    /// The outcome of a tick.
    TickOutcome "outcome of a tick" {
        /// Its job was enqueued.
        #[default]
        Fired = "fired",
        /// No host fired it in time.
        Missed = "missed",
        /// No host had its task in time.
        NoHost = "no-host",
        /// Its job was not enqueued, since an earlier one had not finished.
        Overlap = "overlap",
        /// Its job was not enqueued, since an earlier one waits for a hold.
        Held = "held",
        /// Its job was not enqueued, since its lane is full and its task discards jobs in that case.
        LaneFull = "lane-full",
        /// Its job was enqueued before, such as when the clock was ahead.
        Duplicate = "duplicate",
        /// Its job was refused, such as for its payload.
        Refused = "refused",
        /// Its job was not enqueued, since its schedule paused by itself at that moment.
        Paused = "paused",
    }
}

/// The part of a schedule that its author wrote: its jobs, and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleSpec {
    /// The task of its jobs.
    pub task: TaskName,
    /// The payload of its jobs.
    pub payload: SharedBytes,
    /// The key of its jobs; `None` if the task finds it in the payload.
    pub key: Option<Key>,
    /// The priority of its jobs.
    pub priority: i32,
    /// When it ticks.
    pub timing: Timing,
    /// The policy for missed ticks.
    pub missed: MissedPolicy,
    /// The age up to which missed ticks are fired.
    pub window: Duration,
    /// The policy for jobs of earlier ticks.
    pub overlap: OverlapPolicy,
    /// All ticks come later by a part of this time that depends on the schedule's ID, and never changes.
    pub spread: Duration,
    /// Number of jobs in a row that fail until the schedule pauses.
    pub pause_after: Option<u32>,
    /// The place in the payload where each job finds its tick.
    pub tick_as: Option<JsonPath>,
}

impl ScheduleSpec {
    /// Returns a hash of the specification. Hosts compare with it what stands in their files.
    pub fn digest(&self) -> u64 {
        let ScheduleSpec {
            task,
            key,
            priority,
            timing,
            missed,
            window,
            overlap,
            spread,
            pause_after,
            tick_as,
            payload,
        } = self;
        let tick_as = tick_as.as_ref().map(ToString::to_string);
        let (missed, overlap) = (missed.as_str(), overlap.as_str());
        let text = format!(
            "{task:?} {key:?} {priority} {timing:?} {missed} {window:?} {overlap} {spread:?} {pause_after:?} {tick_as:?} {:?}",
            &payload[..]
        );
        fingerprint::hash(&text)
    }
}

/// A schedule's pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When the pause was set.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    /// The name of its author; `None` if the host asked for no token.
    pub by: Option<String>,
    /// The reason; may be empty.
    pub reason: String,
}

impl Pause {
    /// Returns true if the pause has not ended by itself.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

/// A tick, as its schedule remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickRecord {
    /// The tick; the newest of several that became the same.
    pub tick: Timestamp,
    /// Number of ticks: more than one if several were missed.
    pub count: u64,
    /// The outcome.
    pub outcome: TickOutcome,
    /// Its job, or the one that was in its way.
    pub job: Option<JobId>,
    /// The rest in words; may be empty.
    pub reason: String,
}

/// A schedule, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The schedule's ID.
    pub id: ScheduleId,
    /// The part that its author wrote.
    pub spec: ScheduleSpec,
    /// The place where it was defined.
    pub source: ScheduleSource,
    /// When the file was written that it was read from; zero for one of the API.
    pub revision: Timestamp,
    /// It grows with every change of the row: who decides on a row says which one it was. The first version is the moment at which
    /// the row was made, so that a row that was removed and made anew has no version of the old one.
    pub version: u64,
    /// The name of the author of the last definition.
    pub author: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its definition changed last.
    pub changed_at: Timestamp,
    /// When `next_at` was worked out, by the store's clock.
    pub moved_at: Timestamp,
    /// The moment of the next tick, with the spread; `None` while it is paused without an end, or retired.
    pub next_at: Option<Timestamp>,
    /// The last tick that was fired.
    pub last_tick: Option<Timestamp>,
    /// The newest of its jobs that had not finished when it was fired last.
    pub open: Vec<JobId>,
    /// Number of its jobs that have failed in a row.
    pub failures: u32,
    /// Its pause, in force or not.
    pub pause: Option<Pause>,
    /// When it was retired: it stands in no file any more.
    pub retired_at: Option<Timestamp>,
    /// Number of ticks whose jobs were enqueued.
    pub fired: u64,
    /// Number of ticks that no host fired.
    pub missed: u64,
    /// Number of ticks whose jobs were not enqueued, for any other reason.
    pub skipped: u64,
    /// Its last ticks, oldest first.
    pub recent: Vec<TickRecord>,
}

impl Schedule {
    /// Returns a new schedule.
    pub fn new(id: ScheduleId, spec: ScheduleSpec, now: Timestamp) -> Schedule {
        Schedule {
            id,
            spec,
            source: ScheduleSource::Api,
            revision: Timestamp::ZERO,
            version: now.as_micros(),
            author: None,
            created_at: now,
            changed_at: now,
            moved_at: now,
            next_at: None,
            last_tick: None,
            open: Vec::new(),
            failures: 0,
            pause: None,
            retired_at: None,
            fired: 0,
            missed: 0,
            skipped: 0,
            recent: Vec::new(),
        }
    }

    /// Returns the distance from a nominal tick to its moment.
    pub fn offset(&self) -> Duration {
        offset(&self.id, self.spec.spread)
    }

    /// Returns the pause in force at `now`.
    pub fn pause_at(&self, now: Timestamp) -> Option<&Pause> {
        self.pause.as_ref().filter(|pause| pause.is_in_force(now))
    }

    /// Works out the next moment anew, at `now`. `next` returns the first nominal tick after a moment.
    pub fn reschedule(&mut self, now: Timestamp, next: &mut dyn FnMut(Timestamp) -> Option<Timestamp>) {
        let offset = self.offset();
        let after = match self.pause_at(now) {
            Some(Pause { until: None, .. }) => None,
            Some(Pause { until: Some(until), .. }) => Some(*until - Duration::from_micros(1)),
            None => Some(now),
        };
        let after = after.filter(|_| self.retired_at.is_none());
        self.next_at = after.and_then(|after| next(after - offset)).map(|tick| tick + offset);
        self.moved_at = now;
    }

    /// Gives the schedule another specification. Its past and its pause stay. Returns true if its next moment has to be worked
    /// out anew; where its times stay, a tick that is due and not fired yet stays due.
    #[must_use]
    pub fn redefine(&mut self, spec: ScheduleSpec, now: Timestamp) -> bool {
        let times = |spec: &ScheduleSpec| (spec.timing.clone(), spec.spread);
        let is_moved = times(&self.spec) != times(&spec) || self.retired_at.is_some() || self.next_at.is_none();
        self.spec = spec;
        self.changed_at = now;
        self.retired_at = None;
        self.failures = 0;
        is_moved
    }

    /// Returns the moment after which the next tick comes once the schedule has this specification: `now`; or when it was retired, if
    /// its times stay and that is so short ago that no tick since then is missed. A host that starts writes its file down at the very
    /// moment at which another host retires what no file has.
    pub fn goes_on_after(&self, spec: &ScheduleSpec, now: Timestamp) -> Timestamp {
        let is_same = self.spec.timing == spec.timing && self.spec.spread == spec.spread;
        let retired = self.retired_at.filter(|at| is_same && *at <= now && now.since(*at) <= bounds::SCHEDULE_GRACE);
        retired.unwrap_or(now)
    }

    /// Returns true if the next moment was worked out while the clock was ahead of `now`.
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        self.moved_at > now + bounds::SCHEDULE_GRACE
    }

    /// Adds a tick to those that the schedule remembers.
    fn remember(&mut self, mut record: TickRecord) {
        let max = bounds::SCHEDULE_REASON_BYTES_MAX;
        if record.reason.len() > max {
            record.reason.truncate(record.reason.floor_char_boundary(max));
        }
        // Of ticks that are missed one after the other for one reason, one record is kept.
        if let Some(last) = self.recent.last_mut()
            && last.outcome == record.outcome
            && last.job == record.job
            && record.outcome != TickOutcome::Fired
        {
            let count = last.count.saturating_add(record.count);
            *last = TickRecord { count, ..record };
            return;
        }
        self.recent.push(record);
        let over = self.recent.len().saturating_sub(bounds::SCHEDULE_TICKS_KEPT);
        self.recent.drain(..over);
    }
}

/// Returns a tick as jobs and people see it: in RFC 3339, with whole seconds.
pub fn tick_text(tick: Timestamp) -> String {
    let moment = format_moment(tick);
    format!("{}Z", moment.split('.').next().unwrap_or_default())
}

/// Returns the token of the job of a tick: no second job of its schedule has it.
pub fn tick_token(id: &ScheduleId, tick: Timestamp) -> Option<Token> {
    format!("{TOKEN_PREFIX}{id}@{}", tick_text(tick)).parse().ok()
}

/// Returns the schedule whose tick has a token; `None` for a token of any other job.
pub fn schedule_of_token(token: &Token) -> Option<ScheduleId> {
    let (id, _) = token.as_str().strip_prefix(TOKEN_PREFIX)?.rsplit_once('@')?;
    id.parse().ok()
}

#[cfg(test)]
mod tests;
