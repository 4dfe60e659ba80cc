//! What plugins keep, from outside: granted, shown, there after a restart, and exact over `kill -9` under load.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chaos::{Addresses, count, under_load_of};
use crate::harness::{Host, Postgres, Setup, component, eventually, resolve, shared_address, wharf};

const GRANT: &str = "[plugins.changes]\nkv = true";
const KILLS: usize = 10;
const PAGES: usize = 7;

fn result(host: &Host, task: &str, payload: Value) -> Value {
    let job = host.run(task, payload);
    assert_eq!(job["state"], "succeeded", "{job}");
    host.result(job["id"].as_str().expect("an id"))
}

fn check(host: &Host, page: &str, text: &str) -> Value {
    result(host, "changes/check", json!({ "page": page, "text": text }))
}

fn again(host: &mut Host) {
    host.start();
    eventually("it is ready", || host.is_ready().then_some(()));
}

#[test]
fn a_plugin_remembers_and_its_operator_sees_how_much() {
    let mut host = Setup::default().plugin("changes").settings(GRANT).start();
    let of =
        |change: &str, checks: u64, changes: u64| json!({ "change": change, "checks": checks, "changes": changes });
    assert_eq!(check(&host, "a", "to be"), of("first", 1, 0));
    assert_eq!(check(&host, "a", "to be"), of("none", 2, 0));
    assert_eq!(check(&host, "b", "or not"), of("first", 1, 0));
    host.kill();
    again(&mut host);
    assert_eq!(check(&host, "a", "not to be"), of("changed", 3, 1));
    assert_eq!(host.terminate(), Some(0));
    again(&mut host);
    let listed = json!({ "pages": 2, "checks": 4, "changes": 1, "changed": ["a"] });
    assert_eq!(result(&host, "changes/list", json!({})), listed);
    assert_eq!(result(&host, "changes/list", json!({ "prefix": "b" }))["pages"], 1);

    let shown = host.client().get("/v1/plugins/changes").ok();
    let bytes = shown["kv"]["bytes"].as_u64().expect("a number");
    assert_eq!(
        (shown["kv"]["values"].as_u64(), shown["kv"]["bytes_max"].as_u64()),
        (Some(2), Some(64 << 20)),
        "{shown}"
    );
    assert!((60..200).contains(&bytes), "{shown}");
    let told = host.cli(&["plugin", "show", "changes"]).output().expect("the binary starts");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("kv        2 values with ") && told.contains("64.0 MiB granted"), "{told}");
    assert!(host.client().get("/v1/plugins").ok()[0]["kv"].is_null(), "to list plugins asks the store nothing");
}

#[test]
fn without_the_grant_it_is_refused_and_told_what_to_paste() {
    let host = Setup::default().plugin("changes").plugin("words").start();
    let shown = host.client().get("/v1/plugins/changes").ok();
    let problem = shown["refused"]["problems"][0].as_str().unwrap_or_else(|| panic!("{shown}"));
    let lines = "to grant it, in wharf.toml:\n    [plugins.changes]\n    kv = true";
    assert!(problem.contains("it imports `wharf:plugin/kv@0.1.0`") && problem.contains(lines), "{problem}");
    let counted = host.run("words/count", json!({ "text": "a b" }));
    assert_eq!(counted["state"], "succeeded", "others are loaded: {counted}");

    let file = component("changes");
    let checked = host.cli(&["check", &file.display().to_string()]).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(!checked.status.success() && said.contains("[plugins.changes]") && said.contains("kv = true"), "{said}");
}

#[test]
fn a_call_without_a_host_begins_with_nothing_and_keeps_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("wharf.toml"), GRANT).expect("settings can be written");
    let target = format!("{}#check", component("changes").display());
    for _ in 0..2 {
        let mut call = wharf();
        call.args(["call", &target, "--input", r#"{"page": "a", "text": "b"}"#]).current_dir(dir.path());
        let called = call.output().expect("the binary starts");
        let said = String::from_utf8_lossy(&called.stderr);
        assert_eq!(String::from_utf8_lossy(&called.stdout), r#"{"change":"first","checks":1,"changes":0}"#, "{said}");
    }
}

/// The check with this number.
fn numbered(n: usize) -> Value {
    let payload = json!({ "page": format!("p{}", n % PAGES), "text": format!("{}", n % 5) });
    json!({ "task": "changes/check", "payload": payload })
}

/// Each check reads a number and writes the next one: were one change lost, kept twice, or kept of an attempt that did not
/// count, the sum would be another than that of the jobs that succeeded.
fn counts_exactly_over_kills(setup: Setup) {
    let mut host = setup.plugin("changes").settings(GRANT).start();
    let here = |host: &Host| vec![host.client().address().to_owned()];
    let addresses: Addresses = Arc::new(Mutex::new(here(&host)));
    let ((), kept) = under_load_of(&addresses, numbered, |kept| {
        for _ in 0..KILLS {
            let before = count(kept);
            eventually("it is ready and work comes in", || {
                (host.is_ready() && count(kept) > before + 10).then_some(())
            });
            std::thread::park_timeout(Duration::from_millis(fastrand::u64(1..150)));
            host.kill();
            host.start();
            *addresses.lock().expect("no panic while it is held") = here(&host);
        }
    });
    let open = |state: &&str| host.client().get(&format!("/v1/jobs?state={state}")).ok();
    let none = |page: Value| page["jobs"].as_array().expect("a list").is_empty();
    eventually("nothing is stuck", || ["waiting", "running"].iter().map(open).all(none).then_some(()));
    let (mut succeeded, mut crashed) = (0, 0);
    for id in &kept {
        let job = host.job(id);
        match job["state"].as_str() {
            Some("succeeded") => succeeded += 1,
            // A job whose host dies under it again and again is failed on purpose.
            Some("failed") if job["crashes"].as_u64() >= Some(5) => crashed += 1,
            _ => panic!("an acknowledged job without its one end: {job}"),
        }
    }
    let listed = result(&host, "changes/list", json!({}));
    println!("{} checks over {KILLS} kills, {crashed} of them given up: {listed}", kept.len());
    // A job may have been taken whose answer was lost when the load was told to stop.
    let all: u64 = every_success(&host);
    assert_eq!(listed["checks"].as_u64(), Some(all), "{listed}");
    assert!(all >= succeeded && all <= succeeded + 4, "{all} of all, {succeeded} of the acknowledged");
    assert_eq!(listed["pages"].as_u64(), Some(PAGES as u64));
}

fn every_success(host: &Host) -> u64 {
    let (mut count, mut next) = (0, "/v1/jobs?state=succeeded&task=changes%2Fcheck&limit=1000".to_owned());
    loop {
        let page = host.client().get(&next).ok();
        count += page["jobs"].as_array().expect("a list").len() as u64;
        match page["next"].as_str() {
            Some(reference) => next = resolve(&next, reference),
            None => return count,
        }
    }
}

/// A guest that asks for what its plugin keeps waits for the database, and knows nothing of it.
#[test]
fn what_a_plugin_keeps_is_waited_for_while_the_database_is_away() {
    let mut postgres = Postgres::start(false);
    let settings = "[plugins.villain-kv]\nkv = true";
    let host = Setup::default().plugin("villain-kv").settings(settings).database(&postgres.address()).start();
    let id = host.enqueue("villain-kv/do", json!({ "steps": [{ "sleep": 3000 }, { "add": "n" }, { "get": "n" }] }));
    host.in_state(&id, "running");
    postgres.tell("stop");
    // Where the machine is so slow that the guest asks only later, it is answered at once, and the same holds.
    let away = Instant::now();
    eventually("the guest has slept and asks", || (away.elapsed() > Duration::from_secs(4)).then_some(()));
    postgres.tell("start");
    let job = host.finished(&id);
    let counts = (job["state"].as_str(), job["attempt"].as_u64(), job["failures"].as_u64());
    assert_eq!(counts, (Some("succeeded"), Some(1), Some(0)), "{job}");
    assert_eq!(host.result(&id), json!([null, 1, "1"]));
}

#[test]
fn kept_counts_are_exact_over_kills_on_sqlite() {
    counts_exactly_over_kills(Setup::default());
}

#[test]
fn kept_counts_are_exact_over_kills_on_postgres() {
    let settings = "[lease]\nlength = \"3s\"\nmargin = \"500ms\"";
    counts_exactly_over_kills(Setup::default().database(&shared_address()).settings(settings));
}
