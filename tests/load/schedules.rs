//! How late the last of ten thousand schedules fires that all tick at the same whole minute.
//!
//! `cargo bench --workspace --bench schedules`

#[path = "../harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the harness serves the tests, too")]
mod harness;

use std::time::Duration;

use harness::{Setup, eventually_within};
use serde_json::json;

const SCHEDULES: u32 = 10_000;
const FIRED: &str = "wharf_schedule_ticks_total{outcome=\"fired\"}";

fn main() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    let minute = json!({"task": "villain/do", "cron": "* * * * *", "payload": {"do": "sleep", "ms": 0}});
    for number in 0..SCHEDULES {
        client.put(&format!("/v1/schedules/s{number}"), &minute).ok();
    }
    let started = jiff::Timestamp::now();
    let whole = jiff::Timestamp::from_second((started.as_second() / 60 + 1) * 60).expect("a moment");
    eventually_within(Duration::from_secs(600), "all have fired", || {
        (host.metric(FIRED).unwrap_or_default() >= f64::from(2 * SCHEDULES)).then_some(())
    });
    let mut latest = 0.0_f64;
    let mut path = "/v1/jobs?limit=1000".to_owned();
    loop {
        let page = client.get(&path).ok();
        for job in page["jobs"].as_array().expect("jobs") {
            let Some(token) = job["token"].as_str() else { continue };
            let tick: jiff::Timestamp = token.rsplit('@').next().and_then(|tick| tick.parse().ok()).expect("a tick");
            let enqueued: jiff::Timestamp =
                job["enqueued_at"].as_str().and_then(|at| at.parse().ok()).expect("a moment");
            if tick >= whole {
                latest = latest.max((enqueued - tick).total(jiff::Unit::Second).expect("seconds"));
            }
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/jobs{next}"),
            None => break,
        }
    }
    println!("the last of {SCHEDULES} schedules fired {latest:.3} s after its tick");
}
