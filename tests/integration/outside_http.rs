//! HTTP of plugins, by the libraries of their languages: what is granted is reached, and nothing else, however it is asked for.
//! For Rust the engine's tests show the same with the villain.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Host, Setup};

/// More than the body of a response may have.
const TOO_MUCH: usize = 20 << 20;

/// A server that answers with what it was asked, with more than anybody wants, with another place, or not at all.
fn server(elsewhere: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream, elsewhere));
        }
    });
    port
}

fn answer(mut stream: TcpStream, elsewhere: u16) {
    let mut request = [0; 4096];
    let read = stream.read(&mut request).unwrap_or(0);
    let asked = String::from_utf8_lossy(&request[..read]).lines().next().unwrap_or_default().to_owned();
    let (status, body) = match asked.split(' ').nth(1) {
        Some("/big") => ("200 OK".to_owned(), "x".repeat(TOO_MUCH)),
        Some("/away") => (format!("302 Found\r\nlocation: http://127.0.0.1:{elsewhere}/"), "gone".to_owned()),
        Some("/silent") => {
            // Until the other side gives up.
            let _ended = stream.read(&mut request);
            return;
        }
        _ => ("200 OK".to_owned(), asked),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _answered = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

/// A plugin that fetches an address on request.
struct Fetching {
    guest: &'static str,
    task: &'static str,
    order: fn(&str) -> Value,
    /// What it makes of the answer to `GET /path`.
    made_of_path: Value,
    /// What it makes of a redirect.
    made_of_redirect: fn(&Value) -> bool,
}

impl Fetching {
    /// The job, and what stands in its log.
    fn fetch(&self, host: &Host, plugin: &str, url: &str) -> (Value, String) {
        let id = host.enqueue(&format!("{plugin}/{}", self.task), (self.order)(url));
        let mut job = host.finished(&id);
        if job["state"] == "succeeded" {
            job["result"] = host.result(&id);
        }
        let log = host.client().events(&id, None).filter(|event| event.kind == "log");
        (job, log.map(|event| event.data["line"].as_str().unwrap_or_default().to_owned() + "\n").collect())
    }

    fn fails(&self, host: &Host, plugin: &str, url: &str) -> (Value, String) {
        let (job, log) = self.fetch(host, plugin, url);
        assert_eq!(job["state"], "failed", "{url}: {job}\n{log}");
        (job, log)
    }

    fn reaches_what_is_granted_and_nothing_else(&self) {
        let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
        elsewhere.set_nonblocking(true).expect("it can be");
        let other = elsewhere.local_addr().expect("bound").port();
        let port = server(other);
        let guest = self.guest;
        let grants = format!(
            "[plugins.{guest}]\nhttp = [\"http://127.0.0.1:{port}\"]\n[plugins.named]\nhttp = [\"http://localhost:{port}\"]\n\
             [plugins.hurried]\nhttp = [\"http://127.0.0.1:{port}\"]\n\
             [plugins.{guest}.tasks.{task}]\nretry = {{ attempts = 1 }}\n[plugins.named.tasks.{task}]\nretry = {{ attempts = 1 }}\n\
             [plugins.hurried.tasks.{task}]\nretry = {{ attempts = 1 }}\ntimeout = \"2s\"",
            task = self.task
        );
        let setup = Setup::default().plugin(guest).plugin_as(guest, "named").plugin_as(guest, "hurried");
        let host = setup.settings(&grants).start();

        let (job, log) = self.fetch(&host, guest, &format!("http://127.0.0.1:{port}/path"));
        assert_eq!(job["result"], self.made_of_path, "{job}\n{log}");

        for url in [format!("http://127.0.0.1:{other}/"), format!("https://127.0.0.1:{port}/")] {
            let (_, log) = self.fails(&host, guest, &url);
            assert!(log.contains("refused: not granted; to grant it, set http = ["), "{url}: {log}");
        }
        // A name that is granted, and leads inside.
        let (_, log) = self.fails(&host, "named", &format!("http://localhost:{port}/path"));
        assert!(log.contains("which is not on the public internet; to grant it, set addresses = ["), "{log}");

        self.fails(&host, guest, &format!("http://127.0.0.1:{port}/big"));
        let (job, _) = self.fails(&host, "hurried", &format!("http://127.0.0.1:{port}/silent"));
        assert_eq!(job["report"]["outcome"], "timed-out", "no request is longer than its attempt: {job}");

        let (job, log) = self.fetch(&host, guest, &format!("http://127.0.0.1:{port}/away"));
        assert!((self.made_of_redirect)(&job), "a redirect is an answer: {job}\n{log}");
        let asked = elsewhere.accept().map(|_| ());
        assert_eq!(asked.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock), "nobody went elsewhere");
    }
}

#[test]
fn python_s_requests_go_where_they_are_granted() {
    let python = Fetching {
        guest: "outside-python",
        task: "do",
        order: |url| json!({ "do": "get", "url": url }),
        made_of_path: json!({ "status": 200, "body": "GET /path HTTP/1.1" }),
        made_of_redirect: |job| job["result"]["status"] == 302,
    };
    python.reaches_what_is_granted_and_nothing_else();
}

#[test]
fn javascript_s_requests_go_where_they_are_granted() {
    let javascript = Fetching {
        guest: "words-web",
        task: "count",
        order: |url| json!({ "url": url }),
        made_of_path: json!({ "lines": 1, "words": 3, "characters": 18 }),
        made_of_redirect: |job| job["report"]["text"].as_str().is_some_and(|text| text.contains("answers with 302")),
    };
    javascript.reaches_what_is_granted_and_nothing_else();
}
