//! A host behind a proxy that serves it below a path prefix, of which the host knows nothing: references lead on.

use serde_json::{Value, json};

use crate::harness::{Client, Host, ReverseProxy, Setup, eventually, resolve};

/// Follows a reference in the answer from `path`, and returns the document that it names.
#[track_caller]
fn follow(client: &Client, path: &str, reference: &Value) -> Value {
    client.get(&resolve(path, reference.as_str().expect("a reference"))).ok()
}

fn start() -> (Host, ReverseProxy, Client) {
    let host = Setup::default().plugin("words").plugin("villain").start();
    let proxy = ReverseProxy::before(host.client().address(), "/queue");
    let client = Client::new(proxy.address());
    (host, proxy, client)
}

#[test]
fn references_lead_to_what_they_name() {
    let (_host, _proxy, client) = start();
    let job = json!({ "task": "words/count", "payload": { "text": "a" }, "delay": "1h" });
    let jobs = "/queue/v1/jobs";
    let reply = client.post(jobs, &job);
    let enqueued = reply.ok();
    assert_eq!(follow(&client, jobs, &enqueued["url"])["id"], enqueued["id"]);
    let location = json!(reply.location.expect("a location"));
    assert_eq!(follow(&client, jobs, &location)["id"], enqueued["id"]);
    let with_query = "/queue/v1/jobs?task=words%2Fcount&delay=1h&key=a%2Fb%3A";
    let reply = client.post_bytes(with_query, "application/octet-stream", b"{\"text\": \"a\"}").ok();
    assert_eq!(follow(&client, with_query, &reply["url"])["key"], "a/b:");
    let many = client.post(jobs, &json!([job, job])).ok();
    assert_eq!(follow(&client, jobs, &many[1]["url"])["id"], many[1]["id"]);

    let (mut path, mut listed) = ("/queue/v1/jobs?limit=1&task=words%2Fcount".to_owned(), Vec::new());
    loop {
        let page = client.get(&path).ok();
        listed.extend(page["jobs"].as_array().expect("a list").iter().map(|job| job["id"].clone()));
        match page["next"].as_str() {
            Some(next) => path = resolve(&path, next),
            None => break,
        }
    }
    assert_eq!(listed.len(), 4, "each page led to the next: {listed:?}");
}

#[test]
fn references_of_durable_broadcasts_lead_to_what_they_name() {
    let (_host, _proxy, client) = start();
    let topic = "/queue/v1/broadcasts/villain.x";
    let reply = client.post(topic, &json!({ "payload": { "do": "job" }, "durable": true }));
    let batch = reply.ok();
    let location = json!(reply.location.expect("a location"));
    assert_eq!(follow(&client, topic, &location)["id"], batch["id"]);
    assert_eq!(follow(&client, topic, &batch["jobs"][0]["url"])["batch"], batch["id"]);
    let own = resolve(topic, batch["url"].as_str().expect("a reference"));
    let finished = eventually("the broadcast has ended", || {
        let batch = client.get(&own).ok();
        (batch["finished"] == true).then_some(batch)
    });
    assert_eq!(follow(&client, &own, &finished["url"])["id"], batch["id"]);
    assert_eq!(follow(&client, &own, &finished["jobs"][0]["url"])["state"], "succeeded");
}

#[test]
fn the_description_and_the_commands_work_below_a_prefix() {
    let (host, proxy, client) = start();
    let description = client.get("/queue/openapi.json").ok();
    let server = description["servers"][0]["url"].as_str().expect("an address");
    assert_eq!(server, ".", "the folder of the description itself");

    let address = format!("{}/queue", proxy.address());
    let output = |args: &[&str]| {
        let output = host.cli(args).env("WHARF__HOST", &address).output().expect("it runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let result = output(&["job", "enqueue", "words/count", "--input", r#"{"text": "a b c"}"#, "--wait"]);
    assert_eq!(serde_json::from_str::<Value>(&result).expect("JSON")["words"], 3);
    let batch = output(&["broadcast", "villain.x", "--input", r#"{"do": "job"}"#, "--durable", "--wait", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&batch).expect("JSON")["finished"], true);
}
