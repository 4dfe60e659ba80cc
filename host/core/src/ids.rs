//! What jobs, plugins, tasks and nodes are called. Parsed once, valid ever after.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::bounds;
use crate::time::Timestamp;

/// Why a text is no id: fits "`{text}` {reason}".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIdError {
    pub text: String,
    pub reason: &'static str,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.text.escape_debug(), self.reason)
    }
}

impl std::error::Error for ParseIdError {}

/// A job's id: 63 bits, of which the upper ones are the time of enqueueing. Ids grow in the order they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

/// Crockford's base 32 in lower case: no i, l, o, u, so that an id read aloud is not misheard.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_CHARS: usize = 13;

impl JobId {
    pub const fn from_number(number: u64) -> Option<JobId> {
        if number == 0 || number > i64::MAX as u64 { None } else { Some(JobId(number)) }
    }

    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; ID_CHARS];
        for (place, slot) in text.iter_mut().rev().enumerate() {
            *slot = ALPHABET[(self.0 >> (5 * place)) as usize & 31];
        }
        f.pad(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl FromStr for JobId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError {
            text: text.to_owned(),
            reason: "is no job id: 13 characters of 0-9 and a-z are expected",
        };
        if text.len() != ID_CHARS {
            return Err(bad());
        }
        let mut number: u64 = 0;
        for c in text.bytes() {
            let digit = ALPHABET.iter().position(|a| *a == c.to_ascii_lowercase()).ok_or_else(bad)? as u64;
            number = number.checked_mul(32).ok_or_else(bad)? | digit;
        }
        JobId::from_number(number).ok_or_else(bad)
    }
}

/// Makes job ids that grow, also when the clock steps back.
///
/// Milliseconds since 2020 in the upper 41 bits, a count in the lower 22: no two of one source are alike,
/// and a source that is given the last id of its store goes on from there.
///
/// Where several sources make ids for one store, each has a number of its own in the lowest bits.
#[derive(Debug)]
pub struct JobIds {
    last: u64,
    /// What one id is higher than the last; below it is the source's number.
    step: u64,
    source: u64,
}

const ID_EPOCH_MS: u64 = 1_577_836_800_000;
const COUNT_BITS: u32 = 22;
const SOURCE_BITS: u32 = 10;

impl JobIds {
    pub const fn after(last: Option<JobId>) -> JobIds {
        let last = match last {
            Some(id) => id.0,
            None => 0,
        };
        JobIds { last, step: 1, source: 0 }
    }

    /// One source of up to 1024, told apart by `source`: no two of them make the same id, also in the same moment.
    pub const fn of_source(source: u64, last: Option<JobId>) -> JobIds {
        let (step, ids) = (1 << SOURCE_BITS, JobIds::after(last));
        JobIds { last: ids.last - ids.last % step, step, source: source % step }
    }

    pub fn next(&mut self, now: Timestamp) -> JobId {
        self.last = self.following(now);
        JobId(self.last | self.source)
    }

    fn following(&self, now: Timestamp) -> u64 {
        of_clock(now).max(self.last + self.step)
    }
}

const fn of_clock(now: Timestamp) -> u64 {
    now.as_millis().saturating_sub(ID_EPOCH_MS) << COUNT_BITS
}

/// Job ids of one source among several of one store, for as long as it holds its number.
///
/// Whoever holds a number has reserved its ids below a bound and makes none beyond; whoever holds it next begins at that bound.
/// So no id is made twice, whatever clocks do, and however late a source hears that its hold is over.
#[derive(Debug)]
pub struct ReservedIds {
    ids: JobIds,
    until: Timestamp,
    below: u64,
}

impl ReservedIds {
    /// How many numbers there are, from 0 on.
    pub const SOURCES: u64 = 1 << SOURCE_BITS;

    /// What a source reserves from, whose ids begin at `now` and after `last`.
    pub fn floor(now: Timestamp, last: Option<JobId>) -> u64 {
        of_clock(now).max(last.map_or(0, JobId::number))
    }

    /// What a source reserves at once, to have ids for so long.
    pub fn span(length: Duration) -> u64 {
        u64::try_from(length.as_millis()).unwrap_or(u64::MAX >> COUNT_BITS) << COUNT_BITS
    }

    /// The source with this number, which holds it `until` a moment and has reserved the ids from `from` up to `below`.
    pub const fn of_source(number: u64, from: Option<JobId>, until: Timestamp, below: u64) -> ReservedIds {
        ReservedIds { ids: JobIds::of_source(number, from), until, below }
    }

    /// The last id that was made, or what they begin after.
    pub const fn last(&self) -> Option<JobId> {
        JobId::from_number(self.ids.last)
    }

    /// The number is held longer, and more ids are reserved.
    pub fn prolong(&mut self, until: Timestamp, below: u64) {
        (self.until, self.below) = (until, below);
    }

    /// The number is another's from now on.
    pub fn give_up(&mut self) {
        self.prolong(Timestamp::ZERO, 0);
    }

    /// `None` where the hold on the number is over, or what was reserved is used up.
    pub fn next(&mut self, now: Timestamp) -> Option<JobId> {
        let fits = now < self.until && (self.ids.following(now) | self.ids.source) < self.below;
        fits.then(|| self.ids.next(now))
    }
}

/// One running host. Drawn at start; a restarted host is another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.bytes();
    chars.next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        && text.len() <= bounds::NAME_BYTES_MAX
}

const NAME_RULE: &str = "is no name: a-z, 0-9 and -, not beginning with -, at most 64 characters";

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// A plugin's id: the stem of its file.
    PluginId
}

impl FromStr for PluginId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if is_name(text) {
            Ok(PluginId(text.into()))
        } else {
            Err(ParseIdError { text: text.to_owned(), reason: NAME_RULE })
        }
    }
}

name! {
    /// A task's full name: "plugin/task".
    TaskName
}

impl TaskName {
    pub fn new(plugin: &PluginId, task: &str) -> Result<TaskName, ParseIdError> {
        format!("{plugin}/{task}").parse()
    }

    pub fn plugin(&self) -> PluginId {
        PluginId(self.0.split_once('/').expect("parsed").0.into())
    }

    /// The task without its plugin: "count".
    pub fn task(&self) -> &str {
        self.0.split_once('/').expect("parsed").1
    }
}

impl FromStr for TaskName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.split_once('/') {
            Some((plugin, task)) if is_name(plugin) && is_name(task) => Ok(TaskName(text.into())),
            _ => Err(ParseIdError {
                text: text.to_owned(),
                reason: "is no task: \"plugin/task\" is expected, each part of a-z, 0-9 and -",
            }),
        }
    }
}

name! {
    /// A group of tasks that share limits. By default each task is a group of its own, named "plugin/task".
    Group
}

impl From<&TaskName> for Group {
    fn from(task: &TaskName) -> Group {
        Group(task.0.clone())
    }
}

impl FromStr for Group {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if is_name(text) || text.parse::<TaskName>().is_ok() {
            Ok(Group(text.into()))
        } else {
            Err(ParseIdError {
                text: text.to_owned(),
                reason: "is no limit group: a name, or \"plugin/task\", of a-z, 0-9 and -",
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_id_is_read_as_it_is_written() {
        for number in [1, 31, 32, 123_456_789_012_345_678, i64::MAX as u64] {
            let id = JobId::from_number(number).unwrap();
            assert_eq!(id.to_string().len(), ID_CHARS);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        }
        for bad in ["", "0000000000000", "zzzzzzzzzzzzz", "000000000000l", "00000000000001", "é00000000000"] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
        assert_eq!((JobId::from_number(0), JobId::from_number(1 << 63)), (None, None));
    }

    #[test]
    fn texts_sort_as_the_ids_do() {
        let ids = [1, 40, 5_000, 1 << 40].map(|number| JobId::from_number(number).unwrap().to_string());
        assert!(ids.is_sorted());
    }

    #[test]
    fn ids_grow_also_when_the_clock_steps_back() {
        let mut ids = JobIds::after(None);
        let (early, late) = (Timestamp::from_millis(1_700_000_000_000), Timestamp::from_millis(1_700_000_000_001));
        let drawn = [ids.next(early), ids.next(early), ids.next(late), ids.next(early)];
        assert!(drawn.is_sorted_by(|a, b| a < b));
        assert!(JobIds::after(Some(drawn[3])).next(early) > drawn[3]);
    }

    #[test]
    fn sources_of_one_store_never_meet() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let mut sources: Vec<JobIds> = (0..3).map(|source| JobIds::of_source(source, None)).collect();
        let mut drawn: Vec<JobId> = (0..9000).map(|n| sources[n % 3].next(now)).collect();
        let last = drawn[8999];
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 9000);
        assert!(JobIds::of_source(1023, Some(last)).next(Timestamp::ZERO) > last);
    }

    #[test]
    fn a_source_makes_ids_only_while_it_holds_its_number() {
        let (now, second) = (Timestamp::from_millis(1_700_000_000_000), Duration::from_secs(1));
        let held = |from: u64, now: Timestamp| {
            ReservedIds::of_source(7, JobId::from_number(from), now + second, from + ReservedIds::span(second))
        };
        let first_floor = ReservedIds::floor(now, None);
        let mut first = held(first_floor, now);
        assert!(first.next(now).is_some() && first.next(now + second / 2).is_some());
        let last = first.last();
        assert_eq!((first.next(now + second), first.last()), (None, last), "its time is over");

        // The clock goes back an hour: what is reserved may be used up, and no more of it is made.
        let hour_ago = now - Duration::from_secs(3600);
        let mut made: Vec<JobId> = Vec::new();
        while let Some(id) = first.next(hour_ago) {
            made.push(id);
        }
        assert!(made.len() > 1_000_000 && made.is_sorted());
        // Who holds the number next begins at that bound, by whatever clock.
        let mut second_holder = held(first_floor + ReservedIds::span(second), hour_ago);
        assert!(second_holder.next(hour_ago) > made.last().copied());

        first.prolong(now + 2 * second, ReservedIds::floor(now, first.last()) + ReservedIds::span(second));
        assert!(first.next(now + second) > made.last().copied());
        first.give_up();
        assert_eq!(first.next(now), None);
    }

    #[test]
    fn names_are_parsed_once() {
        for good in ["a/b", "thumb-nail/make-2", "0/0"] {
            assert_eq!(good.parse::<TaskName>().unwrap().as_str(), good);
        }
        for bad in ["", "a", "a/", "/b", "a/b/c", "A/b", "-a/b", "a/b c"] {
            assert!(bad.parse::<TaskName>().is_err(), "{bad}");
        }
        assert!("x".repeat(65).parse::<PluginId>().is_err() && "x".repeat(64).parse::<PluginId>().is_ok());
        let task: TaskName = "words/count".parse().unwrap();
        assert_eq!((task.plugin().as_str(), task.task()), ("words", "count"));
        assert_eq!(Group::from(&task).as_str().parse(), Ok(Group::from(&task)));
        assert!("count".parse::<Group>().is_ok() && "a b".parse::<Group>().is_err());
    }
}
