//! Holds on a running host: what waits, what goes on, what is said of it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Client, Host, Setup, eventually, wharf};

fn sleeper(host: &Host, task: &str, key: &str, ms: u64) -> String {
    host.enqueue(task, json!({ "key": key, "do": "sleep", "ms": ms }))
}

#[track_caller]
fn hold(host: &Host, hold: &Value) -> Value {
    host.client().post("/v1/holds", hold).ok()
}

#[track_caller]
fn release(client: &Client, query: &str) {
    let reply = client.delete(&format!("/v1/holds?{query}"));
    assert_eq!(reply.status, 204, "{reply:?}");
}

#[test]
fn a_hold_keeps_jobs_waiting_and_what_runs_goes_on() {
    let host = Setup::default().plugin("villain").start();
    let running = sleeper(&host, "villain/keyed", "k", 4000);
    host.in_state(&running, "running");
    let set = hold(&host, &json!({ "task": "villain/keyed", "reason": "the upstream is down" }));
    assert_eq!(
        (&set["kind"], &set["task"], &set["until"], &set["by"], &set["known"]),
        (&json!("task"), &json!("villain/keyed"), &Value::Null, &Value::Null, &json!(true)),
        "{set}"
    );
    let waiting = sleeper(&host, "villain/keyed", "other", 0);
    let why = &host.job(&waiting)["wait"];
    assert_eq!(why["reason"], "held", "{why}");
    assert_eq!(why["message"], "an operator holds task `villain/keyed`: the upstream is down");
    assert_eq!(why["hold"]["since"], set["since"]);
    let free = host.enqueue("villain/do", json!({ "do": "sleep", "ms": 0 }));
    assert_eq!(host.finished(&free)["state"], "succeeded", "other tasks go on");
    assert_eq!(host.finished(&running)["state"], "succeeded", "what ran went on");
    assert_eq!(host.job(&waiting)["wait"]["reason"], "held");
    release(host.client(), "task=villain%2Fkeyed");
    assert_eq!(host.finished(&waiting)["state"], "succeeded");
    assert_eq!(host.client().delete("/v1/holds?task=villain%2Fkeyed").json()["code"], "hold-unknown");
    assert_eq!(host.metric("wharf_hold_changes_total{change=\"set\"}"), Some(1.0));
    assert_eq!(host.metric("wharf_hold_changes_total{change=\"released\"}"), Some(1.0));
}

#[test]
fn a_hold_ends_at_its_moment_without_anybodys_help() {
    let host = Setup::default().plugin("villain").start();
    let set = hold(&host, &json!({ "key": "k", "for": "10s" }));
    assert!(set["until"].is_string(), "{set}");
    let id = sleeper(&host, "villain/keyed", "k", 0);
    let why = &host.job(&id)["wait"];
    assert_eq!((&why["reason"], &why["until"]), (&json!("held"), &set["until"]), "{why}");
    assert_eq!(host.finished(&id)["state"], "succeeded");
    assert_eq!(host.client().get("/v1/holds").ok()["holds"], json!([]));
}

#[test]
fn a_hold_outlives_the_host() {
    let mut host = Setup::default().plugin("villain").start();
    hold(&host, &json!({ "group": "villain/keyed", "key": "k" }));
    let id = sleeper(&host, "villain/keyed", "k", 0);
    host.kill();
    host.start();
    eventually("its plugin is loaded", || host.is_ready().then_some(()));
    let other = sleeper(&host, "villain/keyed", "other", 0);
    assert_eq!(host.finished(&other)["state"], "succeeded");
    assert_eq!(host.job(&id)["wait"]["reason"], "held");
    release(host.client(), "group=villain%2Fkeyed&key=k");
    assert_eq!(host.finished(&id)["state"], "succeeded");
}

#[test]
fn broadcasts_skip_held_subscribers_and_durable_ones_wait() {
    let section = |id: &str| format!("[plugins.{id}]\nenv = {{ ORDER = '{}' }}\n", json!({ "do": "job" }));
    let host = Setup::default()
        .plugin_as("villain", "fine")
        .plugin_as("villain", "held")
        .settings(&section("fine"))
        .settings(&section("held"))
        .start();
    let send = |durable: bool| {
        let body = json!({ "payload": { "do": "from-env" }, "durable": durable });
        host.client().post("/v1/broadcasts/villain.saved", &body).ok()
    };
    let outcomes = |broadcast: &Value| -> Vec<(String, String)> {
        let replies = broadcast["replies"].as_array().expect("a list").iter();
        let member = |reply: &Value, name: &str| reply[name].as_str().expect("text").to_owned();
        let mut all: Vec<_> = replies.map(|reply| (member(reply, "plugin"), member(reply, "outcome"))).collect();
        all.sort();
        all
    };
    let of = |held: &str| [("fine".to_owned(), "replied".to_owned()), ("held".to_owned(), held.to_owned())];
    assert_eq!(outcomes(&send(false)), of("replied"));
    hold(&host, &json!({ "plugin": "held" }));
    let live = send(false);
    assert_eq!(outcomes(&live), of("skipped"), "{live}");
    assert!(live.to_string().contains("an operator holds it, by the hold `plugin:held`"), "{live}");
    let durable = send(true);
    let url = format!("/v1/broadcasts/{}", durable["id"].as_str().expect("an id"));
    let states = || host.client().get(&url).ok()["states"].clone();
    eventually("the other one is done", || (states() == json!({ "succeeded": 1, "waiting": 1 })).then_some(()));
    release(host.client(), "plugin=held");
    eventually("both are done", || (states() == json!({ "succeeded": 2 })).then_some(()));
    assert_eq!(outcomes(&send(false)), of("replied"));
}

#[test]
fn the_commands_hold_list_and_release() {
    let host = Setup::default().plugin("villain").start();
    let run = |args: &[&str]| {
        let output = host.cli(args).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, _) = run(&["hold", "key", "a b", "--group", "villain/keyed", "--for", "1h", "--reason", "429"]);
    assert!(
        code == Some(0) && out.contains("key `a b` in limit group `villain/keyed`") && out.contains("429"),
        "{out}"
    );
    let (code, out, note) = run(&["hold", "plugin", "wrods", "--json"]);
    assert!(code == Some(0) && out.contains("\"known\":false"), "{out}");
    assert!(note.contains("no host has plugin `wrods` yet"), "{note}");
    let (_, out, _) = run(&["holds"]);
    assert!(out.contains("plugin `wrods`") && out.contains("no end") && out.lines().count() == 3, "{out}");
    assert_eq!(run(&["release", "key", "a b", "--group", "villain/keyed"]).0, Some(0));
    assert_eq!(run(&["release", "plugin", "wrods"]).0, Some(0));
    let (code, _, error) = run(&["release", "all"]);
    assert!(code != Some(0) && error.contains("unknown hold `all`"), "{error}");
    assert!(run(&["holds"]).2.contains("nothing is held"));
    let (_, _, note) = run(&["limit", "set", "villain/keyed", "--total", "0"]);
    assert!(note.contains("`wharf hold`"), "{note}");
}

#[test]
fn the_keys_of_a_file_are_held_in_few_requests() {
    let host = Setup::default().plugin("villain").start();
    let file = host.dir().join("keys.txt");
    let keys: Vec<String> = (0..2500).map(|number| format!("tenant {number}")).collect();
    std::fs::write(&file, keys.join("\n")).expect("a file");
    let file = file.display().to_string();
    let hold = ["hold", "key", "--keys-from", &file, "--group", "villain/keyed", "--for", "1h", "--reason", "unpaid"];
    let done = host.cli(&hold).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "2500 keys are held\n", "{done:?}");
    let id = sleeper(&host, "villain/keyed", "tenant 2499", 0);
    let why = &host.job(&id)["wait"];
    assert_eq!((&why["reason"], &why["hold"]["reason"]), (&json!("held"), &json!("unpaid")), "{why}");
    let page = host.client().get("/v1/holds?limit=1000").ok();
    assert_eq!((page["holds"].as_array().map(Vec::len), page["next"].is_string()), (Some(1000), true));
    let acts = host.client().get("/v1/audit?act=hold-set&limit=1000").ok();
    assert_eq!(acts["acts"].as_array().map(Vec::len), Some(1000), "each key is in the audit log");

    let many: Vec<String> = (0..1001).map(|number| number.to_string()).collect();
    for (body, says) in [
        (json!({ "keys": [] }), "expected 1 to 1000 keys, got 0"),
        (json!({ "keys": many }), "expected 1 to 1000 keys, got 1001"),
        (json!({ "keys": ["a"], "key": "b" }), "no other member"),
        (json!({ "keys": ["a", ""] }), "`key`"),
    ] {
        let refused = host.client().post("/v1/holds", &body).json();
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{refused}");
    }
    let set = host.client().post("/v1/holds", &json!({ "keys": ["a", "b"] })).ok();
    assert_eq!(set["holds"][1]["key"], "b", "in the order of the request: {set}");
}

#[test]
fn what_is_no_hold_is_refused() {
    let host = Setup::default().plugin("villain").start();
    for (request, problem) in [
        (json!({}), "expected exactly one of"),
        (json!({ "plugin": "a", "key": "b" }), "expected exactly one of"),
        (json!({ "task": "nothing" }), "`task`: invalid task"),
        (json!({ "key": "k", "for": "0s" }), "the hold would end at once"),
        (json!({ "key": "k", "until": "2001-01-31T12:00:00Z" }), "the hold would end at once"),
        (json!({ "key": "k", "for": "1s", "until": "2030-01-31T12:00:00Z" }), "both given"),
        (json!({ "key": "k", "reason": "two\nlines" }), "control characters"),
        (json!({ "key": "k", "reason": "x".repeat(501) }), "at most 500 bytes"),
        (json!({ "key": "k", "resaon": "x" }), "did you mean `reason`?"),
    ] {
        let reply = host.client().post("/v1/holds", &request);
        assert_eq!(reply.status, 400, "{request}: {}", reply.json());
        assert!(reply.json()["detail"].as_str().expect("text").contains(problem), "{request}: {}", reply.json());
    }
    assert_eq!(host.client().get("/v1/holds").ok(), json!({ "holds": [] }));
    assert_eq!(host.client().get("/v1/holds?limit=0").status, 400);
    assert_eq!(host.client().get("/v1/holds?after=nothing").status, 400);
}

#[test]
fn holds_are_listed_in_pages() {
    let host = Setup::default().start();
    let keys: Vec<String> = (0..5).map(|number| format!("k&{number}")).collect();
    keys.iter().for_each(|key| _ = hold(&host, &json!({ "key": key })));
    let (mut path, mut seen) = ("/v1/holds?limit=2".to_owned(), Vec::new());
    loop {
        let page = host.client().get(&path).ok();
        seen.extend(
            page["holds"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|hold| hold["key"].as_str().expect("a key").to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/holds{next}"),
            None => break,
        }
    }
    assert_eq!(seen, keys);
}

/// A token that is bound to a key sees why its jobs wait, and not what operators say of others.
#[test]
fn a_hold_has_its_author_and_a_client_of_one_key_is_told_no_more_than_it_may_know() {
    let output = wharf().args(["token", "new", "--json"]).output().expect("it runs");
    let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let table = format!(
        "[[tokens]]\nname = \"tenant\"\nhash = {}\ncan = [\"operate\", \"enqueue:*\"]\nkey = \"k\"\n",
        made["hash"]
    );
    let host = Setup::default().plugin("villain").token("the-token-of-the-tests").settings(&table).start();
    let tenant = host.client().clone().with_token(made["token"].as_str());
    let id = sleeper(&host, "villain/keyed", "k", 60_000);
    host.in_state(&id, "running");
    let id = sleeper(&host, "villain/keyed", "k", 0);
    let set = hold(&host, &json!({ "plugin": "villain", "reason": "tenant x breaks it" }));
    let author = set["by"].as_str().expect("a name").to_owned();
    let why = |client: &Client| client.get(&format!("/v1/jobs/{id}")).ok()["wait"].clone();
    assert!(
        why(host.client())["message"]
            .as_str()
            .expect("text")
            .contains(&format!("tenant x breaks it (set by `{author}`)"))
    );
    assert_eq!(why(&tenant)["message"], "an operator holds plugin `villain`");
    assert_eq!((&why(&tenant)["hold"]["by"], &why(&tenant)["hold"]["reason"]), (&Value::Null, &json!("")));
    release(host.client(), "plugin=villain");
    hold(&host, &json!({ "key": "k", "reason": "you are over your quota" }));
    assert_eq!(why(&tenant)["hold"]["reason"], "you are over your quota");
    for reply in
        [tenant.get("/v1/holds"), tenant.post("/v1/holds", &json!({ "key": "k" })), tenant.delete("/v1/holds?key=k")]
    {
        assert_eq!(reply.status, 403, "{reply:?}");
    }
}

/// Returns the length of a hold in whole seconds, less than a day.
fn seconds_held(hold: &Value) -> i64 {
    let second_of_day = |name: &str| {
        let text = hold[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {hold}"));
        let number = |from: usize| text[from..from + 2].parse::<i64>().expect("two digits");
        number(11) * 3600 + number(14) * 60 + number(17)
    };
    (second_of_day("until") - second_of_day("since")).rem_euclid(86_400)
}

/// A server that asks each time not to be called for an hour.
fn busy_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let _asked = stream.read(&mut request);
            let answer =
                "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3600\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _answered = stream.write_all(answer.as_bytes());
        }
    });
    port
}

#[test]
fn the_key_of_a_job_is_held_when_the_other_side_asks_not_to_be_called() {
    let port = busy_server();
    let settings = format!(
        "[plugins.villain-http]\nhttp = [\"http://127.0.0.1:{port}\"]\nhonour-retry-after = true\nhold-key = \"10m\""
    );
    let host = Setup::default().plugin("villain-http").settings(&settings).start();
    let order = json!({ "do": "http-get", "url": format!("http://127.0.0.1:{port}/") });
    let first = host.enqueue_with(json!({ "task": "villain-http/do", "key": "acme", "payload": order }));
    assert_eq!(host.finished(&first)["state"], "succeeded", "the guest has its response");
    assert_eq!(host.result(&first)["status"], 429);
    let holds = host.client().get("/v1/holds").ok()["holds"].clone();
    let held = &holds[0];
    assert_eq!(
        (&held["key"], &held["group"], &held["by"]),
        (&json!("acme"), &json!("villain-http/do"), &json!("plugin:villain-http")),
        "{holds}"
    );
    assert_eq!(held["reason"], "127.0.0.1 answered 429 and Retry-After");
    assert_eq!(seconds_held(held), 600, "no longer than is granted");

    let waits =
        host.enqueue_with(json!({ "task": "villain-http/do", "key": "acme", "payload": { "do": "sleep", "ms": 0 } }));
    assert_eq!(host.job(&waits)["wait"]["reason"], "held");
    let other =
        host.enqueue_with(json!({ "task": "villain-http/do", "key": "other", "payload": { "do": "sleep", "ms": 0 } }));
    assert_eq!(host.finished(&other)["state"], "succeeded", "other keys go on");
    assert_eq!(host.client().get("/v1/audit").ok()["acts"], json!([]), "no operator did it");
    release(host.client(), "key=acme&group=villain-http%2Fdo");
    assert_eq!(host.finished(&waits)["state"], "succeeded");
}

#[test]
fn a_guest_holds_the_key_of_its_own_job_as_far_as_it_is_granted() {
    let grant = "[plugins.villain-kv]\nkv = true\nhold-key = \"1h\"";
    let host = Setup::default().plugin("villain-kv").settings(grant).start();
    let steps = |key: Value, steps: Value| {
        let id = host.enqueue_with(json!({ "task": "villain-kv/do", "key": key, "payload": { "steps": steps } }));
        assert_eq!(host.finished(&id)["state"], "succeeded");
        host.result(&id)
    };
    let hold = |ms: u64| json!({ "hold": { "ms": ms, "reason": "their\nupstream" } });
    assert_eq!(
        steps(json!("acme"), json!([hold(9_000_000), hold(60_000)])),
        json!([3_600_000, 60_000]),
        "an hour is granted"
    );
    let held = host.client().get("/v1/holds").ok()["holds"][0].clone();
    assert_eq!((&held["reason"], &held["by"]), (&json!("their upstream"), &json!("plugin:villain-kv")), "{held}");
    assert_eq!(seconds_held(&held), 3600, "a shorter one changes nothing");
    let refused = steps(Value::Null, json!([hold(1000)]));
    assert!(refused[0]["error"].as_str().is_some_and(|why| why.contains("without a key")), "{refused}");

    let host = Setup::default().plugin("villain-kv").settings("[plugins.villain-kv]\nkv = true").start();
    let id = host.enqueue_with(json!({ "task": "villain-kv/do", "key": "acme", "payload": { "steps": [hold(1000)] } }));
    host.finished(&id);
    let refused = host.result(&id);
    assert!(refused[0]["error"].as_str().is_some_and(|why| why.contains("hold-key = \"1h\"")), "{refused}");
    assert_eq!(host.client().get("/v1/holds").ok()["holds"], json!([]));
}
