//! A host behind nginx as Debian sets it up: events arrive as they are written, and what nginx does to addresses, names and
//! restarts is no surprise.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Client, Host, ReverseProxy, Setup, eventually, resolve};

/// The folder in which files tell the plugin to go on.
struct Told {
    dir: tempfile::TempDir,
}

impl Told {
    fn new() -> Told {
        Told { dir: tempfile::tempdir().expect("a folder") }
    }

    fn settings(&self) -> String {
        format!("[plugins.villain]\ndirs = [{{ host = \"{}\", guest = \"/told\" }}]", self.dir.path().display())
    }

    /// Lets the plugin write chunk `n`.
    fn write(&self, n: u64) {
        std::fs::write(self.dir.path().join(n.to_string()), "").expect("a file");
    }
}

fn order(chunks: u64) -> Value {
    json!({ "do": "emit-when-told", "dir": "/told", "chunks": chunks })
}

#[test]
fn events_arrive_as_they_are_written_at_the_root_and_below_a_prefix() {
    for prefix in ["", "/queue"] {
        let told = Told::new();
        let host = Setup::default().plugin("villain").settings(&told.settings()).start();
        let proxy = ReverseProxy::before(host.client().address(), prefix);
        let client = Client::new(&format!("{}{prefix}", proxy.address()));
        let job = client.post("/v1/jobs", &json!({ "task": "villain/slow", "payload": order(4) })).ok();
        let id = job["id"].as_str().expect("an id");
        let mut chunks = client.events(id, None).filter(|event| event.kind == "chunk");
        for n in 0..4 {
            told.write(n);
            let chunk = chunks.next().unwrap_or_else(|| panic!("chunk {n} is held back"));
            assert_eq!(chunk.data["text"], format!("{{\"chunk\":{n}}}"));
        }
        assert!(chunks.next().is_none());
        assert_eq!(client.get(&resolve("/v1/jobs", job["url"].as_str().expect("a link"))).ok()["id"], job["id"]);
        client
            .post("/v1/jobs", &json!({ "task": "villain/do", "payload": { "do": "echo" }, "key": "a/b%2F//../c" }))
            .ok();
        let page = client.get("/v1/jobs?limit=1").ok();
        assert_eq!(page["jobs"][0]["key"], "a/b%2F//../c");
        let next = resolve("/v1/jobs?limit=1", page["next"].as_str().expect("a next page"));
        assert_eq!(client.get(&next).ok()["jobs"][0]["id"], job["id"]);
    }
}

#[test]
fn replies_to_a_broadcast_arrive_as_they_are_given() {
    let told = Told::new();
    let early = "[plugins.early]\nenv = { ORDER = '{\"do\":\"echo\",\"payload\":1}' }\n";
    let late = "[plugins.late]\nenv = { ORDER = '{\"do\":\"emit-when-told\",\"dir\":\"/told\",\"chunks\":1}' }\nreceive = { timeout = '5m' }\n";
    let dirs = format!("dirs = [{{ host = \"{}\", guest = \"/told\" }}]\n", told.dir.path().display());
    let host = Setup::default()
        .plugin_as("villain", "early")
        .plugin_as("villain", "late")
        .settings(&format!("{early}{late}{dirs}"))
        .start();
    let proxy = ReverseProxy::before(host.client().address(), "/queue");
    let body = r#"{"payload": {"do": "from-env"}, "timeout": "5m"}"#;
    let mut stream = TcpStream::connect(proxy.address().trim_start_matches("http://")).expect("nginx listens");
    write!(
        stream,
        "POST /queue/v1/broadcasts/villain.x HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it is sent");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a timeout");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
    let mut reply = || lines.find(|line| line.starts_with("data: {\"plugin\"")).expect("a reply");
    assert!(reply().contains("\"early\""));
    told.write(0);
    assert!(reply().contains("\"late\""));
}

#[test]
fn groups_and_keys_with_any_text_are_named_through_a_proxy() {
    let host = Setup::default().plugin("villain").start();
    let proxy = ReverseProxy::before(host.client().address(), "/queue");
    let client = Client::new(&format!("{}/queue", proxy.address()));
    let key_of = |limits: &Value| {
        let group = limits.as_array().expect("a list").iter().find(|one| one["group"] == "villain/keyed");
        group.expect("the group")["keys"][0]["key"].clone()
    };
    for (query, key) in [
        ("group=villain%2Fkeyed&key=a%2Fb", "a/b"),
        ("group=villain/keyed&key=a/b", "a/b"),
        ("group=villain/keyed&key=..%2F%2F.%252F%3F%26", "..//.%2F?&"),
        ("group=villain/keyed&key=..", ".."),
    ] {
        let path = format!("/v1/limits?{query}");
        client.put(&path, &json!({ "per_key": 3 })).ok();
        assert_eq!(key_of(&client.get("/v1/limits").ok()), key, "{query}");
        assert_eq!(client.delete(&path).status, 204, "{query}");
    }
    let key = "../a//b?c#d%2F e";
    let address = client.address().to_owned();
    let run = |args: &[&str]| host.cli(args).env("WHARF__HOST", &address).output().expect("it runs").status.code();
    assert_eq!(run(&["limit", "set", "villain/keyed", key, "--per-key", "2"]), Some(0));
    assert_eq!(key_of(&client.get("/v1/limits").ok()), key);
    assert_eq!(run(&["limit", "clear", "villain/keyed", key]), Some(0));
}

#[test]
fn who_waits_goes_on_while_the_host_restarts_behind_a_proxy() {
    let told = Told::new();
    // A port that was just free: the proxy knows the host by it.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let settings = format!("[attempts]\ndrain-timeout = \"0s\"\n{}", told.settings());
    let mut host = Setup::default().plugin("villain").settings(&settings).port(port).start();
    let proxy = ReverseProxy::before(host.client().address(), "/queue");
    let address = format!("{}/queue", proxy.address());
    let command = |host: &Host, args: &[&str]| {
        let mut command = host.cli(args);
        command.env("WHARF__HOST", &address).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    let payload = order(2).to_string();
    let waiting = command(&host, &["job", "enqueue", "villain/slow", "--input", &payload, "--wait"]);
    let id = eventually("the job is there", || {
        let page = host.client().get("/v1/jobs").ok();
        page["jobs"][0]["id"].as_str().map(str::to_owned)
    });
    let mut following = command(&host, &["job", "follow", &id]);
    let mut heard = BufReader::new(following.stdout.take().expect("piped"));
    let mut first = String::new();
    told.write(0);
    heard.read_line(&mut first).expect("the first chunk");
    assert_eq!(first.trim_end(), "{\"chunk\":0}");

    assert_eq!(host.terminate(), Some(0));
    // Each of the two asks, and hears from the proxy that the host is not there.
    eventually("both were told", || (proxy.requests().matches("/events HTTP/1.1\" 502").count() >= 4).then_some(()));
    host.start();
    told.write(1);

    let waited = waiting.wait_with_output().expect("it ends");
    assert_eq!(waited.status.code(), Some(0), "{}", String::from_utf8_lossy(&waited.stderr));
    assert_eq!(waited.stdout, b"{\"chunks\":2}");
    let mut rest = String::new();
    heard.read_to_string(&mut rest).expect("the rest");
    // The second attempt wrote both, and of the first attempt nothing came twice.
    assert_eq!(rest, "{\"chunk\":0}\n{\"chunk\":1}\n");
    assert_eq!(following.wait().expect("it ends").code(), Some(0));
}

/// Sends a request with this name of the host, and returns the response.
fn ask(address: &str, path: &str, name: &str) -> String {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").expect("it is sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    response
}

#[test]
fn a_proxy_opens_a_host_without_a_token_only_if_it_is_told_to() {
    let host = Setup::default().start();
    let proxy = ReverseProxy::with_params_before(host.client().address(), "/queue");
    let refused = ask(proxy.address(), "/queue/v1/jobs", "127.0.0.1");
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("proxy-untrusted"), "{refused}");
    assert!(refused.contains("proxy-authenticates = true"), "it says what to do: {refused}");
    assert!(ask(proxy.address(), "/queue/health", "127.0.0.1").starts_with("HTTP/1.1 200"));
    assert_eq!(host.client().get("/v1/jobs").status, 200);

    let public = "public-url = \"https://jobs.example.com/queue/\"\nproxy-authenticates = true";
    let host = Setup::default().top(public).start();
    let proxy = ReverseProxy::with_params_before(host.client().address(), "/queue");
    for name in ["jobs.example.com", "jobs.example.com:443", "127.0.0.1"] {
        let response = ask(proxy.address(), "/queue/v1/jobs", name);
        assert!(response.starts_with("HTTP/1.1 200"), "{name}: {response}");
    }
    let other = ask(proxy.address(), "/queue/v1/jobs", "evil.example");
    assert!(other.starts_with("HTTP/1.1 403") && other.contains("cross-origin"), "{other}");
    let description = host.client().get("/openapi.json").ok();
    assert_eq!(description["servers"], json!([{ "url": "https://jobs.example.com/queue" }]));
}

#[test]
fn a_probe_of_http_1_0_needs_no_name() {
    let host = Setup::default().start();
    let mut stream = TcpStream::connect(host.client().address().trim_start_matches("http://")).expect("it listens");
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").expect("it is sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    assert!(response.starts_with("HTTP/1.0 200"), "{response}");
}
