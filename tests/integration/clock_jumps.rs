//! The machine's clock is set while jobs run. Hosts on one database go by the clock of that; a host alone has only its own.

use std::time::Duration;

use serde_json::json;

use crate::chaos::read_spans;
use crate::harness::{MachineClock, Postgres, Setup, eventually, shared_address};

const HOUR: i64 = 3600;
/// Of what a guest wrote into the log of spans: the words and the attempts, in the order in which they happened.
type Told = Vec<(String, String, String)>;

fn told(log: &std::path::Path) -> Told {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[0].to_owned(), fields[3].to_owned(), fields[4].to_owned())
    };
    text.lines().map(line).collect()
}

fn settings(lease: &str, logs: &std::path::Path) -> String {
    format!(
        "[lease]\nlength = \"{lease}\"\nmargin = \"500ms\"\n[plugins.villain]\n\
         dirs = [{{ host = \"{}\", guest = \"/log\", writable = true }}]",
        logs.display()
    )
}

#[test]
fn a_host_of_several_whose_clock_is_set_goes_on_as_if_it_was_not() {
    let (address, logs) = (shared_address(), tempfile::tempdir().expect("a temporary folder"));
    let clock = MachineClock::new();
    let setup = || Setup::default().plugin("villain").settings(&settings("9s", logs.path())).database(&address);
    let set = setup().clock(&clock).start();
    let other = setup().start();
    for jump in [HOUR, -HOUR, 0] {
        let payload = json!({ "key": "one", "do": "span", "ms": 4000, "log": "/log/spans" });
        let ids: Vec<String> = (0..2).map(|_| set.enqueue("villain/keyed", payload.clone())).collect();
        let spans = || read_spans(&logs.path().join("spans"));
        eventually("the first one runs", || spans().contains_key(&(ids[0].clone(), 1)).then_some(()));
        clock.set(jump);
        // Due by the database's clock, whatever that of its host says.
        let later = json!({ "task": "villain/do", "payload": { "do": "time" }, "delay": "1s" });
        let later = set.enqueue_with(later);
        for id in ids.iter().chain([&later]) {
            let job = other.finished(id);
            assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("succeeded"), Some(1)), "{job}");
        }
        eventually("it is well", || set.is_ready().then_some(()));
    }
    // It was set indeed.
    clock.set(HOUR);
    let times: Vec<u64> = (0..20)
        .map(|_| {
            let id = set.enqueue("villain/do", json!({ "do": "time" }));
            set.finished(&id);
            set.result(&id)["unix-ns"].as_u64().expect("a number")
        })
        .collect();
    let spread = times.iter().max().zip(times.iter().min()).map(|(max, least)| Duration::from_nanos(max - least));
    let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let ahead = Duration::from_nanos(*times.iter().max().expect("some")).saturating_sub(here);
    assert!(ahead > Duration::from_secs(1800), "some ran where the clock is an hour ahead: {ahead:?}, {spread:?}");
}

#[test]
fn hosts_whose_database_s_clock_is_set_back_go_on_as_if_it_was_not() {
    let (clock, logs) = (MachineClock::new(), tempfile::tempdir().expect("a temporary folder"));
    let postgres = Postgres::start_with(&clock.environment());
    let setup =
        || Setup::default().plugin("villain").settings(&settings("9s", logs.path())).database(&postgres.address());
    let host = setup().start();
    let now = || postgres.sql("SELECT extract(epoch FROM clock_timestamp())::bigint").parse::<i64>().expect("seconds");
    let before = now();
    for jump in [-HOUR, -2 * HOUR] {
        let span = json!({ "do": "span", "ms": 6000, "log": "/log/spans" });
        let ids: Vec<String> = (0..4).map(|_| host.enqueue("villain/slow", span.clone())).collect();
        for id in &ids {
            host.in_state(id, "running");
        }
        clock.set(jump);
        assert!(now() < before + jump / 2, "the server goes by the clock of this test");
        // What runs is not stopped, and what comes is not late.
        let later = json!({ "task": "villain/do", "payload": { "do": "echo" }, "delay": "1s" });
        let later = host.enqueue_with(later);
        let fails = host.enqueue("villain/retrying", json!({ "do": "fail-until", "attempt": 2 }));
        for id in ids.iter().chain([&later]) {
            let job = host.finished(id);
            assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("succeeded"), Some(1)), "{job}");
        }
        assert_eq!(host.finished(&fails)["state"], "succeeded");
        eventually("it is well", || host.is_ready().then_some(()));
    }
}

#[test]
fn a_host_alone_whose_clock_is_set_forward_never_runs_two_of_a_key() {
    let logs = tempfile::tempdir().expect("a temporary folder");
    let clock = MachineClock::new();
    let host = Setup::default().plugin("villain").settings(&settings("2s", logs.path())).clock(&clock).start();
    let log = logs.path().join("spans");
    let payload = json!({ "key": "one", "do": "span", "ms": 6000, "log": "/log/spans" });
    let ids: Vec<String> = (0..2).map(|_| host.enqueue("villain/keyed", payload.clone())).collect();
    eventually("the first one runs", || (told(&log).len() == 1).then_some(()));
    // Every lease is long over by the store's clock, which is this one.
    clock.set(HOUR);
    for id in &ids {
        assert_eq!(host.finished(id)["state"], "succeeded");
    }
    assert!(host.job(&ids[0])["attempt"].as_u64() > Some(1), "nobody could vouch for the first any more");
    let mut running: Option<(String, String)> = None;
    for (what, job, attempt) in told(&log) {
        match what.as_str() {
            // Where one is still open it was stopped: its end must not come any more.
            "start" => running = Some((job, attempt)),
            _ => assert_eq!(running.take(), Some((job, attempt)), "only the last one that began may end"),
        }
    }
    // Set back, it goes on: new ids are still above all others.
    clock.set(0);
    let id = host.enqueue("villain/do", json!({ "do": "echo" }));
    assert!(id > ids[1], "{id} after {ids:?}");
    assert_eq!(host.finished(&id)["state"], "succeeded");
}
