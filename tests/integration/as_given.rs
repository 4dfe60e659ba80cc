//! What is acknowledged, kept and shown is what was given, to the byte; what cannot be told apart, or held together, is refused.

use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Host, Reply, Setup, eventually};

const BYTES: &str = "application/octet-stream";

/// JSON that readers alter or cannot read.
const ODD: [&str; 6] = [
    r#"{"n": 12345678901234567890123, "b":1.0, "a" : 1e2, "a":2}"#,
    "1e400",
    r#""\ud800""#,
    "null",
    "[\n 1,\t-0 ]",
    "{\"crlf\":\r\n0.1e-400}",
];

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// A host whose villain reads what is in `in/` of the host's folder, and may answer with it.
fn with_files() -> (Host, TempDir) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path();
    let grant = format!("[plugins.villain]\ndirs = [{{ host = \"{}\", guest = \"/in\" }}]", path.display());
    for (number, text) in ODD.iter().enumerate() {
        std::fs::write(path.join(format!("{number}.json")), text).expect("written");
    }
    std::fs::write(path.join("deep.json"), nested(200)).expect("written");
    (Setup::default().plugin("villain").settings(&grant).start(), folder)
}

/// The result of a job once it is there.
fn result(host: &Host, id: &str) -> Vec<u8> {
    eventually("the result is there", || {
        let reply = host.client().get(&format!("/v1/jobs/{id}/result"));
        (reply.status == 200).then_some(reply.body)
    })
}

fn reads(file: impl std::fmt::Display) -> Value {
    json!({ "do": "read-file", "path": format!("/in/{file}.json") })
}

#[track_caller]
fn enqueued(host: &Host, query: &str, payload: &[u8]) -> String {
    let reply = host.client().post_bytes(&format!("/v1/jobs?{query}"), BYTES, payload);
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()["id"].as_str().expect("an id").to_owned()
}

#[track_caller]
fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}

#[track_caller]
fn refused(reply: &Reply, status: u16, parts: &[&str]) {
    let text = String::from_utf8_lossy(&reply.body);
    assert_eq!(reply.status, status, "{text}");
    assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in {text}");
}

#[test]
fn keys_that_are_written_differently_are_different_keys() {
    let host = Setup::default().plugin("villain").start();
    let key = |value: &str| {
        let payload = format!(r#"{{"do":"echo","key":{value}}}"#);
        let id = enqueued(&host, "task=villain/keyed&delay=1h", payload.as_bytes());
        host.job(&id)["key"].as_str().expect("a key").to_owned()
    };
    for number in
        ["12345678901234567890123", "12345678901234567890124", "18446744073709551616", "18446744073709551617", "1e2"]
    {
        assert_eq!(key(number), number);
    }
    assert_eq!((key("true").as_str(), key(r#""\u00fc 1""#).as_str()), ("true", "ü 1"));
    let listed = host.client().get("/v1/jobs?key=12345678901234567890124").ok();
    assert_eq!(listed["jobs"].as_array().expect("a list").len(), 1, "one lane for each: {listed}");
}

#[test]
fn keys_that_say_two_things_or_none_are_refused() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    let ask = |payload: &str| client.post_bytes("/v1/jobs?task=villain/keyed", BYTES, payload.as_bytes());
    refused(&ask(r#"{"do":"echo","key":"a","k\u0065y":"b"}"#), 422, &["duplicate member `key`", "/key"]);
    refused(&ask(r#"{"do":"echo","key":"\udfff"}"#), 422, &["/key", "half of a surrogate pair"]);
    for bytes in ["%ff", "%fe", "a%c3"] {
        let path = format!("/v1/jobs?task=villain/do&key={bytes}");
        refused(&client.post_bytes(&path, BYTES, b"{}"), 400, &["`key` is not UTF-8"]);
        refused(&client.get(&format!("/v1/jobs?key={bytes}")), 400, &["`key` is not UTF-8"]);
    }
    refused(
        &client.put("/v1/limits?group=villain/keyed&key=%ff", &json!({ "per_key": 1 })),
        400,
        &["`key` is not UTF-8"],
    );
    assert_eq!(client.get("/v1/jobs").ok()["jobs"], json!([]), "nothing was taken");
}

#[test]
fn of_two_that_cannot_both_hold_neither_is_dropped() {
    let host = Setup::default().plugin("villain").start();
    let client = host.client();
    let both = json!({ "task": "villain/do", "at": "2030-01-31T12:00:00Z", "delay": "1s" });
    refused(&client.post("/v1/jobs", &both), 422, &["expected either `delay` or `at`"]);
    let array = json!([{ "task": "villain/do" }, both]);
    refused(&client.post("/v1/jobs", &array), 422, &["job 1: ", "\"index\":1"]);
    let query = "/v1/jobs?task=villain/do&at=2030-01-31T12:00:00Z&delay=1s";
    refused(&client.post_bytes(query, BYTES, b"{}"), 422, &["expected either `delay` or `at`"]);
    refused(
        &client.post("/v1/jobs?wait=1s", &json!([{ "task": "villain/do" }])),
        400,
        &["`wait` does not work with an array"],
    );
    refused(&client.post("/v1/jobs?key=a", &json!({ "task": "villain/do" })), 400, &["options in the query"]);
    refused(&client.post_bytes("/v1/jobs?task=villain/do&key=a&key=b", BYTES, b"{}"), 400, &["`key` is given twice"]);
    let members = br#"{"task": "villain/do", "key": "a", "key": "b"}"#;
    refused(&client.post_bytes("/v1/jobs", "application/json", members), 400, &["duplicate field `key`"]);
    let payloads = json!({ "task": "villain/do", "payload": 1, "payload_base64": "MQ==" });
    refused(&client.post("/v1/jobs", &payloads), 422, &["exclude each other"]);
    let modes = "/v1/broadcasts/villain.x?mode=first=2&mode=quorum";
    refused(&client.post_bytes(modes, BYTES, b"{}"), 400, &["`mode` is given twice"]);
    let live = json!({ "durable": true, "mode": "quorum" });
    refused(&client.post("/v1/broadcasts/villain.x", &live), 400, &["apply only to live broadcasts"]);
    assert_eq!(client.get("/v1/jobs").ok()["jobs"], json!([]), "nothing was taken");

    let id = enqueued(&host, "task=villain/do&delay=1h", b"{}");
    let of_job = format!("/v1/jobs/{id}");
    for path in [format!("{of_job}?wait=30s"), format!("{of_job}/events?after=3"), "/v1/limits?group=a".to_owned()] {
        refused(&client.get(&path), 400, &["does not read a query"]);
    }
    refused(&client.post(&format!("{of_job}/cancel?force=true"), &json!({})), 400, &["does not read a query"]);
    refused(
        &client.put("/v1/limits?group=villain/do&per-key=1", &json!({ "total": 1 })),
        400,
        &["unknown field `per-key`"],
    );
    refused(&client.put("/v1/limits/villain%2Fdo", &json!({ "total": 1 })), 404, &["/v1/limits?group=words%2Fcount"]);
    refused(&client.get("/v1/broadcasts/0000000000001?wait=1s"), 400, &["does not read a query"]);
    assert_eq!(host.job(&id)["state"], "waiting", "and it was not cancelled");
}

#[test]
fn a_document_of_another_media_type_is_told_from_a_payload() {
    let host = Setup::default().plugin("villain").start();
    let asked = br#"{"payload": {"do": "echo", "payload": 7}}"#;
    let reply = host.client().post_bytes("/v1/broadcasts/villain.x", "Application/JSON; charset=UTF-8", asked).ok();
    assert_eq!(reply["replies"][0]["reply"], 7, "{reply}");
}

#[test]
fn payloads_are_shown_as_they_were_given() {
    let host = Setup::default().plugin("villain").start();
    for text in ODD {
        let id = enqueued(&host, "task=villain/do&delay=1h", text.as_bytes());
        let shown = format!(",\"payload\":{text}");
        let body = host.client().get(&format!("/v1/jobs/{id}")).body;
        assert!(String::from_utf8(body).expect("text").contains(&shown), "{text}");
        for args in [["job", "show", &id, "--json"], ["job", "cancel", &id, "--json"], ["job", "retry", &id, "--json"]]
        {
            assert!(output(&mut host.cli(&args)).contains(&shown), "{args:?}: {text}");
        }
        host.cli(&["job", "cancel", &id]).output().expect("it runs");
        let plain = output(&mut host.cli(&["job", "show", &id]));
        let line = plain.lines().find(|line| line.starts_with("payload")).expect("a payload");
        assert!(line.contains(text.lines().next().expect("a line").trim_end()), "{plain}");
    }
    let deep = nested(200);
    let id = enqueued(&host, "task=villain/do&delay=1h", deep.as_bytes());
    for text in [output(&mut host.cli(&["job", "show", &id, "--json"])), host.job(&id).to_string()] {
        let job: Value = serde_json::from_str(&text).expect("any reader can read it");
        assert_eq!(STANDARD.decode(job["payload_base64"].as_str().expect("base64")).expect("base64"), deep.as_bytes());
    }
    let json = "{\"a\": 1e400}\n";
    std::fs::write(host.dir().join("payload"), json).expect("written");
    let many = ["job", "enqueue", "villain/do", "--input", "@payload", "--count", "2", "--delay", "1h", "--json"];
    let taken: Value = serde_json::from_str(&output(&mut host.cli(&many))).expect("JSON");
    let job = host.client().get(&format!("/v1/jobs/{}", taken[1]["id"].as_str().expect("an id")));
    assert!(String::from_utf8(job.body).expect("text").contains(&format!("\"payload_bytes\":{}", json.len())));
}

#[test]
fn results_and_replies_are_shown_as_they_were_given() {
    let (host, _folder) = with_files();
    for (number, text) in ODD.iter().enumerate() {
        let id = host.enqueue("villain/do", reads(number));
        assert_eq!(result(&host, &id), text.as_bytes());
        assert!(
            output(&mut host.cli(&["job", "show", &id, "--json"])).contains(&format!(",\"result\":{text}")),
            "{text}"
        );
        let input = reads(number).to_string();
        let called = output(&mut host.cli(&["call", "villain/do", "--input", &input, "--json"]));
        assert!(called.contains(&format!("\"result\":{text},")), "{called}");
        let replies = output(&mut host.cli(&["broadcast", "villain.x", "--input", &input, "--json"]));
        assert!(replies.contains(&format!("\"reply\":{text}}}")), "{replies}");
        let table = output(&mut host.cli(&["broadcast", "villain.x", "--input", &input]));
        let shown = text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
        assert!(table.contains(&shown), "{shown}: {table}");
        let durable = ["broadcast", "villain.x", "--input", &input, "--durable", "--wait", "--json"];
        assert!(output(&mut host.cli(&durable)).contains(&format!("\"reply\":{text}}}")), "{text}");
    }
    let id = host.enqueue("villain/do", reads("deep"));
    assert_eq!(result(&host, &id), nested(200).as_bytes());
    let shown: Value = serde_json::from_str(&output(&mut host.cli(&["job", "show", &id, "--json"]))).expect("JSON");
    assert_eq!(shown["result_base64"], STANDARD.encode(nested(200)));
    let replies = host.client().post("/v1/broadcasts/villain.x", &json!({ "payload": reads("deep") })).ok();
    assert_eq!(replies["replies"][0]["reply_base64"], STANDARD.encode(nested(200)));
}

#[test]
fn commands_drop_nothing_that_they_were_told() {
    let host = Setup::default().plugin("villain").start();
    let id = enqueued(&host, "task=villain/do&delay=1h", b"{}");
    let pairs = [
        &["job", "follow", &id, "--raw", "--json"][..],
        &["call", "villain/do", "--chunks", "--json"],
        &["config", "--set", "log.level=info", "--set", "log.level=debug"],
    ];
    for args in pairs {
        let said = host.cli(args).output().expect("it runs");
        let text = String::from_utf8_lossy(&said.stderr);
        assert_eq!((said.status.code(), text.contains("remove one")), (Some(2), true), "{args:?}: {text}");
    }
    let set = |args: &[&str]| output(&mut host.cli(&[&["limit", "set", "villain/do"], args].concat()));
    set(&["--total", "0"]);
    let shown = set(&["--per-key", "7", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON")["set"], json!({ "per_key": 7, "total": 0 }));
    set(&["key", "--per-key", "3"]);
    assert!(set(&["--total", "5"]).contains("set: 7 per key, 5 in total"));
}

/// Its ids were given to a guest before it was known what becomes of the jobs.
#[test]
fn every_id_that_a_guest_is_given_leads_to_a_job() {
    let host = Setup::default().plugin("villain").start();
    let enqueue = |children: Value| {
        let parent = host.run("villain/do", json!({ "do": "enqueue", "children": children }));
        assert_eq!(parent["state"], "succeeded", "{parent}");
        let ids = host.result(parent["id"].as_str().expect("an id"));
        let id = |id: &Value| id.as_str().expect("an id").to_owned();
        ids.as_array().expect("ids").iter().map(id).collect::<Vec<_>>()
    };
    let child = |task: &str, token: Value| json!({ "task": task, "token": token, "payload": { "do": "sleep", "ms": 1, "key": "k" }, "delay-ms": 3_600_000 });
    let stands = host.enqueue_with(json!({ "task": "villain/do", "payload": {}, "token": "a", "delay": "1h" }));
    let ids = enqueue(json!([
        child("villain/do", json!("a")),
        child("villain/do", json!("b")),
        child("villain/slow", json!("b")),
        child("villain/do", json!("b")),
        child("villain/do", Value::Null),
    ]));
    assert_eq!((&ids[0], &ids[3]), (&stands, &ids[1]), "a token of two jobs is one job: {ids:?}");
    assert_eq!(enqueue(json!([child("villain/do", json!("b"))]))[0], ids[1], "and of another attempt, too");
    for id in &ids {
        assert_eq!(host.job(id)["state"], "waiting");
    }

    let ids = enqueue(json!([child("villain/discarding", Value::Null), child("villain/discarding", Value::Null)]));
    assert_eq!(host.job(&ids[0])["state"], "waiting");
    let discarded = host.job(&ids[1]);
    assert_eq!((&discarded["state"], &discarded["report"]["outcome"]), (&json!("cancelled"), &json!("cancelled")));
    let why = discarded["report"]["text"].as_str().expect("a text");
    assert!(why.starts_with("the job was not enqueued") && why.contains(&ids[0]), "{why}");
    let reply = host.client().get(&format!("/v1/jobs/{}/result", ids[1]));
    refused(&reply, 409, &["job-cancelled", "the job was not enqueued"]);

    let ids = enqueue(json!([child("villain/replacing", Value::Null), child("villain/replacing", Value::Null)]));
    let replaced = host.job(&ids[0]);
    assert_eq!((&replaced["state"], &host.job(&ids[1])["state"]), (&json!("cancelled"), &json!("waiting")));
    assert!(replaced["report"]["text"].to_string().contains("replaced by a newer job"), "{replaced}");
}

/// A subscriber's jobs come with its reply, in a transaction of their own.
#[test]
fn the_ids_that_a_subscriber_is_given_lead_to_jobs_too() {
    let host = Setup::default().plugin("villain").start();
    let child = json!({ "task": "villain/discarding", "delay-ms": 3_600_000, "payload": { "do": "echo", "key": "k" } });
    let asked = json!({ "payload": { "do": "enqueue", "children": [child, child] } });
    let reply = host.client().post("/v1/broadcasts/villain.x", &asked).ok();
    let ids = &reply["replies"][0]["reply"];
    let state = |n: usize| host.job(ids[n].as_str().expect("an id"))["state"].clone();
    assert_eq!((state(0), state(1)), (json!("waiting"), json!("cancelled")), "{reply}");
}
