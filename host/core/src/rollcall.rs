//! The replies to a live broadcast, from its call to its end: which subscribers are missing, and when it is complete.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::PluginId;
use crate::outcome::{Failure, Outcome};

/// The rule by which a broadcast has enough replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Wait for every subscriber.
    All,
    /// Wait until this many have replied.
    First(u32),
    /// Wait until more than half of the subscribers have replied.
    Quorum,
}

/// The result of calling one subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It returned this reply.
    Replied(Vec<u8>),
    /// It returned an error.
    Failed(Failure),
    /// The sandbox ended it: by a trap, or because of its memory or output. The text is a report for users.
    Trapped(String),
    /// It did not reply in time. The text is a report for users.
    TimedOut(String),
    /// It was not called, or was stopped before it could reply. The text says why.
    Skipped(String),
}

impl Answer {
    /// The names used in JSON and metrics. A name never changes once it is released.
    pub const KINDS: [&'static str; 5] = ["replied", "failed", "trapped", "timed-out", "skipped"];

    /// Returns the index of the answer's name in `KINDS`.
    pub const fn kind_index(&self) -> usize {
        match self {
            Answer::Replied(_) => 0,
            Answer::Failed(_) => 1,
            Answer::Trapped(_) => 2,
            Answer::TimedOut(_) => 3,
            Answer::Skipped(_) => 4,
        }
    }

    /// Returns the answer's name.
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
            Outcome::Cancelled => Answer::Skipped("stopped: the broadcast ended before it replied".to_owned()),
            Outcome::Interrupted(_, report) => Answer::Skipped(report),
        }
    }
}

/// One subscriber's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The subscriber.
    pub plugin: PluginId,
    /// Its answer.
    pub answer: Answer,
    /// Time from the call to the answer.
    pub elapsed: Duration,
}

/// The subscribers that were called and have not answered. In the end each subscriber has exactly one reply: its first.
#[derive(Debug)]
pub struct Rollcall {
    missing: BTreeSet<PluginId>,
    replied: usize,
    enough: usize,
}

impl Rollcall {
    /// Starts a rollcall of these subscribers.
    pub fn open(subscribers: impl IntoIterator<Item = PluginId>, mode: Mode) -> Rollcall {
        let missing: BTreeSet<_> = subscribers.into_iter().collect();
        let enough = match mode {
            Mode::All => usize::MAX,
            Mode::First(n) => n as usize,
            Mode::Quorum => missing.len() / 2 + 1,
        };
        Rollcall { missing, replied: 0, enough }
    }

    /// Counts one reply. Returns false if this subscriber was not called or has answered before; the reply is then
    /// ignored.
    pub fn take(&mut self, reply: &Reply) -> bool {
        let first = self.missing.remove(&reply.plugin);
        self.replied += usize::from(first && matches!(reply.answer, Answer::Replied(_)));
        first
    }

    /// Returns true if as many subscribers have replied as the mode requires. Answers other than replies do not count.
    pub fn has_enough(&self) -> bool {
        self.replied >= self.enough
    }

    /// Returns true if there is nothing left to wait for.
    pub fn is_over(&self) -> bool {
        self.missing.is_empty() || self.has_enough()
    }

    /// Ends the rollcall. Each missing subscriber gets the answer that `why` makes for it. Returns these replies, by
    /// plugin.
    pub fn close(&mut self, elapsed: Duration, why: impl Fn(&PluginId) -> Answer) -> Vec<Reply> {
        let missing = std::mem::take(&mut self.missing);
        missing.into_iter().map(|plugin| Reply { answer: why(&plugin), plugin, elapsed }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Interruption, TimeoutKind};

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

    #[test]
    fn a_quorum_is_more_than_half() {
        let enough = |subscribers: u8| {
            let plugins: Vec<String> = (0..subscribers).map(|n| format!("p{n}")).collect();
            let mut call = Rollcall::open(plugins.iter().map(|id| id.parse().expect("an id")), Mode::Quorum);
            let taken = plugins.iter().take_while(|id| {
                let open = !call.has_enough();
                call.take(&reply(id, Answer::Replied(vec![])));
                open
            });
            taken.count()
        };
        assert_eq!([1, 2, 3, 4, 5, 6].map(enough), [1, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn a_rollcall_of_all_ends_with_the_last_answer_even_if_it_is_no_reply() {
        let mut call = open(Mode::All);
        for plugin in ["a", "b"] {
            call.take(&reply(plugin, Answer::Replied(vec![])));
            assert!(!call.is_over());
        }
        call.take(&reply("c", Answer::Skipped("not loaded".to_owned())));
        assert!(call.is_over() && !call.has_enough());
    }

    #[test]
    fn each_end_of_a_subscribers_attempt_is_an_answer_with_a_name() {
        let text = || "why".to_owned();
        let answers = [
            Outcome::Returned(vec![1]),
            Outcome::Failed(Failure::Discard(text())),
            Outcome::Trapped(text()),
            Outcome::OutOfMemory { limit_bytes: 1, report: text() },
            Outcome::OutputBound(text()),
            Outcome::TimedOut { clock: TimeoutKind::Wall, limit: Duration::ZERO, report: text() },
            Outcome::Interrupted(Interruption::Drain, text()),
        ]
        .map(Answer::from);
        assert_eq!(
            answers,
            [
                Answer::Replied(vec![1]),
                Answer::Failed(Failure::Discard(text())),
                Answer::Trapped(text()),
                Answer::Trapped(text()),
                Answer::Trapped(text()),
                Answer::TimedOut(text()),
                Answer::Skipped(text()),
            ]
        );
        let names = ["replied", "failed", "trapped", "trapped", "trapped", "timed-out", "skipped"];
        assert_eq!(answers.map(|answer| answer.kind()), names);
        assert_eq!(Answer::from(Outcome::Cancelled).kind(), "skipped");
    }
}
