//! Bulk operations on running hosts: exactly the jobs of their beginning, once each, whatever happens to the hosts.

use serde_json::{Value, json};

use crate::harness::{Client, Host, Setup, eventually, shared_address};

/// More than several steps change, and no more than a preview counts at once.
const MANY: usize = 900;

fn enqueue_delayed(client: &Client, count: usize) {
    let jobs: Vec<Value> = (0..count)
        .map(|_| json!({ "task": "villain/do", "payload": { "do": "sleep", "ms": 0 }, "delay": "1h" }))
        .collect();
    client.post("/v1/jobs", &Value::Array(jobs)).ok();
}

#[track_caller]
fn start(client: &Client, operation: &Value) -> String {
    let started = client.post("/v1/operations", operation).ok();
    started["id"].as_str().unwrap_or_else(|| panic!("no id in {started}")).to_owned()
}

fn show(client: &Client, id: &str) -> Value {
    client.get(&format!("/v1/operations/{id}")).ok()
}

fn ended(client: &Client, id: &str) -> Value {
    eventually("the operation ends", || {
        let operation = show(client, id);
        (!operation["ended_at"].is_null()).then_some(operation)
    })
}

/// Returns how many jobs meet a filter that an act can change.
fn count(client: &Client, act: &str, filter: &str) -> u64 {
    let preview = client.post("/v1/operations", &json!({ "act": act, "where": filter, "preview": true })).ok();
    assert_eq!(preview["more"], false, "{preview}");
    preview["count"].as_u64().expect("a count")
}

/// Returns two hosts of one store.
fn two_hosts() -> (Host, Host) {
    let address = shared_address();
    let host = || Setup::default().plugin("villain").database(&address).start();
    (host(), host())
}

/// Kills a host, and checks that the other one, or the host itself after another start, changes as many jobs with an operation as there
/// are. Returns the client of who did.
fn changes_many_after_a_kill<'h>(killed: &'h mut Host, other: Option<&'h Host>, id: &str) -> &'h Client {
    killed.kill();
    if other.is_none() {
        killed.start();
    }
    let client = other.map_or(killed.client(), Host::client);
    let operation = ended(client, id);
    let numbers = (&operation["state"], &operation["changed"], &operation["skipped"]);
    assert_eq!(numbers, (&json!("done"), &json!(MANY), &json!(0)), "{operation}");
    client
}

/// Cancels many jobs, and kills the host that does it while it does.
fn is_finished_after_a_kill(mut killed: Host, other: Option<&Host>) {
    enqueue_delayed(killed.client(), MANY);
    assert_eq!(count(killed.client(), "cancel", "plugin:villain"), MANY as u64);
    let id = start(killed.client(), &json!({ "act": "cancel", "where": "plugin:villain" }));
    enqueue_delayed(killed.client(), 10);
    eventually("it is on its way", || (show(killed.client(), &id)["changed"].as_u64() > Some(0)).then_some(()));
    let client = changes_many_after_a_kill(&mut killed, other, &id);
    assert_eq!(count(client, "retry", "state:cancelled"), MANY as u64);
    assert_eq!(count(client, "cancel", "state:waiting"), 10, "those that came later are no part of it");
}

#[test]
fn an_operation_goes_on_after_its_host_was_killed() {
    is_finished_after_a_kill(Setup::default().plugin("villain").start(), None);
}

#[test]
fn another_host_finishes_the_operation_of_one_that_was_killed() {
    let (first, second) = two_hosts();
    is_finished_after_a_kill(first, Some(&second));
}

/// Cancels the held jobs while holds change, and kills the host that does it: the jobs stay those that were held when it began.
fn is_about_the_jobs_of_its_beginning(mut killed: Host, other: Option<&Host>) {
    let client = killed.client();
    client.put("/v1/limits?group=villain%2Fdo", &json!({ "total": 0 })).ok();
    let enqueue = |key: &str, count: usize| {
        let job = json!({ "task": "villain/do", "key": key, "payload": { "do": "sleep", "ms": 0 } });
        client.post("/v1/jobs", &Value::Array(vec![job; count])).ok();
    };
    enqueue("later", 20);
    enqueue("held", MANY);
    client.post("/v1/holds", &json!({ "key": "held" })).ok();
    assert_eq!(count(client, "cancel", "state:held"), MANY as u64);
    let id = start(client, &json!({ "act": "cancel", "where": "state:held" }));
    client.delete("/v1/holds?key=held");
    client.post("/v1/holds", &json!({ "all": true })).ok();
    enqueue("held", 5);
    let client = changes_many_after_a_kill(&mut killed, other, &id);
    assert_eq!(count(client, "cancel", "key:later"), 20, "these are held since then");
    assert_eq!(count(client, "cancel", "key:held"), 5, "these came later");
}

#[test]
fn an_operation_on_held_jobs_is_about_those_that_were_held_when_it_began() {
    is_about_the_jobs_of_its_beginning(Setup::default().plugin("villain").start(), None);
}

#[test]
fn another_host_knows_which_jobs_were_held_when_an_operation_began() {
    let (first, second) = two_hosts();
    is_about_the_jobs_of_its_beginning(first, Some(&second));
}

#[test]
fn a_trial_halts_when_a_job_fails_and_goes_on_when_all_succeed() {
    let retry_once = "[plugins.villain.tasks.do]\nretry = { attempts = 1 }";
    let host = Setup::default().plugin("villain").settings(retry_once).start();
    let client = host.client();
    let bad: Vec<String> = (0..4).map(|_| host.enqueue("villain/do", json!({ "do": "trap", "kind": "bad" }))).collect();
    bad.iter().for_each(|id| assert_eq!(host.finished(id)["state"], "failed"));
    let halted = start(client, &json!({ "act": "retry", "where": "text:unreachable", "try": 2 }));
    let halted = ended(client, &halted);
    assert_eq!((&halted["state"], &halted["changed"]), (&json!("halted"), &json!(2)), "{halted}");
    assert_eq!(halted["tried"], json!([bad[3], bad[2]]));
    let reason = halted["reason"].as_str().expect("a reason");
    assert!(reason.contains(&bad[3]) || reason.contains(&bad[2]), "{reason}");

    // A trial of more jobs than there are is about all of them.
    let all = start(client, &json!({ "act": "retry", "where": "text:unreachable", "try": 9 }));
    let all = ended(client, &all);
    assert_eq!((&all["state"], &all["changed"]), (&json!("halted"), &json!(4)), "{all}");
    let acts = client.get("/v1/audit?act=operation-ended").ok();
    let counts: Vec<&Value> = acts["acts"].as_array().expect("a list").iter().map(|act| &act["count"]).collect();
    assert_eq!(counts, [&json!(4), &json!(2)], "{acts}");

    let good: Vec<String> = (0..4)
        .map(|_| {
            host.enqueue_with(
                json!({ "task": "villain/do", "key": "good", "payload": { "do": "sleep", "ms": 0 }, "delay": "1h" }),
            )
        })
        .collect();
    good.iter().for_each(|id| _ = client.post(&format!("/v1/jobs/{id}/cancel"), &Value::Null).ok());
    let output = host.cli(&["job", "retry", "--where", "key:good", "--try", "2", "--spread", "1s"]).output();
    let id = String::from_utf8(output.expect("the command runs").stdout).expect("text").trim().to_owned();
    let done = ended(client, &id);
    assert_eq!((&done["state"], &done["changed"]), (&json!("done"), &json!(4)), "{done}");
    good.iter().for_each(|id| assert_eq!(host.finished(id)["state"], "succeeded"));

    let deleted = start(client, &json!({ "act": "delete", "where": "key:good" }));
    assert_eq!(ended(client, &deleted)["changed"], 4);
    good.iter().for_each(|id| assert_eq!(client.get(&format!("/v1/jobs/{id}")).status, 404));
}

/// Returns jobs with this key that were cancelled, and succeed when they are retried; the newest last.
fn cancelled_jobs(host: &Host, key: &str, count: usize) -> Vec<String> {
    let job = json!({ "task": "villain/do", "key": key, "payload": { "do": "sleep", "ms": 0 }, "delay": "1h" });
    let cancelled = |_| {
        let id = host.enqueue_with(job.clone());
        host.client().post(&format!("/v1/jobs/{id}/cancel"), &Value::Null).ok();
        id
    };
    (0..count).map(cancelled).collect()
}

#[test]
fn more_jobs_are_retried_than_may_wait_at_once() {
    let host = Setup::default().plugin("villain").settings("[jobs]\nwaiting-max = 2").start();
    let jobs = cancelled_jobs(&host, "many", 7);
    let id = start(host.client(), &json!({ "act": "retry", "where": "key:many" }));
    let done = ended(host.client(), &id);
    assert_eq!((&done["state"], &done["changed"]), (&json!("done"), &json!(7)), "{done}");
    jobs.iter().for_each(|id| assert_eq!(host.finished(id)["state"], "succeeded"));
}

#[test]
fn an_operation_says_which_full_queue_it_waits_for() {
    let host = Setup::default().plugin("villain").settings("[jobs]\nwaiting-max = 1").start();
    let client = host.client();
    let jobs = cancelled_jobs(&host, "held", 2);
    client.post("/v1/holds", &json!({ "key": "held" })).ok();
    let id = start(client, &json!({ "act": "retry", "where": "key:held" }));
    let waiting = eventually("it says what it waits for", || {
        let operation = show(client, &id);
        operation["reason"].is_string().then_some(operation)
    });
    assert_eq!((&waiting["state"], &waiting["changed"]), (&json!("running"), &json!(1)), "{waiting}");
    let reason = waiting["reason"].as_str().expect("a reason");
    assert!(reason.contains("plugin `villain`"), "{reason}");
    client.delete("/v1/holds?key=held");
    let done = ended(client, &id);
    assert_eq!(
        (&done["state"], &done["changed"], done["reason"].as_str()),
        (&json!("done"), &json!(2), None),
        "{done}"
    );
    jobs.iter().for_each(|id| assert_eq!(host.finished(id)["state"], "succeeded"));
}

#[test]
fn the_jobs_of_a_trial_start_at_once_however_long_the_others_are_spread() {
    let host = Setup::default().plugin("villain").start();
    let jobs = cancelled_jobs(&host, "few", 2);
    let id = start(host.client(), &json!({ "act": "retry", "where": "key:few", "try": 1, "spread": "7d" }));
    eventually("the newest was tried", || (host.job(&jobs[1])["state"] == "succeeded").then_some(()));
    assert_eq!(ended(host.client(), &id)["changed"], 2);
    assert_eq!(host.job(&jobs[0])["wait"]["reason"], "not-due", "it is one of those that are spread");
}

#[test]
fn an_operation_is_refused_listed_and_cancelled() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    for (operation, said) in [
        (json!({ "act": "retry", "where": "" }), "expected at least one condition"),
        (json!({ "act": "retry", "where": "state:running" }), "changes only jobs that are failed, cancelled"),
        (json!({ "act": "cancel", "where": "key:a", "try": 5 }), "only `retry` tries jobs first"),
        (json!({ "act": "retry", "where": "key:a", "try": 0 }), "expected 1 to 100 jobs, got 0"),
        (json!({ "act": "retry", "where": "key:a", "within": "1m" }), "add `try`"),
        (json!({ "act": "retry", "where": "key:a", "spread": "8d" }), "at most 7d"),
        (json!({ "act": "explode", "where": "key:a" }), "unknown variant `explode`"),
        (json!({ "act": "retry", "where": "kye:a" }), "did you mean `key`?"),
        (json!({ "act": "retry", "where": "text:\"a\0\"" }), "U+0000 is not allowed"),
    ] {
        let reply = client.post("/v1/operations", &operation);
        let detail = reply.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(reply.status == 400 && detail.contains(said), "{operation}: {detail}");
    }
    enqueue_delayed(client, 3);
    let preview =
        host.cli(&["job", "cancel", "--where", "plugin:villain", "--preview"]).output().expect("the command runs");
    let preview = String::from_utf8(preview.stdout).expect("text");
    assert!(preview.starts_with("3 jobs meet state:waiting,running plugin:villain\n"), "{preview}");
    assert_eq!(count(client, "cancel", "plugin:villain"), 3, "a preview changes nothing");

    // Its trial never ends by itself, since its job is held.
    let failed = host.enqueue_with(json!({ "task": "villain/do", "payload": {}, "delay": "1h", "key": "late" }));
    client.post(&format!("/v1/jobs/{failed}/cancel"), &Value::Null).ok();
    let operation = json!({ "act": "retry", "where": "key:late", "try": 1, "spread": "7d", "token": "late-1" });
    client.post("/v1/holds", &json!({ "key": "late" })).ok();
    let later = host.enqueue_with(json!({ "task": "villain/do", "payload": {}, "delay": "1h", "key": "late" }));
    client.post(&format!("/v1/jobs/{later}/cancel"), &Value::Null).ok();
    let id = start(client, &operation);
    eventually("one is tried", || (show(client, &id)["changed"] == 1).then_some(()));
    let again = client.post("/v1/operations", &operation).ok();
    assert_eq!((&again["id"], &again["duplicate"], &again["token"]), (&json!(id), &json!(true), &json!("late-1")));
    assert!(show(client, &id)["duplicate"].is_null(), "this is about a request");
    let retry = ["job", "retry", "--where", "key:late", "--token", "late-1"];
    let told = host.cli(&retry).output().expect("the command runs");
    assert!(told.stdout.starts_with(id.as_bytes()), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("an operation with this token began at"), "{told:?}");
    // Without a token a request is meant, whatever is open.
    let meant = json!({ "act": "retry", "where": "key:late" });
    let meant = [start(client, &meant), start(client, &meant)];
    assert!(meant[0] != meant[1] && !meant.contains(&id), "{meant:?}");
    meant.iter().for_each(|id| _ = ended(client, id));
    let bad = client.post("/v1/operations", &json!({ "act": "retry", "where": "key:late", "token": "" }));
    assert_eq!((bad.status, bad.json()["code"].as_str()), (400, Some("bad-request")), "{bad:?}");
    let listed = host.cli(&["operation", "list"]).output().expect("the command runs");
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(listed.contains(&id) && listed.contains("trying"), "{listed}");
    let cancelled = client.delete(&format!("/v1/operations/{id}"));
    assert_eq!(cancelled.json()["state"], "cancelled", "{cancelled:?}");
    assert_eq!(client.delete(&format!("/v1/operations/{id}")).json()["code"], "operation-ended");
    assert_eq!(client.get("/v1/operations/0000000000001").json()["code"], "operation-unknown");
    assert_eq!(client.get("/v1/operations?limit=1").ok()["operations"][0]["id"], json!(meant[1]));
}

#[test]
fn waiting_jobs_get_another_priority_by_one_command() {
    let host = Setup::default().plugin("villain").start();
    enqueue_delayed(host.client(), 3);
    let output = host.cli(&["job", "set-priority", "-7", "--where", "plugin:villain"]).output();
    let id = String::from_utf8(output.expect("the command runs").stdout).expect("text").trim().to_owned();
    let done = ended(host.client(), &id);
    assert_eq!(
        (&done["state"], &done["changed"], &done["priority"]),
        (&json!("done"), &json!(3), &json!(-7)),
        "{done}"
    );
    let jobs = host.client().get("/v1/jobs?state=delayed").ok()["jobs"].clone();
    assert!(
        jobs.as_array().is_some_and(|jobs| jobs.len() == 3 && jobs.iter().all(|job| job["priority"] == -7)),
        "{jobs}"
    );
    for (operation, said) in [
        (json!({ "act": "set-priority", "where": "key:a" }), "needs a priority"),
        (json!({ "act": "retry", "where": "key:a", "priority": 1 }), "only `set-priority` has a priority"),
        (json!({ "act": "cancel", "where": "key:a", "attempts": 2 }), "only `retry` gives jobs attempts"),
        (json!({ "act": "retry", "where": "key:a", "attempts": 0 }), "expected 1 to 1000, got 0"),
    ] {
        let reply = host.client().post("/v1/operations", &operation);
        let detail = reply.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(reply.status == 400 && detail.contains(said), "{operation}: {detail}");
    }
}

#[test]
fn a_retry_by_a_person_is_one_attempt_unless_more_are_asked_for() {
    let host = Setup::default().plugin("villain").start();
    let id = host.enqueue("villain/retrying", json!({ "do": "fail-retry", "text": "no luck" }));
    let attempts = |expected: u64| {
        eventually("it failed again", || {
            let job = host.finished(&id);
            (job["attempt"] == expected && job["state"] == "failed").then_some(job)
        })
    };
    attempts(5);
    host.client().post(&format!("/v1/jobs/{id}/retry"), &json!({})).ok();
    assert_eq!(attempts(6)["failures"], 1, "it is counted from the retry on");
    assert!(host.cli(&["job", "retry", &id, "--attempts", "3"]).status().expect("the command runs").success());
    attempts(9);
    let operation = start(host.client(), &json!({ "act": "retry", "where": format!("id:{id}"), "attempts": 2 }));
    assert_eq!(ended(host.client(), &operation)["attempts"], 2);
    attempts(11);
    let refused = host.client().post(&format!("/v1/jobs/{id}/retry?attempts=1001"), &json!({}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("bad-request")), "{refused:?}");
}
