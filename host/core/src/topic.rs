//! Topics of broadcasts, and the patterns with which plugins subscribe to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::bounds;
use crate::ids::ParseIdError;

/// The topic that a broadcast is sent to: tokens separated by dots, such as "document.saved".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(String);

/// The pattern of a subscription: a topic in which `*` matches exactly one token and a last `>` matches one or more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
}

fn fits(text: &str) -> bool {
    text.len() <= bounds::TOPIC_BYTES_MAX && text.split('.').count() <= bounds::TOPIC_TOKENS_MAX
}

/// The rule that topics and patterns share, for error texts.
fn token_rule() -> String {
    format!(
        "expected up to {} tokens of letters, digits, `-` and `_`, separated by dots, {} bytes in all",
        bounds::TOPIC_TOKENS_MAX,
        bounds::TOPIC_BYTES_MAX
    )
}

impl Topic {
    /// Returns the topic's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if fits(text) && text.split('.').all(is_token) {
            return Ok(Topic(text.to_owned()));
        }
        let reason = if text.contains(['*', '>']) {
            "`*` and `>` are for subscriptions; a broadcast goes to exactly one topic".to_owned()
        } else {
            token_rule()
        };
        Err(ParseIdError::new("topic", text, reason))
    }
}

impl Pattern {
    /// Returns the pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = |reason: String| ParseIdError::new("subscription", text, reason);
        let tokens: Vec<&str> = text.split('.').collect();
        let (last, others) = tokens.split_last().expect("split gives at least one");
        if others.contains(&">") {
            return Err(bad("`>` matches the rest of a topic, so it must be the last token".to_owned()));
        }
        let is_good = |token: &&str| *token == "*" || is_token(token);
        if fits(text) && others.iter().all(&is_good) && (*last == ">" || is_good(last)) {
            return Ok(Pattern(text.to_owned()));
        }
        Err(bad(format!("{}; `*` matches one whole token, a last `>` the rest", token_rule())))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An index from topics to subscribers: a tree of tokens. The cost of a lookup depends on the length of the topic and
/// on the subscribers found, not on how many others there are.
#[derive(Clone, Debug)]
pub struct Subscriptions<T> {
    root: Branch<T>,
}

#[derive(Clone, Debug)]
struct Branch<T> {
    /// Subscribers whose pattern ends at this branch.
    here: BTreeSet<T>,
    /// Subscribers whose pattern ends at this branch with `>`.
    rest: BTreeSet<T>,
    /// The branch for `*`.
    any: Option<Box<Branch<T>>>,
    tokens: BTreeMap<String, Branch<T>>,
}

impl<T> Default for Branch<T> {
    fn default() -> Self {
        Branch { here: BTreeSet::new(), rest: BTreeSet::new(), any: None, tokens: BTreeMap::new() }
    }
}

impl<T> Default for Subscriptions<T> {
    fn default() -> Self {
        Subscriptions { root: Branch::default() }
    }
}

impl<T: Clone + Ord> Subscriptions<T> {
    /// Subscribes `subscriber` to the topics that match `pattern`.
    pub fn add(&mut self, pattern: &Pattern, subscriber: T) {
        let mut branch = &mut self.root;
        for token in pattern.0.split('.') {
            branch = match token {
                ">" => {
                    branch.rest.insert(subscriber);
                    return;
                }
                "*" => branch.any.get_or_insert_default(),
                token => branch.tokens.entry(token.to_owned()).or_default(),
            };
        }
        branch.here.insert(subscriber);
    }

    /// Returns the subscribers of `topic`, each once, in ascending order.
    pub fn of(&self, topic: &Topic) -> Vec<T> {
        let mut found = BTreeSet::new();
        let mut open = vec![&self.root];
        for token in topic.0.split('.') {
            let mut next = Vec::new();
            for branch in open {
                found.extend(branch.rest.iter().cloned());
                next.extend(branch.any.as_deref());
                next.extend(branch.tokens.get(token));
            }
            open = next;
        }
        found.extend(open.into_iter().flat_map(|branch| branch.here.iter().cloned()));
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        text.parse().expect("a topic")
    }

    #[test]
    fn patterns_match_by_token() {
        let table = [
            ("document.saved", "document.saved", true),
            ("document.saved", "document", false),
            ("document.*", "document.saved", true),
            ("document.*", "document", false),
            ("document.*", "document.saved.twice", false),
            ("*.saved", "document.saved", true),
            ("*", "document", true),
            ("document.>", "document.saved.twice", true),
            ("document.>", "document", false),
            (">", "document", true),
            ("*.>", "document", false),
            ("*.>", "document.saved", true),
        ];
        for (pattern, sent, expected) in table {
            let mut all = Subscriptions::default();
            all.add(&pattern.parse().expect("a pattern"), 1);
            assert_eq!(!all.of(&topic(sent)).is_empty(), expected, "{pattern} and {sent}");
        }
    }

    #[test]
    fn a_subscriber_is_found_once_and_in_order() {
        let mut all = Subscriptions::default();
        for (pattern, who) in [("a.*", "z"), ("a.b", "z"), (">", "z"), ("a.b", "m"), ("a.>", "a")] {
            all.add(&pattern.parse().expect("a pattern"), who);
        }
        assert_eq!(all.of(&topic("a.b")), ["a", "m", "z"]);
    }

    #[test]
    fn bad_texts_are_refused() {
        for text in ["", ".", "a.", ".a", "a..b", "a b", "a.>.b", ">.a", "a*", "a.b*", "ä"] {
            assert!(text.parse::<Pattern>().is_err(), "{text:?}");
        }
        for text in ["*", "a.*", ">", "", "a..b", "a/b"] {
            assert!(text.parse::<Topic>().is_err(), "{text:?}");
        }
        assert!("a.".repeat(400).parse::<Topic>().is_err());
        assert!(["x"; 17].join(".").parse::<Topic>().is_err(), "too many tokens");
    }

    #[test]
    fn topics_and_patterns_read_as_they_were_written() {
        for text in ["document.saved", "A-1.b_2", "x"] {
            assert_eq!((topic(text).as_str(), topic(text).to_string().as_str()), (text, text));
        }
        for text in ["*.b-2.>", "*", ">", "A_1.*"] {
            let pattern: Pattern = text.parse().expect("a pattern");
            assert_eq!((pattern.as_str(), pattern.to_string().as_str()), (text, text));
        }
    }

    #[test]
    fn the_bounds_hold_for_topics_and_patterns_alike() {
        let tokens = |count: usize| vec!["x"; count].join(".");
        let bytes = |count: usize| "x".repeat(count);
        for good in [tokens(bounds::TOPIC_TOKENS_MAX), bytes(bounds::TOPIC_BYTES_MAX)] {
            assert!(good.parse::<Topic>().is_ok() && good.parse::<Pattern>().is_ok(), "{good}");
        }
        for bad in [tokens(bounds::TOPIC_TOKENS_MAX + 1), bytes(bounds::TOPIC_BYTES_MAX + 1)] {
            assert!(bad.parse::<Topic>().is_err() && bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rejected_text_is_answered_with_the_rule_that_it_breaks() {
        let topic = |text: &str| text.parse::<Topic>().unwrap_err().reason;
        let pattern = |text: &str| text.parse::<Pattern>().unwrap_err().reason;
        let rule = "expected up to 16 tokens of letters, digits, `-` and `_`, separated by dots, 256 bytes in all";
        assert_eq!(topic("a b"), rule);
        assert!(topic("a.*").contains("are for subscriptions"));
        assert!(pattern("a b").starts_with(rule));
        assert!(pattern(">.a").contains("must be the last token"));
    }
}
