//! `kill -9` under load, again and again: nothing acknowledged is lost, and no key was ever over its limit.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::chaos::{Addresses, Spans, read_spans, under_load, unix_ns};
use crate::harness::{Host, Setup, eventually};

const KILLS: usize = 50;
const KEYS: usize = 7;
/// `villain/pair`: two of a key at once.
const LIMIT: usize = 2;

/// The most attempts of one key at one moment. An attempt without an end lasted until its host was killed at the latest.
fn most_at_once(spans: &Spans, kills: &[u128]) -> usize {
    let mut max = 0;
    for key in (0..KEYS).map(|n| format!("k{n}")) {
        let mut edges: Vec<(u128, i32)> = Vec::new();
        for span in spans.values().filter(|s| s.key == key) {
            let killed = kills.iter().find(|kill| **kill >= span.start).copied().unwrap_or(u128::MAX);
            edges.push((span.start, 1));
            edges.push((span.end.unwrap_or(killed).min(killed), -1));
        }
        edges.sort();
        let mut now = 0;
        for (_, step) in edges {
            now += step;
            max = max.max(usize::try_from(now).unwrap_or(0));
        }
    }
    max
}

/// LeptonAI's worker took a task from its queue for good when it began: a crash lost it, and its status stayed RUNNING.
#[test]
fn leptonai_a_job_that_runs_when_its_host_dies_runs_again() {
    let mut host = Setup::default().plugin("villain").start();
    let id = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 3000 }));
    host.in_state(&id, "running");
    host.kill();
    host.start();
    let job = host.finished(&id);
    assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("succeeded"), Some(2)), "{job}");
    assert_eq!((job["crashes"].as_u64(), job["failures"].as_u64()), (Some(1), Some(0)), "a crash is no failure: {job}");
}

#[test]
fn fifty_kills_lose_nothing_and_no_key_is_over_its_limit() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut jitter = fastrand::Rng::with_seed(seed);
    let logs = tempfile::tempdir().expect("a temporary folder");
    let grant = format!(
        "[plugins.villain]\ndirs = [{{ host = \"{}\", guest = \"/log\", writable = true }}]",
        logs.path().display()
    );
    let mut host = Setup::default().plugin("villain").settings(&grant).start();
    let here = |host: &Host| vec![host.client().address().to_owned()];
    let addresses: Addresses = Arc::new(Mutex::new(here(&host)));
    let mut kills = Vec::new();

    let ((), kept) = under_load(&addresses, |_| {
        for _ in 0..KILLS {
            // Mostly in the middle of the work, now and then while it starts.
            if jitter.u8(..) < 224 {
                eventually("it is ready for work", || host.is_ready().then_some(()));
            }
            std::thread::park_timeout(Duration::from_millis(jitter.u64(1..250)));
            host.kill();
            kills.push(unix_ns());
            host.start();
            *addresses.lock().expect("no panic while it is held") = here(&host);
        }
    });
    println!("{} jobs were acknowledged over {KILLS} kills", kept.len());
    assert!(kept.len() > 5 * KILLS, "there was load");
    eventually("nothing is stuck", || {
        let open = ["waiting", "running"]
            .iter()
            .map(|state| host.client().get(&format!("/v1/jobs?state={state}")).ok())
            .all(|page| page["jobs"].as_array().expect("a list").is_empty());
        open.then_some(())
    });
    let spans = read_spans(&logs.path().join("spans"));
    let (mut lost, mut crashed) = (0, 0);
    for id in &kept {
        let job = host.job(id);
        let attempt = u32::try_from(job["attempt"].as_u64().expect("a number")).expect("small");
        match job["state"].as_str() {
            Some("succeeded") => {
                let last = spans.get(&(id.clone(), attempt)).unwrap_or_else(|| panic!("{id} ran as attempt {attempt}"));
                assert!(last.end.is_some(), "{id} succeeded, so its attempt came to its end");
                let after = (id.clone(), attempt + 1)..=(id.clone(), u32::MAX);
                assert_eq!(spans.range(after).count(), 0, "{id} ran again after it had succeeded");
            }
            // A job whose host dies under it again and again, at last when it is alone, is failed on purpose.
            Some("failed") if job["crashes"].as_u64() >= Some(5) => crashed += 1,
            _ => lost += 1,
        }
    }
    assert_eq!(lost, 0, "acknowledged jobs without their one result");
    println!("{} attempts for {} jobs, {crashed} of them given up after five crashes", spans.len(), kept.len());
    assert!(crashed * 100 <= kept.len(), "a killed host is not the job's fault");
    let max = most_at_once(&spans, &kills);
    println!("at most {max} of a key at once");
    assert!((1..=LIMIT).contains(&max), "{max} of one key at once");
}
