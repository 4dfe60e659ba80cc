//! HTTP of plugins, by the libraries of their languages: what is granted is reached, and nothing else, however it is asked for.
//! For Rust the engine's tests show the same with the villain.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Host, Setup, wharf};

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

/// A server with a certificate for 127.0.0.1 of an authority that nobody knows; it ends with this value.
struct TlsServer {
    child: Child,
    port: u16,
}

impl TlsServer {
    fn start(folder: &Path) -> TlsServer {
        const MAKE: &str = r#"
set -e
key() { openssl "$@" -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes; }
key req -x509 -days 2 -subj /CN=authority -keyout authority.key -out authority.pem
key req -x509 -days 2 -subj /CN=another -keyout another.key -out another.pem
key req -subj /CN=server -keyout server.key -out server.csr
echo 'subjectAltName=IP:127.0.0.1' >names
openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names -out server.pem
"#;
        let made = Command::new("sh").args(["-c", MAKE]).current_dir(folder).output().expect("a shell");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert", "server.pem", "-key", "server.key"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is there");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.strip_prefix("ACCEPT ")?.rsplit(':').next()?.parse().ok());
        let port = port.expect("it tells its port");
        // It goes on telling things.
        thread::spawn(move || lines.for_each(drop));
        TlsServer { child, port }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_company_s_own_authority_is_trusted_once_the_operator_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TlsServer::start(folder.path());
    let get = |settings: &str| {
        let grant = format!(
            "[plugins.villain-http]\nhttp = [\"https://127.0.0.1:{}\"]\n[plugins.villain-http.tasks.do]\nretry = {{ attempts = 1 }}",
            server.port
        );
        let host = Setup::default().plugin("villain-http").settings(settings).settings(&grant).start();
        host.run("villain-http/do", json!({ "do": "http-get", "url": format!("https://127.0.0.1:{}/", server.port) }))
    };
    let extra = |file: &str| format!("[http]\nextra-ca = \"{}\"", folder.path().join(file).display());
    for settings in [String::new(), extra("another.pem")] {
        let job = get(&settings);
        let told = job["report"]["text"].as_str().unwrap_or_default();
        assert!(job["state"] == "failed" && told.contains("Tls"), "{settings}: {job}");
    }
    let bundle = ["another.pem", "authority.pem"].map(|file| std::fs::read(folder.path().join(file)).expect("made"));
    std::fs::write(folder.path().join("bundle.pem"), bundle.concat()).expect("written");
    let job = get(&extra("bundle.pem"));
    assert_eq!(job["state"], "succeeded", "{job}");
}

#[test]
fn a_file_of_authorities_that_cannot_be_used_is_told_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("empty.pem"), "nothing").expect("written");
    std::fs::write(folder.path().join("damaged.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("written");
    for (file, expected) in [
        ("missing.pem", "missing.pem: could not read the file: No such file"),
        ("empty.pem", "empty.pem: no certificate is in the file; expected PEM"),
        ("damaged.pem", "damaged.pem: certificate 1 is damaged: "),
    ] {
        let output = wharf()
            .args(["serve", "--listen", "127.0.0.1:0", "--store", "memory:", "--plugins-dir", ".", "--set"])
            .arg(format!("http.extra-ca={file}"))
            .args(["--cache-dir", "cache"])
            .current_dir(folder.path())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
}
