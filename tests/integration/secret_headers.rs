//! Secrets in the headers of requests: the other side has the value, and nobody else: not the plugin, the store, the log, the cache, the
//! API or a report, whatever the plugin tries. And they are changed without a restart.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::{Host, Setup, eventually, wharf};

/// It has what JSON, URLs and HTML write in another way.
pub(crate) fn value() -> String {
    "sk_live_7f3a/9Q\"x+4&e".to_owned()
}

/// A server that answers with what the request had, in the form that its path names.
pub(crate) struct Echo {
    pub(crate) port: u16,
    /// The head and the body of each request.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    fn start(tls: Option<&Arc<ServerConfig>>) -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, tls) = (Arc::clone(&requests), tls.cloned());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, tls) = (Arc::clone(&seen), tls.clone());
                thread::spawn(move || match tls {
                    Some(tls) => {
                        answer(StreamOwned::new(ServerConnection::new(tls).expect("a session"), stream), &seen)
                    }
                    None => answer(stream, &seen),
                });
            }
        });
        Echo { port, requests }
    }

    pub(crate) fn seen(&self) -> String {
        self.requests.lock().expect("no panic").join("\n")
    }

    /// Returns the authorization of the last request.
    pub(crate) fn last_authorization(&self) -> String {
        let requests = self.requests.lock().expect("no panic");
        authorization(requests.last().expect("a request")).to_owned()
    }
}

fn authorization(request: &str) -> &str {
    let line = request.lines().find_map(|line| line.strip_prefix("authorization: "));
    line.unwrap_or_default()
}

fn answer(stream: impl Read + Write, seen: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let mut body = String::new();
    while head.contains("transfer-encoding: chunked") && !body.ends_with("0\r\n\r\n") {
        if stream.read_line(&mut body).unwrap_or(0) == 0 {
            return;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    if stream.by_ref().take(length).read_to_string(&mut body).is_err() {
        return;
    }
    seen.lock().expect("no panic").push(format!("{head}{body}"));
    let sent = authorization(&head).to_owned();
    if let Some(gate) = head.split(' ').nth(1).and_then(|path| path.strip_prefix("/when")) {
        eventually("the gate is opened", || Path::new(gate).exists().then_some(()));
    }
    let percent = || sent.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
    let hex = || sent.bytes().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let (more, body) = match head.split(' ').nth(1).unwrap_or_default() {
        "/header" => (format!("x-echo: {sent}\r\nlocation: /?key={}\r\n", percent()), String::new()),
        "/base64" => (String::new(), format!("{} {}", STANDARD.encode(&sent), STANDARD.encode(format!("a{sent}b")))),
        "/percent" => (String::new(), percent()),
        "/hex" => (String::new(), hex()),
        "/json" => (String::new(), json!({ "echo": sent }).to_string()),
        "/value" => (String::new(), format!("kept {}", value())),
        "/gzip" => ("content-encoding: gzip\r\n".to_owned(), sent.clone()),
        "/split" => {
            // Each byte in a piece, and a packet, of its own.
            let mut write = |bytes: &[u8]| stream.get_mut().write_all(bytes).and_then(|()| stream.get_mut().flush());
            let _head = write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
            for byte in sent.bytes() {
                let _byte = write(&[b"1\r\n", &[byte][..], b"\r\n"].concat());
            }
            let _end = write(b"0\r\n\r\n");
            return;
        }
        _ => (String::new(), format!("you sent {sent}")),
    };
    let head = format!("HTTP/1.1 200 OK\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _answered =
        stream.get_mut().write_all(head.as_bytes()).and_then(|()| stream.get_mut().write_all(body.as_bytes()));
    let _flushed = stream.get_mut().flush();
}

/// A certificate for 127.0.0.1 of an authority that nobody knows, in a folder.
fn certificate(folder: &Path) -> Arc<ServerConfig> {
    const MAKE: &str = r"
set -e
key() { openssl $@ -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes; }
key req -x509 -days 2 -subj /CN=authority -keyout authority.key -out authority.pem
key req -subj /CN=server -keyout server.key -out server.csr
echo 'subjectAltName=IP:127.0.0.1' >names
openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names -out server.pem
";
    let made = Command::new("sh").args(["-c", MAKE]).current_dir(folder).output().expect("a shell");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let chain = CertificateDer::pem_file_iter(folder.join("server.pem")).expect("made").map(|one| one.expect("whole"));
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("made");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain.collect(), key);
    Arc::new(config.expect("they belong together"))
}

/// Three servers: the one that may have the secret, another one, and one without TLS; and the folder of the secret.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) echo: Echo,
    pub(crate) other: Echo,
    plain: Echo,
}

impl World {
    pub(crate) fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let tls = certificate(folder.path());
        std::fs::write(folder.path().join("key"), format!("{}\n", value())).expect("written");
        World { folder, echo: Echo::start(Some(&tls)), other: Echo::start(Some(&tls)), plain: Echo::start(None) }
    }

    pub(crate) fn settings(&self, plugin: &str) -> String {
        format!(
            "[http]\nextra-ca = \"{folder}/authority.pem\"\n[secrets.stripe]\nfrom = \"file:{folder}/key\"\nhosts = [\"127.0.0.1:{port}\"]\n\
             [plugins.{plugin}]\nsecrets = [\"stripe\"]\nhttp = [\"https://127.0.0.1:{port}\", \"https://127.0.0.1:{other}\", \"http://127.0.0.1:{plain}\"]\n\
             [plugins.{plugin}.tasks.do]\nretry = {{ attempts = 1 }}\n",
            folder = self.folder.path().display(),
            port = self.echo.port,
            other = self.other.port,
            plain = self.plain.port
        )
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.echo.port)
    }
}

/// A plugin that sends requests as it is told.
pub(crate) struct Sending {
    guest: &'static str,
    order: &'static str,
}

impl Sending {
    pub(crate) fn send(&self, host: &Host, url: &str, authorization: &str, body: &str) -> Value {
        let order =
            json!({ "do": self.order, "url": url, "headers": { "authorization": authorization }, "body": body });
        host.run(&format!("{}/do", self.guest), order)
    }

    fn leaks_nothing(&self) {
        let (world, cache) = (World::new(), tempfile::tempdir().expect("a folder"));
        let setup = Setup::default().plugin(self.guest).settings(&world.settings(self.guest));
        // What is compiled anew for its own cache takes long for an interpreter.
        let setup = match self.guest {
            "villain-http" => setup.default_cache().variable("XDG_CACHE_HOME", cache.path()),
            _ => setup,
        };
        let host = setup.variable("WHARF__LOG__LEVEL", "debug").start();
        let value = value();
        let mut answers = Vec::new();

        for path in ["/", "/header", "/base64", "/percent", "/hex", "/json", "/split"] {
            for header in ["Bearer {WHARF_SECRET_STRIPE}", "Basic user:{WHARF_SECRET_STRIPE}"] {
                let job = self.send(&host, &world.url(path), header, "");
                assert_eq!(job["state"], "succeeded", "{path}: {job}");
                let result = host.result(job["id"].as_str().expect("an id")).to_string();
                assert!(result.contains("***"), "{path}, {header}: {result}");
                answers.push(result);
                let sent = world.echo.last_authorization();
                let expected = match header.starts_with("Basic") {
                    true => format!("Basic {}", STANDARD.encode(format!("user:{value}"))),
                    false => format!("Bearer {value}"),
                };
                assert_eq!(sent, expected, "the other side has the value");
            }
        }
        let job = self.send(&host, &world.url("/gzip"), "Bearer {WHARF_SECRET_STRIPE}", "");
        assert_eq!(job["state"], "failed", "a compressed response hides what it has: {job}");
        assert!(world.echo.seen().contains("accept-encoding: identity"));

        // Everywhere else the placeholder goes out as it is, and is counted.
        let elsewhere = [
            (format!("https://127.0.0.1:{}/", world.other.port), "Bearer {WHARF_SECRET_STRIPE}", "", "header"),
            (format!("http://127.0.0.1:{}/", world.plain.port), "Bearer {WHARF_SECRET_STRIPE}", "", "header"),
            (world.url("/?key={WHARF_SECRET_STRIPE}"), "none", "", "url"),
            (world.url("/"), "none", "key={WHARF_SECRET_STRIPE}", "body"),
        ];
        for (url, header, body, part) in elsewhere {
            let name = format!("wharf_secret_placeholders_sent_total{{plugin=\"{}\",part=\"{part}\"}}", self.guest);
            let before = host.metric(&name).unwrap_or(0.0);
            let job = self.send(&host, &url, header, body);
            assert_eq!(job["state"], "succeeded", "{url}: {job}");
            assert_eq!(host.metric(&name), Some(before + 1.0), "{part}: {url}");
        }
        for server in [&world.other, &world.plain] {
            assert!(server.seen().contains("authorization: Bearer wharf_secret_stripe_"), "{}", server.seen());
            assert!(!server.seen().contains(&value));
        }
        let (urls, bodies) = (world.echo.seen(), world.echo.seen());
        assert!(urls.contains("/?key=wharf_secret_stripe_") && bodies.contains("key=wharf_secret_stripe_"));

        self.is_nowhere(&host, &world, &answers, cache.path());
    }

    /// Looks for the value in everything that the host keeps and says.
    fn is_nowhere(&self, host: &Host, world: &World, answers: &[String], cache: &Path) {
        let mut texts: Vec<(String, Vec<u8>)> =
            answers.iter().map(|answer| ("an answer".to_owned(), answer.clone().into_bytes())).collect();
        let jobs = host.client().get("/v1/jobs?limit=200").ok();
        let ids = jobs["jobs"].as_array().or(jobs.as_array()).expect("a list");
        for id in ids.iter().filter_map(|job| job["id"].as_str()) {
            for path in [format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/attempts")] {
                texts.push((path.clone(), host.client().get(&path).body));
            }
            let events: Vec<String> = host.client().events(id, None).map(|event| event.data.to_string()).collect();
            texts.push((format!("the events of {id}"), events.join("\n").into_bytes()));
        }
        for path in ["/v1/config", "/v1/plugins", "/v1/nodes", "/v1/failures", "/v1/audit", "/metrics"] {
            texts.push((path.to_owned(), host.client().get(path).body));
        }
        let config = host.cli(&["config"]).output().expect("it runs");
        texts.push(("wharf config".to_owned(), [config.stdout, config.stderr].concat()));
        texts.push(("the log".to_owned(), host.said().into_bytes()));
        let mut files = 0;
        for folder in [host.dir(), cache] {
            let mut folders = vec![folder.to_owned()];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path()) {
                    if entry.is_dir() {
                        folders.push(entry);
                    } else if entry.extension().is_some_and(|extension| extension == "wasm") {
                        // It was there before, and an interpreter is large.
                    } else if let Ok(content) = std::fs::read(&entry) {
                        files += 1;
                        texts.push((entry.display().to_string(), content));
                    }
                }
            }
        }
        assert!(files > 2, "store, settings and plugin are there");
        let value = value();
        let forms = [
            value.clone(),
            value.replace('"', "\\\""),
            STANDARD.encode(format!("user:{value}"))[8..].trim_end_matches('=').to_owned(),
            value.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}")),
            value.bytes().fold(String::new(), |text, byte| format!("{text}{byte:02x}")),
        ];
        for (place, text) in &texts {
            for form in &forms {
                // Its middle, so that a half of it would be seen, too.
                let middle = &form.as_bytes()[form.len() / 2 - 5..form.len() / 2 + 5];
                assert!(!text.windows(middle.len()).any(|window| window == middle), "{form} is in {place}");
            }
        }
        assert!(world.echo.seen().contains(&value), "it was there to be found");
    }
}

#[test]
fn rust_cannot_leak_a_secret() {
    Sending { guest: "villain-http", order: "http-send" }.leaks_nothing();
}

#[test]
fn python_cannot_leak_a_secret() {
    Sending { guest: "outside-python", order: "send" }.leaks_nothing();
}

#[test]
fn javascript_cannot_leak_a_secret() {
    Sending { guest: "outside-web", order: "send" }.leaks_nothing();
}

pub(crate) const RUST: Sending = Sending { guest: "villain-http", order: "http-send" };
pub(crate) const BEARER: &str = "Bearer {WHARF_SECRET_STRIPE}";

#[test]
fn a_secret_is_changed_without_a_restart_and_a_bad_one_changes_nothing() {
    let world = World::new();
    let host = Setup::default().plugin("villain-http").settings(&world.settings("villain-http")).start();
    let digest = || host.client().get("/v1/config").ok()["digest"].clone();
    let before = digest();
    let key = world.folder.path().join("key");
    let sent = || {
        let job = RUST.send(&host, &world.url("/"), BEARER, "");
        assert_eq!(job["state"], "succeeded", "{job}");
        world.echo.last_authorization()
    };
    assert_eq!(sent(), format!("Bearer {}", value()));
    for (bad, why) in
        [("short", "it is shorter than 8 bytes"), ("\n", "it is empty"), ("new-value-1\nmore", "byte 12 is a line end")]
    {
        std::fs::write(&key, bad).expect("written");
        eventually("the host says why", || {
            let config = host.client().get("/v1/config").ok();
            config["refused"]["why"]
                .as_str()
                .filter(|told| told.contains(why) && told.contains("secrets.stripe.from"))
                .map(drop)
        });
        assert!(!host.said().contains("new-value-1"), "no error quotes it");
        assert_eq!(sent(), format!("Bearer {}", value()), "the value that held holds");
    }
    std::fs::remove_file(&key).expect("it was there");
    eventually("the host says that it is gone", || {
        let config = host.client().get("/v1/config").ok();
        config["refused"]["why"].as_str().filter(|told| told.contains("could not read")).map(drop)
    });
    assert_eq!(sent(), format!("Bearer {}", value()));
    std::fs::write(&key, "new-value-1\r\n").expect("written");
    eventually("the new value is sent", || (sent() == "Bearer new-value-1").then_some(()));
    host.says("`plugins.villain-http`, `secrets.stripe`");
    assert_eq!(digest(), before, "a value is no part of the digest");
}

#[test]
fn bad_secrets_are_told_with_their_place_and_none_of_their_text() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key"), "sk_live_7f3a").expect("written");
    let good = "[secrets.stripe]\nfrom = \"file:key\"\nhosts = [\"api.stripe.com\"]\n";
    for (settings, expected) in [
        (
            "[secrets.stripe]\nfrom = \"sk_live_7f3a\"\nhosts = [\"a.example\"]",
            "wharf.toml:2:8: `secrets.stripe.from`: expected `env:NAME` or `file:PATH`",
        ),
        ("[secrets.stripe]\nfrom = 5\nhosts = [\"a.example\"]", "wharf.toml:2:8: `secrets.stripe.from`: expected"),
        (
            "[secrets.stripe]\nvalue = \"sk_live_7f3a\"",
            "wharf.toml:2:1: `secrets.stripe`: unknown key `value`; a value never stands in the file",
        ),
        ("[secrets.stripe]\nfrom = \"file:key\"", "`secrets.stripe`: `hosts` is missing"),
        (
            "[secrets.stripe]\nfrom = \"file:key\"\nhosts = []",
            "wharf.toml:3:9: `secrets.stripe.hosts`: expected the hosts",
        ),
        (
            "[secrets.stripe]\nfrom = \"file:key\"\nhosts = [\"http://a.example\"]",
            "wharf.toml:3:10: `secrets.stripe.hosts`: invalid host: a secret is sent over https only",
        ),
        ("[secrets.sk_live_7f3a]\nfrom = \"file:key\"", "wharf.toml:1:10: invalid name of a secret"),
        (
            "[secrets.stripe]\nfrom = \"file:none\"\nhosts = [\"a.example\"]",
            "wharf.toml:2:8: `secrets.stripe.from`: could not read none",
        ),
        (
            "[secrets.stripe]\nfrom = \"file:.\"\nhosts = [\"a.example\"]",
            "`secrets.stripe.from`: could not read .: it is not a file",
        ),
        (
            "[secrets.stripe]\nfrom = \"env:NO_SUCH\"\nhosts = [\"a.example\"]",
            "`secrets.stripe.from`: the environment variable NO_SUCH is not set",
        ),
        (
            "[plugins.words]\nsecrets = [\"strpe\"]",
            "wharf.toml:5:11: `plugins.words.secrets`: unknown secret `strpe`; did you mean `stripe`?",
        ),
        (
            "[plugins.words]\nenv = { WHARF_TICK = \"x\" }",
            "`plugins.words.env.WHARF_TICK`: programs have this variable from the host",
        ),
        ("[plugins.words]\nsecrets = \"sk_live_7f3a\"", "expected a list of names of secrets"),
        ("[plugins.words]\nsecrets = [\"sk_live_7f3a\"]", "invalid name of a secret"),
        (
            "[plugins.words]\nsecrets = [\"stripe\"]\nenv = { WHARF_SECRET_STRIPE = \"x\" }",
            "`env` sets WHARF_SECRET_STRIPE",
        ),
    ] {
        let text = if settings.contains("[plugins") { format!("{good}{settings}") } else { settings.to_owned() };
        std::fs::write(folder.path().join("wharf.toml"), &text).expect("written");
        let output = wharf()
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--store",
                "memory:",
                "--plugins-dir",
                ".",
                "--cache-dir",
                "cache",
            ])
            .current_dir(folder.path())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{text}\n{said}");
        assert!(!said.contains("sk_live_7f3a"), "{said}");
    }
}

#[test]
fn a_call_without_the_secret_says_so_and_sends_the_placeholder() {
    let world = World::new();
    let host = Setup::default().plugin("villain-http").settings(&world.settings("villain-http")).start();
    let order = json!({ "do": "http-send", "url": world.url("/"), "headers": { "authorization": BEARER } }).to_string();
    let call = || {
        let output = host.cli(&["call", "villain-http/do", "--input", &order]).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = call();
    assert!(done && !said.contains("is not here"), "{said}");
    assert_eq!(world.echo.last_authorization(), format!("Bearer {}", value()));
    std::fs::remove_file(world.folder.path().join("key")).expect("it was there");
    let (done, said) = call();
    assert!(done && said.contains("the secret `stripe` is not here") && said.contains("could not read"), "{said}");
    assert!(world.echo.last_authorization().starts_with("Bearer wharf_secret_stripe_"));
}

#[test]
fn a_secret_that_is_taken_away_ends_the_attempts_that_have_it() {
    let world = World::new();
    let settings = world.settings("villain-http");
    let host = Setup::default().plugin("villain-http").settings(&settings).start();
    let id = host.enqueue("villain-http/do", json!({ "do": "sleep", "ms": 6_000 }));
    host.in_state(&id, "running");
    let file = host.dir().join("wharf.toml");
    let text = std::fs::read_to_string(&file).expect("it is there").replace("secrets = [\"stripe\"]\n", "");
    std::fs::write(&file, text).expect("written");
    eventually("the job was given back and runs again", || {
        let attempts = host.client().get(&format!("/v1/jobs/{id}/attempts")).ok();
        attempts.to_string().contains("less than it began with, in [plugins.villain-http]: secrets").then_some(())
    });
}
