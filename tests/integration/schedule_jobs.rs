//! What a job says of the schedule and the tick that made it.

use serde_json::{Value, json};

use crate::harness::{Client, Setup, eventually};

/// Returns the jobs of a schedule, oldest first.
fn jobs_of(client: &Client, id: &str) -> Vec<Value> {
    let page = client.get("/v1/jobs?limit=200").ok();
    let mut jobs = page["jobs"].as_array().expect("jobs").clone();
    jobs.retain(|job| job["tick"]["schedule"] == id);
    jobs.reverse();
    jobs
}

fn moment(text: &Value) -> jiff::Timestamp {
    text.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{text} is no moment"))
}

#[test]
fn a_job_says_which_schedule_and_which_tick_made_it() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    // Ticks that come while a job runs have none.
    let slow =
        json!({ "task": "villain/do", "every": "1s", "payload": { "do": "sleep", "ms": 2500 }, "overlap": "skip" });
    eventually("it is defined", || (client.put("/v1/schedules/slow", &slow).status == 201).then_some(()));
    let jobs = eventually("it fired", || Some(jobs_of(client, "slow")).filter(|jobs| jobs.len() >= 3));
    for (place, job) in jobs.iter().enumerate() {
        let tick = &job["tick"];
        let token = job["token"].as_str().and_then(|token| token.strip_prefix("schedule:slow@")).expect("its token");
        assert_eq!(moment(&tick["at"]), token.parse().expect("a moment"), "{job}");
        match place.checked_sub(1) {
            None => assert_eq!((tick.get("previous"), &tick["missed"]), (None, &json!(0)), "{job}"),
            Some(before) => {
                let (at, previous) = (moment(&tick["at"]), moment(&tick["previous"]));
                assert_eq!(previous, moment(&jobs[before]["tick"]["at"]), "{job}");
                assert_eq!(tick["missed"].as_i64(), Some(at.as_second() - previous.as_second() - 1), "{job}");
                assert!(tick["missed"].as_i64() > Some(0), "{job}");
            }
        }
    }
    let second = jobs[1]["id"].as_str().expect("an ID");
    assert_eq!(client.get(&format!("/v1/jobs/{second}")).ok()["tick"], jobs[1]["tick"]);
    let shown = host.cli(&["job", "show", second]).output().expect("it runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let (at, previous) = (moment(&jobs[1]["tick"]["at"]), moment(&jobs[1]["tick"]["previous"]));
    let missed = &jobs[1]["tick"]["missed"];
    let expected = format!("{at:.0}, after {previous:.0} and {missed} without a job");
    assert!(shown.contains("schedule    slow\n") && shown.contains(&expected), "{expected}\n{shown}");

    // A run belongs to no tick, and a client's job to no schedule.
    let run = client.post("/v1/schedules/slow/run", &json!({})).ok()["job"].as_str().expect("a job").to_owned();
    for id in [run, host.enqueue("villain/do", json!({ "do": "sleep", "ms": 0 }))] {
        assert_eq!(client.get(&format!("/v1/jobs/{id}")).ok().get("tick"), None, "{id}");
    }
}
