//! A broadcast from its call to its end: who was asked, who answered, when it is over.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::PluginId;
use crate::outcome::{Failure, Outcome};

/// When a broadcast has heard enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    All,
    /// As soon as this many have replied.
    First(u32),
    /// As soon as more than half of the subscribers have replied.
    Quorum,
}

/// What came of one subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Replied(Vec<u8>),
    Failed(Failure),
    /// The sandbox ended it: a trap, memory, output. The text is a report for people.
    Trapped(String),
    TimedOut(String),
    /// It was not called, or was stopped before it could answer; the text says why.
    Skipped(String),
}

impl Answer {
    /// The names that JSON and metrics carry. Never changed once released.
    pub const KINDS: [&'static str; 5] = ["replied", "failed", "trapped", "timed-out", "skipped"];

    /// Which of `KINDS` it is.
    pub const fn kind_index(&self) -> usize {
        match self {
            Answer::Replied(_) => 0,
            Answer::Failed(_) => 1,
            Answer::Trapped(_) => 2,
            Answer::TimedOut(_) => 3,
            Answer::Skipped(_) => 4,
        }
    }

    pub const fn kind(&self) -> &'static str {
        Self::KINDS[self.kind_index()]
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Answer {
        match outcome {
            Outcome::Returned(reply) => Answer::Replied(reply),
            Outcome::Failed(failure) => Answer::Failed(failure),
            Outcome::TimedOut { report, .. } => Answer::TimedOut(report),
            Outcome::Trapped(report) | Outcome::OutOfMemory { report, .. } | Outcome::OutputBound(report) => {
                Answer::Trapped(report)
            }
            Outcome::Cancelled => Answer::Skipped("stopped: it was not waited for any longer".to_owned()),
            Outcome::Interrupted(_, report) => Answer::Skipped(report),
        }
    }
}

/// One subscriber's answer, and how long it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub plugin: PluginId,
    pub answer: Answer,
    pub elapsed: Duration,
}

/// Who was asked and has not answered. Each subscriber has exactly one reply in the end: the first one counts.
#[derive(Debug)]
pub struct Rollcall {
    missing: BTreeSet<PluginId>,
    replied: usize,
    enough: usize,
}

impl Rollcall {
    pub fn open(asked: impl IntoIterator<Item = PluginId>, mode: Mode) -> Rollcall {
        let missing: BTreeSet<_> = asked.into_iter().collect();
        let enough = match mode {
            Mode::All => usize::MAX,
            Mode::First(n) => n as usize,
            Mode::Quorum => missing.len() / 2 + 1,
        };
        Rollcall { missing, replied: 0, enough }
    }

    /// Takes one reply; false if this subscriber was not asked or has answered already.
    pub fn take(&mut self, reply: &Reply) -> bool {
        let first = self.missing.remove(&reply.plugin);
        self.replied += usize::from(first && matches!(reply.answer, Answer::Replied(_)));
        first
    }

    /// Whether as many have replied as were wanted.
    pub fn has_enough(&self) -> bool {
        self.replied >= self.enough
    }

    /// Whether nobody is waited for any longer.
    pub fn is_over(&self) -> bool {
        self.missing.is_empty() || self.has_enough()
    }

    /// Ends it: everyone who has not answered gets the answer that `why` makes. Returns those replies, by plugin.
    pub fn close(&mut self, elapsed: Duration, why: impl Fn(&PluginId) -> Answer) -> Vec<Reply> {
        let missing = std::mem::take(&mut self.missing);
        missing.into_iter().map(|plugin| Reply { answer: why(&plugin), plugin, elapsed }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(plugin: &str, answer: Answer) -> Reply {
        Reply { plugin: plugin.parse().expect("an id"), answer, elapsed: Duration::from_millis(1) }
    }

    fn open(mode: Mode) -> Rollcall {
        Rollcall::open(["c", "a", "b"].map(|id| id.parse().expect("an id")), mode)
    }

    #[test]
    fn each_subscriber_answers_once() {
        let mut call = open(Mode::All);
        assert!(call.take(&reply("b", Answer::Replied(vec![1]))));
        assert!(!call.take(&reply("b", Answer::Replied(vec![2]))), "the first one counts");
        assert!(!call.take(&reply("stranger", Answer::Replied(vec![]))), "nobody asked it");
        assert!(!call.is_over());
        let closed = call.close(Duration::ZERO, |plugin| Answer::TimedOut(format!("{plugin} was late")));
        let closed: Vec<_> = closed.into_iter().map(|reply| (reply.plugin.to_string(), reply.answer)).collect();
        let late = |plugin: &str| (plugin.to_owned(), Answer::TimedOut(format!("{plugin} was late")));
        assert_eq!(closed, [late("a"), late("c")], "the order is that of the plugins");
        assert!(call.is_over() && call.close(Duration::ZERO, |_| Answer::Replied(vec![])).is_empty());
    }

    #[test]
    fn enough_is_counted_in_replies_and_not_in_failures() {
        let mut call = open(Mode::First(1));
        call.take(&reply("a", Answer::Failed(Failure::Discard("no".into()))));
        assert!(!call.is_over());
        call.take(&reply("b", Answer::Replied(vec![])));
        assert!(call.is_over() && call.has_enough());
        let mut twice = open(Mode::First(2));
        assert!(twice.take(&reply("a", Answer::Replied(vec![]))) && !twice.take(&reply("a", Answer::Replied(vec![]))));
        assert!(!twice.has_enough(), "one that replies twice is one");

        let mut call = open(Mode::Quorum);
        call.take(&reply("a", Answer::Replied(vec![])));
        assert!(!call.is_over(), "one of three is no quorum");
        call.take(&reply("b", Answer::Replied(vec![])));
        assert!(call.has_enough());
    }

    #[test]
    fn nobody_asked_is_over_at_once() {
        assert!(Rollcall::open([], Mode::All).is_over());
    }
}
