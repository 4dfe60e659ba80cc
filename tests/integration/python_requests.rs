//! HTTP from a new project in Python: an import of its helper is all that it takes, beside the operator's grant.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use plugin_kit::language::Language;
use serde_json::{Value, json};

use crate::harness::wharf;
use crate::project::Project;

/// A server that answers with what it was sent.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
    let mut body = vec![0; header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    let answer = json!({
        "line": head.lines().next(), "colour": header("x-colour"), "bytes": body.len(), "sum": body.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
    })
    .to_string();
    let head = format!(
        "HTTP/1.1 201 Created\r\ncontent-length: {}\r\nx-twice: a\r\nX-Twice: b\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    let stream = stream.get_mut();
    let _answered = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes()));
}

fn checked(project: &Project) -> String {
    let output = wharf().args(["check", "shout/shout.wasm"]).current_dir(project.dir.path()).output();
    String::from_utf8_lossy(&output.expect("the binary starts").stdout).into_owned()
}

#[test]
fn python_s_helper_sends_requests_where_they_are_granted() {
    let project = Project::new(Language::Python);
    // Any source of the project may import the helper.
    std::fs::create_dir(project.file("calls")).expect("a folder");
    project.put(
        "calls/__init__.py",
        "import json, http_client\n\nRequestError, request = http_client.RequestError, http_client.request\n",
    );
    project.replace("app.py", "import late_imports", "import late_imports\nfrom calls import RequestError, request");
    project.replace(
        "app.py",
        "return line_of(count(order))",
        "try:\n            \
         got = request(order['text'], 'post', {'X-Colour': 'blue'}, bytes(range(256)) * 40)\n            \
         plain = request(order['text'])\n        \
         except RequestError as error:\n            raise discard(str(error))\n        \
         return line_of({'status': got.status, 'twice': got.headers['x-twice'], 'got': got.json(), 'plain': plain.text()})",
    );
    let port = server();
    let host = project.host(&format!("[plugins.shout]\nhttp = [\"http://127.0.0.1:{port}\"]"));
    let said = checked(&project);
    assert!(said.contains("it can send HTTP requests, but none are granted"), "{said}");

    let job = host.run("shout/count", json!({ "text": format!("http://127.0.0.1:{port}?a=b") }));
    assert_eq!(job["state"], "succeeded", "{job}");
    let mut result = host.result(job["id"].as_str().expect("an id"));
    let plain: Value = serde_json::from_str(result["plain"].take().as_str().expect("text")).expect("JSON");
    assert_eq!((&plain["line"], &plain["bytes"]), (&json!("GET /?a=b HTTP/1.1"), &json!(0)));
    let got = json!({ "line": "POST /?a=b HTTP/1.1", "colour": "blue", "bytes": 10_240, "sum": 1_305_600 });
    assert_eq!(result, json!({ "status": 201, "twice": "a, b", "got": got, "plain": null }));

    let job = host.run("shout/count", json!({ "text": "https://example.com/" }));
    assert_eq!(job["state"], "failed", "{job}");
    let report = job["report"]["text"].as_str().unwrap_or_default();
    assert!(report.contains("POST https://example.com/: ") && report.contains("Denied"), "{report}");

    for (url, scheme) in [("ftp://example.com/", "ftp"), ("example.com/path", "no scheme")] {
        let job = host.run("shout/count", json!({ "text": url }));
        assert_eq!(job["state"], "failed", "{job}");
        let report = job["report"]["text"].as_str().unwrap_or_default();
        assert!(report.contains(&format!("POST {url}: expected http:// or https://, got {scheme}")), "{report}");
    }
}
