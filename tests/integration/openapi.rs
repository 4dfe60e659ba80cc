//! `/openapi.json` against what the host really answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Host, Reply, Setup, resolve};

struct Described {
    document: Value,
    /// Operations that were seen to succeed, as METHOD PATH.
    seen: BTreeSet<String>,
}

impl Described {
    fn by(host: &Host) -> Described {
        Described { document: host.client().get("/openapi.json").ok(), seen: BTreeSet::new() }
    }

    /// The answer has a status, a media type and a form that the document names for it.
    #[track_caller]
    fn fits(&mut self, method: &str, path: &str, reply: &Reply) -> Value {
        let (status, kind) = (reply.status, reply.content_type.split(';').next().unwrap_or_default());
        let answers = &self.document["paths"][path][method]["responses"];
        let answer = &answers[status.to_string()];
        assert!(answer.is_object(), "{method} {path} answers {status}, the document only {answers}");
        let content = &answer["content"];
        let body = if reply.body.is_empty() {
            assert!(content.is_null(), "{method} {path} {status} has no body: {content}");
            Value::Null
        } else {
            let of_kind = &content[kind];
            assert!(of_kind.is_object(), "{method} {path} {status} answers {kind}: {content}");
            let is_json = kind.ends_with("json");
            let body = if is_json { reply.json() } else { String::from_utf8_lossy(&reply.body).into() };
            self.valid(&of_kind["schema"], &body, path);
            body
        };
        if (200..300).contains(&status) {
            self.seen.insert(format!("{method} {path}"));
        }
        body
    }

    #[track_caller]
    fn valid(&self, schema: &Value, value: &Value, path: &str) {
        let mut whole = schema.clone();
        whole["components"] = self.document["components"].clone();
        let validator = jsonschema::validator_for(&whole).expect("a schema");
        let wrong: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{path}: {wrong:#?}\n{value:#}");
    }

    fn operations(&self) -> BTreeSet<String> {
        let paths = self.document["paths"].as_object().expect("paths").iter();
        let of_path = |(path, methods): (&String, &Value)| {
            let methods: Vec<String> = methods.as_object().expect("methods").keys().cloned().collect();
            methods.into_iter().map(move |method| format!("{method} {path}")).collect::<Vec<_>>()
        };
        paths.flat_map(of_path).collect()
    }
}

#[test]
fn every_operation_answers_as_it_is_described() {
    let host = Setup::default()
        .plugin("words")
        .plugin("changes")
        .plugin("villain")
        .settings("[plugins.changes]\nkv = true\n")
        .start();
    let client = host.client();
    let mut described = Described::by(&host);
    let mut get = |path: &str, at: &str| described.fits("get", path, &client.get(at));
    for path in
        ["/health", "/ready", "/openapi.json", "/v1/plugins", "/v1/nodes", "/v1/config", "/v1/limits", "/v1/holds"]
    {
        get(path, path);
    }
    get("/v1/plugins/{id}", "/v1/plugins/changes");
    get("/v1/plugins/{id}", "/v1/plugins/nobody");

    let mut post = |path: &str, at: &str, body: Value| described.fits("post", path, &client.post(at, &body));
    let job = |text: &str, delay: Option<&str>| json!({ "task": "words/count", "payload": { "text": text }, "delay": delay, "token": delay });
    let waiting = post("/v1/jobs", "/v1/jobs", job("a", Some("1h")));
    let id = waiting["id"].as_str().expect("an id").to_owned();
    post("/v1/jobs", "/v1/jobs", job("a", Some("1h")));
    post("/v1/jobs", "/v1/jobs", json!([job("b", None), job("c", None)]));
    post("/v1/jobs", "/v1/jobs", json!({ "task": "words/cuont" }));
    post("/v1/jobs", "/v1/jobs?wait=30s", job("d e", None));
    post("/v1/jobs", "/v1/jobs?wait=1ms", job("f", Some("2h")));
    post("/v1/jobs/{id}/retry", &format!("/v1/jobs/{id}/retry"), Value::Null);
    post("/v1/jobs/{id}/cancel", &format!("/v1/jobs/{id}/cancel"), Value::Null);
    post("/v1/jobs/{id}/cancel", &format!("/v1/jobs/{id}/cancel"), Value::Null);
    post("/v1/jobs/{id}/retry", &format!("/v1/jobs/{id}/retry"), Value::Null);
    post("/v1/broadcasts/{topic}", "/v1/broadcasts/villain.x", json!({ "payload": { "do": "job" } }));
    post("/v1/broadcasts/{topic}", "/v1/broadcasts/villain.x", json!({ "payload": { "do": "trap" } }));
    post("/v1/broadcasts/{topic}", "/v1/broadcasts/villain.x", json!({ "mode": "most" }));
    let batch = post(
        "/v1/broadcasts/{topic}",
        "/v1/broadcasts/villain.x",
        json!({ "payload": { "do": "job" }, "durable": true }),
    );

    let ended = host.run("villain/do", json!({ "do": "trap" }));
    let ended = ended["id"].as_str().expect("an id");
    let well = host.run("words/count", json!({ "text": "g" }));
    let well = well["id"].as_str().expect("an id");
    let mut get = |path: &str, at: &str| described.fits("get", path, &client.get(at));
    let topic = "/v1/broadcasts/villain.x";
    get("/v1/broadcasts/{topic}", &resolve(topic, batch["url"].as_str().expect("an address")));
    get("/v1/broadcasts/{topic}", "/v1/broadcasts/0000000000001");
    for id in [&id, ended, well, "0000000000001"] {
        get("/v1/jobs/{id}", &format!("/v1/jobs/{id}"));
        get("/v1/jobs/{id}/result", &format!("/v1/jobs/{id}/result"));
        get("/v1/jobs/{id}/attempts", &format!("/v1/jobs/{id}/attempts"));
    }
    host.run("villain/do", json!({ "do": "fail-discard", "text": "no" }));
    let page = get("/v1/failures", "/v1/failures?limit=1");
    get("/v1/failures", &resolve("/v1/failures?limit=1", page["next"].as_str().expect("a next page")));
    get("/v1/failures", "/v1/failures?state=done");
    let page = get("/v1/jobs", "/v1/jobs?limit=2");
    get("/v1/jobs", &resolve("/v1/jobs?limit=2", page["next"].as_str().expect("a next page")));
    get("/v1/jobs", "/v1/jobs?state=asleep");
    get("/metrics", "/metrics");

    let events = "/v1/jobs/{id}/events";
    let data = described.document["paths"][events]["get"]["responses"]["200"]["content"]["text/event-stream"].clone();
    for event in client.events(ended, None) {
        described.valid(&data["schema"], &event.data, events);
        described.seen.insert(format!("get {events}"));
    }

    let failure = client.get("/v1/failures").ok()["failures"][0]["fingerprint"].as_str().expect("text").to_owned();
    for fingerprint in [&*failure, "f1:0000000000000001", "nothing"] {
        let path = "/v1/failures/{fingerprint}";
        described.fits("get", path, &client.get(&format!("/v1/failures/{fingerprint}")));
        for verb in ["resolve", "ignore", "reopen"] {
            let reply = client.post(&format!("/v1/failures/{fingerprint}/{verb}"), &Value::Null);
            described.fits("post", &format!("{path}/{verb}"), &reply);
        }
    }
    for (path, at) in [
        ("/v1/limits", "/v1/limits?group=words%2Fcount"),
        ("/v1/limits", "/v1/limits?group=words/count&key=acme"),
        ("/v1/limits", "/v1/limits?group=nobody"),
    ] {
        described.fits("put", path, &client.put(at, &json!({ "per_key": 3 })));
        described.fits("get", "/v1/limits", &client.get("/v1/limits"));
        described.fits("delete", path, &client.delete(at));
        described.fits("delete", path, &client.delete(at));
    }
    for hold in
        [json!({ "plugin": "words", "for": "1h", "reason": "why" }), json!({ "key": "a", "group": "b" }), json!({})]
    {
        described.fits("post", "/v1/holds", &client.post("/v1/holds", &hold));
    }
    described.fits("get", "/v1/holds", &client.get("/v1/holds?limit=1"));
    described.fits("get", "/v1/summary", &client.get("/v1/summary?keys=5"));
    described.fits("get", "/v1/audit", &client.get("/v1/audit?limit=1"));
    for _ in 0..2 {
        described.fits("delete", "/v1/holds", &client.delete("/v1/holds?plugin=words"));
    }
    let operation = |preview: bool| json!({ "act": "cancel", "where": "key:nobody", "preview": preview });
    described.fits("post", "/v1/operations", &client.post("/v1/operations", &operation(true)));
    let started = described.fits("post", "/v1/operations", &client.post("/v1/operations", &operation(false)));
    described.fits("post", "/v1/operations", &client.post("/v1/operations", &json!({ "act": "cancel", "where": "" })));
    described.fits("get", "/v1/operations", &client.get("/v1/operations?limit=1"));
    // One that cannot end before it is cancelled, since its job is held.
    host.run("villain/do", json!({ "do": "trap" }));
    client.post("/v1/holds", &json!({ "task": "villain/do" })).ok();
    let halting = json!({ "act": "retry", "where": "state:failed", "try": 1, "spread": "7d" });
    let halting = client.post("/v1/operations", &halting).ok();
    for operation in [&started, &halting] {
        let at = format!("/v1/operations/{}", operation["id"].as_str().expect("an id"));
        described.fits("get", "/v1/operations/{id}", &client.get(&at));
        for _ in 0..2 {
            described.fits("delete", "/v1/operations/{id}", &client.delete(&at));
        }
    }
    let daily =
        json!({ "task": "words/count", "cron": "30 2 * * *", "zone": "Europe/Berlin", "payload": { "text": "a" } });
    let hourly = json!({ "task": "words/count", "every": "1h", "payload": { "text": "a" }, "overlap": "queue-one" });
    for definition in [&daily, &hourly, &json!({}), &json!({ "task": "words/cuont", "every": "1h" })] {
        described.fits("put", "/v1/schedules/{id}", &client.put("/v1/schedules/daily", definition));
    }
    described.fits("put", "/v1/schedules/{id}", &client.put("/v1/schedules/other", &daily));
    for id in ["daily", "nobody"] {
        let at = format!("/v1/schedules/{id}");
        for verb in ["run", "pause", "resume"] {
            let reply = client.post(&format!("{at}/{verb}"), &json!({}));
            described.fits("post", &format!("/v1/schedules/{{id}}/{verb}"), &reply);
        }
        described.fits("get", "/v1/schedules/{id}", &client.get(&at));
        described.fits("get", "/v1/schedules", &client.get("/v1/schedules?limit=1"));
        described.fits("delete", "/v1/schedules/{id}", &client.delete(&at));
    }
    for node in ["self", "nobody"] {
        for verb in ["drain", "resume"] {
            let reply = client.post(&format!("/v1/nodes/{node}/{verb}"), &json!({}));
            described.fits("post", &format!("/v1/nodes/{{node}}/{verb}"), &reply);
        }
    }
    assert_eq!(described.seen, described.operations(), "each was seen to succeed");
}

#[test]
fn the_description_needs_the_token_where_there_is_one() {
    let host = Setup::default().token("a-long-enough-token").start();
    assert_eq!(host.client().get("/openapi.json").status, 200);
    let stranger = host.client().clone().with_token(None).get("/openapi.json");
    assert_eq!(stranger.status, 401);
}
