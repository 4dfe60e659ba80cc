//! A broadcast from its call to its end: who was asked, who answered, when it is over.

use std::collections::BTreeMap;
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
    /// The name that JSON and metrics carry. Never changed once released.
    pub const fn kind(&self) -> &'static str {
        match self {
            Answer::Replied(_) => "replied",
            Answer::Failed(_) => "failed",
            Answer::Trapped(_) => "trapped",
            Answer::TimedOut(_) => "timed-out",
            Answer::Skipped(_) => "skipped",
        }
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

/// Who was asked, and what each said. Each subscriber has exactly one reply in the end: the first one counts.
#[derive(Debug)]
pub struct Rollcall {
    replies: BTreeMap<PluginId, Option<Reply>>,
    unanswered: usize,
    replied: usize,
    enough: usize,
}

impl Rollcall {
    pub fn open(asked: impl IntoIterator<Item = PluginId>, mode: Mode) -> Rollcall {
        let replies: BTreeMap<_, _> = asked.into_iter().map(|plugin| (plugin, None)).collect();
        let asked = replies.len();
        let enough = match mode {
            Mode::All => usize::MAX,
            Mode::First(n) => n as usize,
            Mode::Quorum => asked / 2 + 1,
        };
        Rollcall { replies, unanswered: asked, replied: 0, enough }
    }

    /// Takes one reply; false if this subscriber was not asked or has answered already.
    pub fn take(&mut self, reply: &Reply) -> bool {
        match self.replies.get_mut(&reply.plugin) {
            Some(slot @ None) => {
                self.unanswered -= 1;
                self.replied += usize::from(matches!(reply.answer, Answer::Replied(_)));
                *slot = Some(reply.clone());
                true
            }
            _ => false,
        }
    }

    /// Whether as many have replied as were wanted.
    pub fn has_enough(&self) -> bool {
        self.replied >= self.enough
    }

    /// Whether nobody is waited for any longer.
    pub fn is_over(&self) -> bool {
        self.unanswered == 0 || self.has_enough()
    }

    /// Gives everyone who has not answered the answer that `why` makes, and returns those replies.
    pub fn close(&mut self, elapsed: Duration, why: impl Fn() -> Answer) -> Vec<Reply> {
        let missing: Vec<PluginId> =
            self.replies.iter().filter(|(_, reply)| reply.is_none()).map(|(plugin, _)| plugin.clone()).collect();
        let closed: Vec<Reply> = missing.into_iter().map(|plugin| Reply { plugin, answer: why(), elapsed }).collect();
        for reply in &closed {
            self.take(reply);
        }
        closed
    }

    /// Every reply, by plugin. Complete once the rollcall was closed.
    pub fn replies(self) -> Vec<Reply> {
        self.replies.into_values().flatten().collect()
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
        let closed = call.close(Duration::ZERO, || Answer::TimedOut("late".into()));
        assert_eq!(closed.len(), 2);
        assert!(call.is_over());
        let all = call.replies();
        let names: Vec<_> = all.iter().map(|r| r.plugin.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"], "the order is that of the plugins");
        assert_eq!(all[1].answer, Answer::Replied(vec![1]));
    }

    #[test]
    fn enough_is_counted_in_replies_and_not_in_failures() {
        let mut call = open(Mode::First(1));
        call.take(&reply("a", Answer::Failed(Failure::Discard("no".into()))));
        assert!(!call.is_over());
        call.take(&reply("b", Answer::Replied(vec![])));
        assert!(call.is_over() && call.has_enough());

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
