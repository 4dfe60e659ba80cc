//! Schedules on running hosts: each tick has one job or none, whatever happens to the hosts, their clocks and their files.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Host, MachineClock, Setup, eventually, shared_address};

/// A job that ends at once.
const QUICK: &str = r#"{ "do": "sleep", "ms": 0 }"#;

fn payload() -> Value {
    serde_json::from_str(QUICK).expect("JSON")
}

fn every_second(more: &Value) -> Value {
    let mut definition = json!({ "task": "villain/do", "every": "1s", "payload": payload(), "missed": "all" });
    let more = more.as_object().expect("members");
    more.iter().for_each(|(name, value)| definition[name] = value.clone());
    definition
}

#[track_caller]
pub(crate) fn put(client: &Client, id: &str, definition: &Value) -> Value {
    eventually("the plugin is loaded", || {
        let reply = client.put(&format!("/v1/schedules/{id}"), definition);
        (reply.json()["code"] != "plugin-loading").then(|| reply.ok())
    })
}

pub(crate) fn show(client: &Client, id: &str) -> Value {
    client.get(&format!("/v1/schedules/{id}")).ok()
}

fn fired(client: &Client, id: &str) -> u64 {
    show(client, id)["ticks"]["fired"].as_u64().expect("a number")
}

pub(crate) fn wait_for_ticks(client: &Client, id: &str, more: u64) {
    let before = fired(client, id);
    eventually("it ticks", || (fired(client, id) >= before + more).then_some(()));
}

/// Returns the number of jobs of each tick of a schedule, by the second of the tick since 1970.
fn jobs_by_tick(client: &Client, id: &str) -> BTreeMap<i64, usize> {
    let (mut path, mut ticks) = ("/v1/jobs?limit=1000".to_owned(), BTreeMap::new());
    let prefix = format!("schedule:{id}@");
    loop {
        let page = client.get(&path).ok();
        for job in page["jobs"].as_array().expect("jobs") {
            let Some(tick) = job["token"].as_str().and_then(|token| token.strip_prefix(&prefix)) else { continue };
            let tick: jiff::Timestamp = tick.parse().expect("a moment");
            *ticks.entry(tick.as_second()).or_insert(0) += 1;
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/jobs{next}"),
            None => return ticks,
        }
    }
}

/// Checks that each tick has one job, and that no tick between the first and the last is left out.
#[track_caller]
fn each_tick_has_one_job(client: &Client, id: &str) {
    let ticks = jobs_by_tick(client, id);
    assert!(ticks.values().all(|jobs| *jobs == 1), "{ticks:?}");
    let (first, last) = (ticks.keys().next().expect("a tick"), ticks.keys().next_back().expect("a tick"));
    assert_eq!((last - first + 1) as usize, ticks.len(), "{ticks:?}");
}

#[test]
fn a_schedule_is_defined_shown_paused_run_and_removed() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    let new = put(client, "tick", &every_second(&json!({ "missed": "latest" })));
    assert_eq!(
        (&new["state"], &new["source"], &new["next"].as_array().map(Vec::len)),
        (&json!("active"), &json!("api"), &Some(5))
    );
    assert_eq!(new["payload"], payload());
    wait_for_ticks(client, "tick", 2);
    let last = show(client, "tick")["recent"][0].clone();
    assert_eq!(last["outcome"], "fired");
    assert_eq!(host.finished(last["job"].as_str().expect("a job"))["state"], "succeeded");

    let pause = json!({ "for": "1h", "reason": "a rest" });
    let paused = client.post("/v1/schedules/tick/pause", &pause).ok();
    assert_eq!((&paused["state"], &paused["pause"]["reason"]), (&json!("paused"), &json!("a rest")));
    let run = client.post("/v1/schedules/tick/run", &Value::Null).ok()["job"].as_str().expect("a job").to_owned();
    let job = host.finished(&run);
    assert_eq!((&job["state"], &job["token"]), (&json!("succeeded"), &Value::Null));
    let resumed = client.post("/v1/schedules/tick/resume", &Value::Null).ok();
    assert_eq!((&resumed["state"], resumed.get("pause")), (&json!("active"), None));
    wait_for_ticks(client, "tick", 1);

    let berlin = json!({ "task": "villain/do", "cron": "30 2 * * *", "zone": "europe/berlin", "payload": payload() });
    assert_eq!(put(client, "nightly", &berlin)["zone"], "Europe/Berlin");
    let shown = host.cli(&["schedule", "show", "nightly"]).output().expect("the command runs");
    let (out, said) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert!(
        out.contains("30 2 * * * Europe/Berlin") && out.contains("T02:30:00+0") && out.contains("IANA 20"),
        "{out}"
    );
    assert!(said.contains("first moment after the gap"), "{said}");
    let listed = client.get("/v1/schedules?limit=1").ok();
    assert_eq!((&listed["schedules"][0]["id"], listed["next"].is_string()), (&json!("nightly"), true));

    assert_eq!(client.delete("/v1/schedules/tick").status, 204);
    for gone in ["/v1/schedules/tick", "/v1/schedules/no%20id"] {
        assert_eq!(client.get(gone).json()["code"], "schedule-unknown");
    }
    let acts = client.get("/v1/audit?limit=10").ok();
    let acts: Vec<&str> = acts["acts"].as_array().expect("acts").iter().filter_map(|act| act["act"].as_str()).collect();
    let expected =
        ["schedule-removed", "schedule-set", "schedule-resumed", "schedule-run", "schedule-paused", "schedule-set"];
    assert_eq!(acts, expected);
    assert!(host.metric("wharf_schedule_ticks_total{outcome=\"fired\"}") >= Some(3.0));
}

#[test]
fn definitions_that_are_not_valid_are_refused_and_change_nothing() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    put(client, "tick", &every_second(&json!({ "every": "1h" })));
    let refused = |more: &Value| {
        let reply = client.put("/v1/schedules/tick", &every_second(more)).json();
        (reply["code"].as_str().unwrap_or_default().to_owned(), reply["detail"].as_str().unwrap_or_default().to_owned())
    };
    for (more, code, text) in [
        (json!({ "cron": "0 3 * * *" }), "bad-request", "`cron` and `every`"),
        (json!({ "every": "0s" }), "bad-request", "from 1s to 366d"),
        (json!({ "every": null, "cron": "0 0 30 2 *" }), "bad-request", "none comes"),
        (json!({ "every": null, "cron": "0 0 3 * * *" }), "bad-request", "expected `minute hour"),
        (json!({ "every": null, "cron": "0 3 * * *", "zone": "Europe/Berln" }), "bad-request", "`Europe/Berlin`?"),
        (json!({ "window": "8d" }), "bad-request", "at most 7d"),
        (json!({ "overlap": "never" }), "bad-request", "`queue-one`"),
        (json!({ "pause_after": 0 }), "bad-request", "failures in a row"),
        (json!({ "task": "villain/don" }), "job-invalid", "villain/do"),
        (json!({ "payload": "x".repeat(20_000) }), "bad-request", "at most 16384 bytes"),
    ] {
        let (found, detail) = refused(&more);
        assert!(found == code && detail.contains(text), "{more}: {found}: {detail}");
    }
    assert_eq!(show(client, "tick")["every_ms"], 3_600_000.0);
    let token = json!({ "task": "villain/do", "payload": payload(), "token": "schedule:tick@x" });
    let reply = client.post("/v1/jobs", &token).json();
    assert!(reply["detail"].as_str().is_some_and(|text| text.contains("only schedules")), "{reply}");
}

/// Kills hosts at random moments while a schedule ticks, and starts them again.
fn survives(hosts: &mut [Host]) {
    put(hosts[0].client(), "tick", &every_second(&json!({})));
    for _ in 0..8 {
        let place = fastrand::usize(..hosts.len());
        std::thread::sleep(Duration::from_millis(fastrand::u64(200..1500)));
        hosts[place].kill();
        hosts[place].start();
        wait_for_ticks(hosts[place].client(), "tick", 1);
    }
    let client = hosts[0].client();
    wait_for_ticks(client, "tick", 2);
    client.post("/v1/schedules/tick/pause", &json!({})).ok();
    each_tick_has_one_job(client, "tick");
}

#[test]
fn each_tick_has_one_job_although_the_host_is_killed_again_and_again() {
    survives(&mut [Setup::default().plugin("villain").start()]);
}

#[test]
fn each_tick_has_one_job_although_hosts_that_share_a_store_are_killed_again_and_again() {
    let address = shared_address();
    let host = || Setup::default().plugin("villain").database(&address).start();
    survives(&mut [host(), host()]);
}

#[test]
fn a_clock_that_was_ahead_holds_nothing_up_and_repeats_nothing() {
    let clock = MachineClock::new();
    let host = Setup::default().plugin("villain").clock(&clock).start();
    let client = host.client();
    put(client, "tick", &every_second(&json!({ "missed": "latest" })));
    wait_for_ticks(client, "tick", 2);
    clock.set(3600);
    wait_for_ticks(client, "tick", 2);
    clock.set(0);
    wait_for_ticks(client, "tick", 2);
    let ticks = jobs_by_tick(client, "tick");
    assert!(ticks.values().all(|jobs| *jobs == 1), "{ticks:?}");
    let span = ticks.keys().next_back().expect("a tick") - ticks.keys().next().expect("a tick");
    assert!(span > 3000, "it ticked while the clock was ahead: {span}");
}

#[test]
fn ticks_wait_for_a_plugin_that_is_absent_and_the_newest_is_fired_when_it_comes() {
    let mut host = Setup::default().plugin("villain").start();
    put(host.client(), "tick", &every_second(&json!({ "missed": "latest" })));
    wait_for_ticks(host.client(), "tick", 1);
    let (file, kept) = (host.plugin_file("villain"), host.dir().join("villain.kept"));
    host.terminate();
    std::fs::rename(&file, &kept).expect("moved");
    host.start();
    let before = fired(host.client(), "tick");
    eventually("ticks are missed", || {
        let recent = show(host.client(), "tick")["recent"].clone();
        let outcomes: Vec<&str> = recent.as_array()?.iter().filter_map(|tick| tick["outcome"].as_str()).collect();
        outcomes.contains(&"no-host").then_some(())
    });
    assert_eq!(fired(host.client(), "tick"), before);
    std::fs::rename(&kept, &file).expect("moved back");
    wait_for_ticks(host.client(), "tick", 1);
}

#[test]
fn under_a_hold_one_job_waits() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    put(client, "tick", &every_second(&json!({ "missed": "latest" })));
    client.post("/v1/holds", &json!({ "task": "villain/do" })).ok();
    let held = eventually("ticks are held", || {
        let shown = show(client, "tick");
        let held = shown["recent"].as_array()?.iter().find(|tick| tick["outcome"] == "held")?.clone();
        (held["count"].as_u64() >= Some(3)).then_some(held)
    });
    let waiting = client.get("/v1/jobs?where=state:held").ok();
    assert_eq!(waiting["jobs"].as_array().map(Vec::len), Some(1), "{waiting}");
    assert_eq!(waiting["jobs"][0]["id"], held["job"]);
    client.delete("/v1/holds?task=villain%2Fdo");
    wait_for_ticks(client, "tick", 1);
}

#[test]
fn failures_in_a_row_pause_a_schedule() {
    let once = "[plugins.villain.tasks.do]\nretry = { attempts = 1 }";
    let host = Setup::default().plugin("villain").settings(once).start();
    let client = host.client();
    let failing = json!({ "payload": { "do": "trap", "kind": "bad" }, "pause_after": 2, "overlap": "skip" });
    put(client, "tick", &every_second(&failing));
    let paused = eventually("it pauses", || Some(show(client, "tick")).filter(|shown| shown["state"] == "paused"));
    let reason = paused["pause"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("jobs have failed") && paused["next"] == json!([]), "{paused}");
}

fn edit(host: &Host, text: &str) {
    let file = host.dir().join("wharf.toml");
    let old = std::fs::read_to_string(&file).expect("a settings file");
    let kept = old.split("[schedules").next().unwrap_or_default();
    std::fs::write(&file, format!("{kept}{text}")).expect("written");
    host.signal("-HUP");
}

fn in_file(id: &str, every: &str) -> String {
    format!("[schedules.{id}]\ntask = \"villain/do\"\nevery = \"{every}\"\npayload = {QUICK}\n")
        .replace("\": ", "\" = ")
        .replace("{ \"do\" = \"sleep\", \"ms\" = 0 }", "{ do = \"sleep\", ms = 0 }")
}

#[test]
fn schedules_of_a_file_are_added_changed_and_retired_without_a_restart() {
    let host = Setup::default().plugin("villain").settings(&in_file("tick", "1s")).start();
    let client = host.client();
    eventually("it is there", || (client.get("/v1/schedules/tick").status == 200).then_some(()));
    assert_eq!(show(client, "tick")["source"], "file");
    wait_for_ticks(client, "tick", 1);
    let code = client.put("/v1/schedules/tick", &every_second(&json!({}))).json()["code"].clone();
    assert_eq!(code, "schedule-in-file");
    put(client, "api", &every_second(&json!({ "every": "1h" })));

    edit(&host, &(in_file("tick", "2h") + &in_file("new", "1h") + &in_file("api", "5s")));
    eventually("it is changed", || (show(client, "tick")["every_ms"] == 7_200_000.0).then_some(()));
    assert!(fired(client, "tick") > 0, "its past stays");
    assert_eq!(show(client, "new")["source"], "file");
    eventually("the difference is told", || {
        host.said().contains("one of this ID was made through the API").then_some(())
    });
    assert_eq!(show(client, "api")["every_ms"], 3_600_000.0);
    // Once it is removed, that of the file takes its place.
    assert_eq!(client.delete("/v1/schedules/api").status, 204);
    eventually("the file's holds", || (client.get("/v1/schedules/api").json()["source"] == "file").then_some(()));
    edit(&host, &(in_file("tick", "2h") + &in_file("new", "1h")));
    eventually("it is retired", || (show(client, "api")["state"] == "retired").then_some(()));
    assert_eq!(client.delete("/v1/schedules/api").status, 204);
    put(client, "api", &every_second(&json!({ "every": "1h" })));

    edit(&host, "[schedules.bad]\ntask = \"villain/do\"\ncron = \"0 3 * *\"\n");
    eventually("a mistake is told", || host.said().contains("expected `minute hour").then_some(()));
    assert_eq!(show(client, "new")["state"], "active", "nothing changes");

    edit(&host, &in_file("tick", "2h"));
    eventually("it is retired", || (show(client, "new")["state"] == "retired").then_some(()));
    assert_eq!((&show(client, "api")["state"], &show(client, "tick")["state"]), (&json!("active"), &json!("active")));
    assert_eq!(client.delete("/v1/schedules/new").status, 204);
    assert_eq!(client.delete("/v1/schedules/tick").status, 409);
}

#[test]
fn a_host_with_an_older_file_undoes_nothing_while_one_with_a_newer_lives() {
    let address = shared_address();
    let host = |every| Setup::default().plugin("villain").settings(&in_file("tick", every)).database(&address).start();
    let mut old = host("2h");
    eventually("it is there", || (old.client().get("/v1/schedules/tick").status == 200).then_some(()));
    // Files are compared by when they were written.
    std::thread::sleep(Duration::from_millis(50));
    let mut new = host("3h");
    let is = |client: &Client, ms: f64| (show(client, "tick")["every_ms"] == ms).then_some(());
    eventually("the newer file holds", || is(new.client(), 10_800_000.0));
    old.kill();
    old.start();
    eventually("the difference is told", || old.said().contains("a host with a newer file").then_some(()));
    assert_eq!(show(old.client(), "tick")["every_ms"], 10_800_000.0);
    // Where nobody has it any more, the older one holds again.
    new.terminate();
    eventually_long("the older file holds", || is(old.client(), 7_200_000.0));
}

#[test]
fn a_host_without_schedules_retires_those_of_a_host_that_is_gone() {
    let address = shared_address();
    let stays = Setup::default().plugin("villain").database(&address).start();
    let mut dies = Setup::default().plugin("villain").settings(&in_file("tick", "1h")).database(&address).start();
    eventually("it is there", || (stays.client().get("/v1/schedules/tick").status == 200).then_some(()));
    dies.kill();
    eventually_long("it is retired", || (show(stays.client(), "tick")["state"] == "retired").then_some(()));
}

#[test]
fn jobs_of_a_schedule_that_must_not_overlap_run_one_after_the_other() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    let slow = json!({ "payload": { "do": "sleep", "ms": 2500 }, "missed": "latest" });
    let overlaps = ["queue-one", "replace"];
    for overlap in overlaps {
        let mut definition = every_second(&slow);
        definition["overlap"] = json!(overlap);
        put(client, overlap, &definition);
    }
    eventually("several have run", || {
        let page = client.get("/v1/jobs?limit=1000").ok();
        for overlap in overlaps {
            let is_of = |job: &&Value| {
                job["token"].as_str().is_some_and(|token| token.starts_with(&format!("schedule:{overlap}@")))
            };
            let running = page["jobs"].as_array()?.iter().filter(is_of).filter(|job| job["state"] == "running").count();
            assert!(running <= 1, "{overlap}: {page}");
        }
        overlaps.iter().all(|overlap| fired(client, overlap) >= 3).then_some(())
    });
    // A newer tick takes the place of one that waits: that one was in the way of a job, or was passed as the job had just ended.
    let ticks = show(client, "queue-one")["ticks"].clone();
    assert!(ticks["skipped"].as_u64() > Some(0) || ticks["missed"].as_u64() > Some(0), "{ticks}");
}

/// A host compares files twice, half a minute apart, before one of a host that is gone no longer counts.
fn eventually_long<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    crate::harness::eventually_within(Duration::from_secs(180), what, look)
}

#[test]
fn a_token_needs_to_operate_and_to_enqueue_the_task_of_a_schedule() {
    let tokens = "[[tokens]]\nname = \"ops\"\nfrom = \"env:OPS\"\ncan = [\"operate\"]\n\
                  [[tokens]]\nname = \"both\"\nfrom = \"env:BOTH\"\ncan = [\"operate\", \"enqueue:villain/*\"]\n";
    let host = Setup::default()
        .plugin("villain")
        .settings(tokens)
        .token("everything-everything")
        .variable("OPS", "operator-operator-1")
        .variable("BOTH", "operator-operator-2")
        .start();
    let with = |token: &str| Client::new(host.client().address()).with_token(Some(token));
    let refused = with("operator-operator-1").put("/v1/schedules/tick", &every_second(&json!({}))).json();
    assert_eq!((&refused["code"], &refused["scope"]), (&json!("forbidden"), &json!("enqueue:villain/do")), "{refused}");
    put(&with("operator-operator-2"), "tick", &every_second(&json!({ "every": "1h" })));
    let refused = with("operator-operator-1").post("/v1/schedules/tick/run", &Value::Null).json();
    assert_eq!((&refused["code"], &refused["scope"]), (&json!("forbidden"), &json!("enqueue:villain/do")), "{refused}");
    with("operator-operator-2").post("/v1/schedules/tick/run", &Value::Null).ok();
    assert_eq!(show(&with("operator-operator-1"), "tick")["author"], "both");
}

/// Returns the results of the jobs of a schedule that have succeeded, in the order of their ticks.
fn results(host: &Host, id: &str, at_least: usize) -> Vec<(jiff::Timestamp, Value)> {
    let prefix = format!("schedule:{id}@");
    eventually("jobs of the schedule have ended", || {
        let page = host.client().get("/v1/jobs?where=state:succeeded&limit=200").ok();
        let jobs = page["jobs"].as_array()?.iter().filter_map(|job| {
            let tick = job["token"].as_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((tick, host.result(job["id"].as_str()?)))
        });
        let mut jobs: Vec<_> = jobs.collect();
        jobs.sort_by_key(|(tick, _)| *tick);
        (jobs.len() >= at_least).then_some(jobs)
    })
}

#[test]
fn a_plugin_asks_for_its_tick_and_the_one_before() {
    let host = Setup::default().plugin("villain-kv").settings("[plugins.villain-kv]\nkv = true").start();
    let steps = json!({ "steps": ["tick"] });
    put(host.client(), "tick", &json!({ "task": "villain-kv/do", "every": "1s", "payload": steps, "missed": "all" }));
    let mut before = None;
    for (tick, result) in results(&host, "tick", 3) {
        let told = &result[0];
        assert_eq!(told["tick"], tick.as_millisecond(), "{result}");
        assert_eq!(told["previous"].as_i64(), before, "{result}");
        assert_eq!(told["missed"], 0, "{result}");
        before = Some(tick.as_millisecond());
    }
    // Nobody's schedule ticked for these.
    let run = host.client().post("/v1/schedules/tick/run", &json!({})).ok();
    for id in [run["job"].as_str().expect("an id").to_owned(), host.enqueue("villain-kv/do", steps)] {
        host.finished(&id);
        assert_eq!(host.result(&id)[0], json!({ "tick": null, "previous": null, "missed": 0 }), "{id}");
    }
}

#[test]
fn a_program_has_its_tick_in_a_variable_and_a_payload_has_it_where_the_schedule_says() {
    let settings = "[plugins.program.tasks.run]\nargs = [\"--env\", \"WHARF_TICK\"]";
    let host = Setup::default().plugin("program").plugin("villain").settings(settings).start();
    put(host.client(), "program", &json!({ "task": "program/run", "every": "1s" }));
    for (tick, result) in results_as_text(&host, "program", 1) {
        assert_eq!(result.trim().parse::<jiff::Timestamp>().expect(&result), tick);
    }
    let echo = json!({ "do": "echo", "payload": { "days": 1 } });
    let definition = json!({ "task": "villain/do", "every": "1s", "payload": echo, "tick_as": "/payload/at" });
    assert_eq!(put(host.client(), "inside", &definition)["tick_as"], "/payload/at");
    for (tick, result) in results(&host, "inside", 1) {
        assert_eq!(result, json!({ "at": tick.to_string(), "days": 1 }));
    }
    let wrong = json!({ "task": "villain/do", "every": "1s", "payload": echo, "tick_as": "/do/at" });
    let reply = host.client().put("/v1/schedules/wrong", &wrong).json();
    assert!(reply["detail"].as_str().is_some_and(|text| text.contains("invalid tick-as `/do/at`")), "{reply}");
}

/// Returns the results as texts, which need not be JSON.
fn results_as_text(host: &Host, id: &str, at_least: usize) -> Vec<(jiff::Timestamp, String)> {
    let prefix = format!("schedule:{id}@");
    eventually("jobs of the schedule have ended", || {
        let page = host.client().get("/v1/jobs?where=state:succeeded&limit=200").ok();
        let jobs = page["jobs"].as_array()?.iter().filter_map(|job| {
            let tick = job["token"].as_str()?.strip_prefix(&prefix)?.parse().ok()?;
            let result = host.client().get(&format!("/v1/jobs/{}/result", job["id"].as_str()?)).body;
            Some((tick, String::from_utf8_lossy(&result).into_owned()))
        });
        let jobs: Vec<_> = jobs.collect();
        (jobs.len() >= at_least).then_some(jobs)
    })
}

#[test]
fn a_schedule_that_a_plugin_suggests_does_nothing_until_it_is_accepted() {
    let mut host = Setup::default().plugin("program").start();
    host.terminate();
    let manifest =
        "[schedules.nightly]\ntask = \"run\"\ncron = \"0 3 * * *\"\nzone = \"Europe/Berlin\"\npayload = { days = 1 }\n";
    std::fs::write(host.plugin_file("program").with_extension("toml"), manifest).expect("written");
    host.start();
    let shown = eventually("the plugin is loaded", || {
        let plugin = host.client().get("/v1/plugins/program").json();
        plugin["loaded"]["schedules"].as_array().cloned()
    });
    assert_eq!(shown[0]["name"], "nightly");
    assert_eq!(shown[0]["definition"]["task"], "program/run");
    assert_eq!(host.client().get("/v1/schedules").ok()["schedules"], json!([]));
    let said = |args: &[&str]| {
        let output = host.cli(args).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (_, text) = said(&["plugin", "show", "program"]);
    assert!(text.contains("wharf schedule accept program/nightly"), "{text}");
    let (done, text) = said(&["schedule", "accept", "program/weekly"]);
    assert!(!done && text.contains("suggests no schedule `weekly`; it suggests nightly"), "{text}");
    let (done, text) = said(&["schedule", "accept", "program/nightly", "--id", "mine"]);
    assert!(done, "{text}");
    let schedule = show(host.client(), "mine");
    assert_eq!((&schedule["cron"], &schedule["zone"]), (&json!("0 3 * * *"), &json!("Europe/Berlin")));
    assert_eq!((&schedule["payload"], &schedule["source"]), (&json!({ "days": 1 }), &json!("api")));
    // Another schedule of the name is not replaced; the same one again is no error.
    assert!(said(&["schedule", "accept", "program/nightly", "--id", "mine"]).0);
    let other = json!({ "task": "program/run", "every": "365d" });
    host.client().put("/v1/schedules/nightly", &other).ok();
    let (done, text) = said(&["schedule", "accept", "program/nightly"]);
    assert!(!done && text.contains("there is another schedule `nightly`; choose another name"), "{text}");
    assert_eq!(show(host.client(), "nightly")["cron"], Value::Null, "it is as it was");
}
