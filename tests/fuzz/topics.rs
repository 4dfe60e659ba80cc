//! Topics and patterns: text as callers and plugins write it.

use std::time::Duration;

use wharf_core::topic::{Pattern, Subscriptions, Topic};

use super::driver::{Target, fuzz};

const TARGET: Target = Target {
    name: "topics",
    tokens: &["a", "b", "document", "saved", ".", "*", ">", ".*", ".>", "\n", "-", "_", "a.b.c.d.e.f.g.h"],
    longest: 64 * 1024,
    cpu: Duration::from_secs(1),
    make: None,
    check,
};

/// A topic on the first line; on the others the patterns of subscribers.
fn check(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let topic = lines.next().unwrap_or_default().parse::<Topic>();
    let mut subscriptions = Subscriptions::default();
    let mut patterns = Vec::new();
    let mut came_to = String::new();
    for (who, line) in lines.enumerate().take(500) {
        match line.parse::<Pattern>() {
            Ok(pattern) => {
                assert_eq!(pattern.to_string(), line);
                subscriptions.add(&pattern, who);
                patterns.push((who, pattern));
            }
            Err(bad) => {
                let told = bad.to_string();
                assert!(told.len() < 1000, "a reason for people: {} bytes", told.len());
                came_to.push_str(&bad.reason);
                came_to.push('\n');
            }
        }
    }
    match topic {
        Ok(topic) => {
            assert_eq!(topic.to_string(), text.split('\n').next().unwrap_or_default());
            let found = subscriptions.of(&topic);
            let wanted: Vec<usize> = patterns
                .iter()
                .filter(|(_, pattern)| takes(pattern.as_str(), topic.as_str()))
                .map(|(who, _)| *who)
                .collect();
            assert_eq!(found, wanted, "who hears {topic}");
            came_to.push_str(["nobody", "one", "two", "many"][found.len().min(3)]);
        }
        Err(bad) => {
            assert!(bad.to_string().len() < 1000);
            came_to.push_str(&bad.reason);
        }
    }
    came_to
}

/// What a pattern means, said in the plainest way.
fn takes(pattern: &str, topic: &str) -> bool {
    match (pattern.split_once('.'), topic.split_once('.')) {
        (None, _) if pattern == ">" => true,
        (None, None) => pattern == "*" || pattern == topic,
        (Some((first, rest)), Some((token, others))) => (first == "*" || first == token) && takes(rest, others),
        _ => false,
    }
}

#[test]
fn holds() {
    fuzz(module_path!(), &TARGET);
}
