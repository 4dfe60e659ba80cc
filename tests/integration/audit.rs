//! The audit log of a running host: who did what, from where; what outlives the host; what a host does by itself.

use serde_json::{Value, json};

use crate::harness::{Client, Host, Setup, eventually, wharf};

const ADMIN: &str = "the-token-of-the-tests";

/// Makes a token, and returns it with its table in wharf.toml.
fn token(name: &str, can: &str) -> (String, String) {
    let output = wharf().args(["token", "new", "--json"]).output().expect("it runs");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let member = |name: &str| document[name].as_str().expect("text").to_owned();
    (member("token"), format!("[[tokens]]\nname = \"{name}\"\nhash = \"{}\"\ncan = [\"{can}\"]\n", member("hash")))
}

#[track_caller]
fn acts(client: &Client, query: &str) -> Vec<Value> {
    client.get(&format!("/v1/audit{query}")).ok()["acts"].as_array().expect("a list").clone()
}

fn kinds(acts: &[Value]) -> Vec<String> {
    acts.iter().map(|act| act["act"].as_str().expect("a kind").to_owned()).collect()
}

fn run(host: &Host, args: &[&str]) -> (Option<i32>, String, String) {
    let output = host.cli(args).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_act_leaves_its_author_and_address_and_an_act_of_nothing_leaves_none() {
    let (operator, table) = token("none", "operate");
    let mut host = Setup::default().plugin("villain").token(ADMIN).settings(&table).start();
    let client = host.client().clone().with_token(Some(&operator));
    client.post("/v1/holds", &json!({ "task": "villain/keyed", "for": "1h", "reason": "429" })).ok();
    let job = host.enqueue("villain/keyed", json!({ "key": "k", "do": "sleep", "ms": 0 }));
    client.post(&format!("/v1/jobs/{job}/cancel"), &json!({})).ok();
    client.post(&format!("/v1/jobs/{job}/cancel"), &json!({}));
    host.client().post(&format!("/v1/jobs/{job}/retry"), &json!({})).ok();
    host.client().put("/v1/limits?group=villain%2Fkeyed&key=a%20b", &json!({ "per_key": 3 })).ok();
    assert_eq!(host.client().delete("/v1/limits?group=villain%2Fkeyed&key=a%20b").status, 204);
    host.client().delete("/v1/holds?key=nobody");
    assert_eq!(client.delete("/v1/holds?task=villain%2Fkeyed").status, 204);

    let all = acts(host.client(), "");
    let expected = ["hold-released", "limit-cleared", "limit-set", "job-retry", "job-cancel", "hold-set"];
    assert_eq!(kinds(&all), expected);
    let text = |act: &Value| {
        ["author", "address", "target", "detail"].map(|name| act[name].as_str().unwrap_or("null").to_owned()).join("|")
    };
    assert_eq!(text(&all[5]), "none|127.0.0.1|task:villain/keyed|for 1h: 429");
    assert_eq!(text(&all[4]), format!("none|127.0.0.1|{job}|"));
    assert_eq!(text(&all[2]), "token|127.0.0.1|group:villain/keyed key:a b|per key 3");
    assert_eq!(kinds(&acts(host.client(), "?author=none&act=job-cancel")), ["job-cancel"]);
    assert_eq!(kinds(&acts(host.client(), "?no_token=true")), [""; 0]);
    assert_eq!(kinds(&acts(host.client(), "?since=1h&limit=2")), expected[..2]);
    assert_eq!(client.get("/v1/audit").status, 403, "an operator does not read who did what");
    let bad = host.client().get("/v1/audit?since=yesterday").json();
    assert!(bad["detail"].as_str().is_some_and(|text| text.contains("`since`: invalid time `yesterday`")), "{bad}");

    // They outlive the host, and pages stay while new acts come.
    host.kill();
    host.start();
    let page = host.client().get("/v1/audit?limit=4").ok();
    assert_eq!(kinds(page["acts"].as_array().unwrap()), expected[..4]);
    host.client().post("/v1/holds", &json!({ "key": "x" })).ok();
    let next = page["next"].as_str().expect("there is more");
    assert_eq!(kinds(&acts(host.client(), next)), expected[4..]);
}

#[test]
fn a_client_without_a_token_has_no_name() {
    let host = Setup::default().plugin("villain").start();
    host.client().post("/v1/holds", &json!({ "all": true, "reason": "\u{202e}evil" })).ok();
    let all = acts(host.client(), "?no_token=true");
    assert_eq!((kinds(&all), &all[0]["author"]), (vec!["hold-set".to_owned()], &Value::Null));
    assert_eq!(acts(host.client(), "?author=none"), [] as [Value; 0]);
    let (code, out, _) = run(&host, &["audit", "--no-token"]);
    assert!(code == Some(0) && out.contains("(no token)") && out.contains("127.0.0.1"), "{out}");
    assert!(!out.contains('\u{202e}') && out.contains("evil"), "{out}");
}

#[test]
fn the_forwarded_address_counts_only_where_the_proxy_is_trusted() {
    use std::io::{Read, Write};
    let request = |host: &Host, extra: &str| {
        let address = host.client().address().trim_start_matches("http://").to_owned();
        let mut stream = std::net::TcpStream::connect(&address).expect("a connection");
        let body = r#"{"all":true}"#;
        let head = format!(
            "POST /v1/holds HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nX-Forwarded-For: 6.6.6.6, 10.9.8.7\r\n{extra}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it is sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    };
    let trusting = Setup::default().plugin("words").top("proxy-authenticates = true\n").start();
    request(&trusting, "");
    assert_eq!(acts(trusting.client(), "")[0]["address"], "10.9.8.7");
    let other = Setup::default().plugin("words").token(ADMIN).start();
    request(&other, &format!("Authorization: Bearer {ADMIN}\r\n"));
    assert_eq!(acts(other.client(), "")[0]["address"], "127.0.0.1");
}

#[test]
fn a_host_that_reads_other_settings_says_so() {
    let host = Setup::default().plugin("villain").settings("[log]\nlevel = \"info\"\n").start();
    let file = host.dir().join("wharf.toml");
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, text.replace("level = \"info\"", "level = \"debug\"")).expect("it is written");
    let act = eventually("the act is there", || acts(host.client(), "?act=settings-changed").first().cloned());
    assert!(act["author"].as_str().is_some_and(|name| name.starts_with("host:")), "{act}");
    assert!(act["detail"].as_str().is_some_and(|text| text.contains("log.level")), "{act}");
    assert_eq!(act["address"], Value::Null);
    let digest = host.client().get("/v1/config").ok()["digest"].clone();
    assert_eq!(act["target"], digest);
    let (code, out, _) = run(&host, &["audit", "--act", "settings-changed", "--since", "1h"]);
    assert!(code == Some(0) && out.contains("host:") && out.contains("log.level"), "{out}");
}
