//! Attempts as the guests themselves wrote them down: `start|end <unix-ns> <key> <job> <attempt>`.

use std::collections::BTreeMap;
use std::path::Path;

/// When an attempt began, and when it ended if it did.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) key: String,
    pub(crate) start: u128,
    pub(crate) end: Option<u128>,
}

/// By job and attempt.
pub(crate) type Spans = BTreeMap<(String, u32), Span>;

pub(crate) fn unix_ns() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos()
}

pub(crate) fn read(log: &Path) -> Spans {
    let mut found = Spans::new();
    for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        // A host that is killed in the middle of a write may leave half a line.
        let [what, at, key, job, attempt] = fields[..] else { continue };
        let (Ok(at), Ok(attempt)) = (at.parse::<u128>(), attempt.parse::<u32>()) else { continue };
        let id = (job.to_owned(), attempt);
        match what {
            "start" => {
                let twice = found.insert(id, Span { key: key.to_owned(), start: at, end: None });
                assert!(twice.is_none(), "attempt {attempt} of {job} began twice");
            }
            "end" => found.get_mut(&id).expect("it began").end = Some(at),
            other => panic!("what is `{other}`?"),
        }
    }
    found
}

/// The most of some attempts at one moment. One without an end lasted until a host was killed at the latest;
/// where none was, its host stopped it, and all that is known of it is its start.
pub(crate) fn most_at_once(spans: &Spans, of: impl Fn(&Span) -> bool, kills: &[u128]) -> usize {
    let mut edges: Vec<(u128, i32)> = Vec::new();
    for span in spans.values().filter(|span| of(span)) {
        let killed = kills.iter().find(|kill| **kill >= span.start).copied().unwrap_or(span.start);
        edges.push((span.start, 1));
        edges.push((span.end.unwrap_or(killed), -1));
    }
    edges.sort_by_key(|(at, step)| (*at, *step));
    let (mut now, mut max) = (0, 0);
    for (_, step) in edges {
        now += step;
        max = max.max(usize::try_from(now).unwrap_or(0));
    }
    max
}
