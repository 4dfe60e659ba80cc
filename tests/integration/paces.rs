//! Attempts that compute are started as the processors get through them; those that wait are not held up.

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, photo};

const THREADS: u64 = 2;

fn running(host: &Host) -> u64 {
    host.client().get("/ready").ok()["running"].as_u64().expect("a number")
}

fn ended(host: &Host, state: &str) -> Vec<Value> {
    let page = host.client().get(&format!("/v1/jobs?limit=1000&task=thumbnail/make&state={state}")).ok();
    page["jobs"].as_array().expect("a list").clone()
}

#[test]
fn jobs_that_compute_do_not_all_begin_at_once_and_hold_up_no_other_task() {
    let settings = format!("[attempts]\nguest-threads = {THREADS}\n");
    let host = Setup::default().plugin("thumbnail").plugin("words").settings(&settings).start();
    let count = 80;
    let picture = std::fs::read(photo("hubble_deep_field.jpg")).expect("the photo");
    for _ in 0..count {
        host.client().post_bytes("/v1/jobs?task=thumbnail/make", "image/jpeg", &picture).ok();
    }
    let mut max = 0;
    eventually("some have ended", || {
        max = max.max(running(&host));
        (ended(&host, "succeeded").len() >= count / 4).then_some(())
    });
    // While many of them wait and run.
    assert_eq!(host.run("words/count", json!({ "text": "a b" }))["state"], "succeeded");
    assert!(ended(&host, "succeeded").len() < count, "it went before most of them");
    let all = eventually("all have ended", || {
        max = max.max(running(&host));
        Some(ended(&host, "succeeded")).filter(|all| all.len() == count)
    });
    assert_eq!(ended(&host, "failed"), [] as [Value; 0]);
    // Sixteen for each thread at first, then what each does in two seconds; and the one of the other task.
    let cpu_ms = all.iter().map(|job| job["usage"]["cpu_ms"].as_f64().expect("a length"));
    let ahead = (2000.0 / cpu_ms.fold(f64::INFINITY, f64::min)) as u64;
    let expected = THREADS * ahead.max(16) + 1;
    assert!(max <= expected, "{max} at once, {expected} at most");
}

#[test]
fn jobs_that_wait_begin_however_many_they_are() {
    let host = Setup::default().plugin("villain").start();
    let job = json!({ "task": "villain/do", "payload": { "do": "sleep", "ms": 20_000 } });
    host.client().post("/v1/jobs", &vec![job; 200].into()).ok();
    eventually("all of them run", || (running(&host) == 200).then_some(()));
}
