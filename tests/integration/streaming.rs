//! What followers hear: chunks, log lines and progress, at once and in order, also after a restart.

use serde_json::json;

use crate::harness::{Event, Host, Setup};

fn all(host: &Host, id: &str, after: Option<u64>) -> Vec<Event> {
    host.client().events(id, after).collect()
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|e| e.kind.as_str()).filter(|k| ["chunk", "log"].contains(k)).collect()
}

#[test]
fn a_follower_hears_one_chunk_per_line_and_the_end() {
    let host = Setup::default().plugin("words").start();
    let id = host.enqueue("words/count", json!({ "text": "a b\nc\n" }));
    let events = all(&host, &id, None);
    let chunks: Vec<_> = events.iter().filter(|e| e.kind == "chunk").collect();
    assert_eq!(chunks.len(), 2, "{events:?}");
    assert!(chunks[0].data.to_string().contains("words"), "{:?}", chunks[0]);
    let last = events.last().expect("the end");
    assert_eq!((last.kind.as_str(), last.data["state"].as_str()), ("state", Some("succeeded")));
}

/// cog held its event lock while the predictor ran: log lines came after the last output, and with 30 kB per line
/// the pipe filled and both sides waited for each other for ever.
#[test]
fn cog_log_lines_of_30_kb_between_chunks_arrive_in_time_and_in_order() {
    let host = Setup::default().plugin("villain").start();
    let order = json!({ "do": "emit", "chunks": 4, "pause-ms": 300, "log-bytes": 30_000 });
    let id = host.enqueue("villain/do", order);
    let mut heard = Vec::new();
    for event in host.client().events(&id, None) {
        if event.kind == "chunk" || event.kind == "log" {
            heard.push((event.kind, event.data["at"].as_str().expect("when").to_owned()));
        }
    }
    let kinds: Vec<&str> = heard.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds.iter().filter(|k| **k == "chunk").count(), 4, "{heard:?}");
    assert_eq!(kinds, ["log", "log", "chunk"].repeat(4), "interleaved as they were written: {heard:?}");
    // Three pauses of 300 ms lie between the first and the last: each pair was written in its own.
    let moments: Vec<&String> = heard.iter().step_by(3).map(|(_, at)| at).collect();
    assert!(moments.windows(2).all(|pair| pair[0] < pair[1]), "they come while it runs, not at its end: {heard:?}");
    let millis = |at: &str| -> f64 { at[17..at.len() - 1].parse::<f64>().expect("seconds") * 1000.0 };
    let spread = (millis(moments[3]) - millis(moments[0])).rem_euclid(60_000.0);
    assert!(spread > 600.0, "{spread} ms: {heard:?}");
}

#[test]
fn a_flood_of_log_lines_is_bounded_counted_and_holds_nothing_up() {
    let host = Setup::default().plugin("villain").start();
    let id = host.enqueue("villain/do", json!({ "do": "flood-stdout", "lines": 100_000, "bytes": 200 }));
    let job = host.finished(&id);
    assert_eq!(job["state"], "succeeded", "a flood of its own log fails no job: {job}");
    let events = all(&host, &id, None);
    let kept: usize =
        events.iter().filter(|e| e.kind == "log").map(|e| e.data["line"].as_str().map_or(0, str::len)).sum();
    assert!(kept <= 4 << 20, "at most 4 MiB are kept: {kept}");
    let dropped: u64 = events.iter().filter(|e| e.kind == "log-dropped").filter_map(|e| e.data["lines"].as_u64()).sum();
    let lines = events.iter().filter(|e| e.kind == "log").count() as u64;
    assert_eq!(lines + dropped, 100_000, "what was dropped is counted");
}

#[test]
fn a_flood_of_chunks_is_bounded() {
    let host = Setup::default().plugin("villain").start();
    let job = host.run("villain/do", json!({ "do": "flood-chunks", "bytes": 1_000_000 }));
    assert_eq!(job["state"], "failed", "{job}");
    let big = host.run("villain/do", json!({ "do": "big-chunk", "bytes": 3_000_000 }));
    assert!(big["report"]["text"].to_string().contains("1048576"), "the bound is named: {big}");
}

#[test]
fn a_follower_resumes_where_it_was_also_after_a_restart() {
    let mut host = Setup::default().plugin("words").start();
    let text: String = (0..30).map(|n| format!("line {n}\n")).collect();
    let id = host.enqueue("words/count", json!({ "text": text }));
    host.finished(&id);
    let events = all(&host, &id, None);
    let entries: Vec<&Event> = events.iter().filter(|e| e.id.is_some()).collect();
    assert!(entries.len() >= 30, "{events:?}");
    let middle = entries[10].id.expect("filtered");
    let rest = |host: &Host| all(host, &id, Some(middle)).iter().filter_map(|e| e.id).collect::<Vec<_>>();
    let expected: Vec<u64> = entries[11..].iter().filter_map(|e| e.id).collect();
    assert_eq!(rest(&host), expected);
    host.kill();
    host.start();
    assert_eq!(rest(&host), expected, "the log outlives the host");
}

#[test]
fn chunks_of_every_attempt_stay_in_the_log() {
    let host = Setup::default().plugin("villain").start();
    let id = host.enqueue("villain/retrying", json!({ "do": "panic-after-output", "chunks": 2 }));
    host.finished(&id);
    let events = all(&host, &id, None);
    assert_eq!(kinds(&events).iter().filter(|k| **k == "chunk").count(), 10, "five attempts, two chunks each");
    let attempts: Vec<u64> =
        events.iter().filter(|e| e.kind == "chunk").filter_map(|e| e.data["attempt"].as_u64()).collect();
    assert_eq!(attempts, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
}

#[test]
fn a_follower_that_goes_away_changes_nothing() {
    let host = Setup::default().plugin("words").start();
    let text: String = (0..20).map(|n| format!("line {n}\n")).collect();
    let id = host.enqueue("words/count", json!({ "text": text, "pause-ms": 20 }));
    let first = host.client().events(&id, None).find(|e| e.kind == "chunk");
    assert!(first.is_some());
    assert_eq!(host.finished(&id)["state"], "succeeded");
}
