//! Tokens: what each may do, the key that it may be bound to, and their change while the host runs.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Host, Reply, Setup, eventually, link, wharf};

const ADMIN: &str = "the-token-of-the-tests";
/// A token that may do what one scope allows, for each scope but `admin`.
const SCOPES: [&str; 4] = ["read", "operate", "enqueue:*", "broadcast:>"];

/// One token, and its table in wharf.toml.
struct Token {
    text: String,
    hash: String,
}

impl Token {
    fn new() -> Token {
        let output = wharf().args(["token", "new", "--json"]).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let member = |name: &str| document[name].as_str().expect("text").to_owned();
        Token { text: member("token"), hash: member("hash") }
    }

    fn table(&self, name: &str, can: &[&str], key: Option<&str>) -> String {
        let key = key.map(|key| format!("key = \"{key}\"\n")).unwrap_or_default();
        format!("[[tokens]]\nname = \"{name}\"\nhash = \"{}\"\ncan = {}\n{key}", self.hash, json!(can))
    }

    fn client(&self, host: &Host) -> Client {
        host.client().clone().with_token(Some(&self.text))
    }
}

fn host(tables: &[String]) -> Host {
    Setup::default().plugin("words").plugin("villain").token(ADMIN).settings(&tables.concat()).start()
}

#[track_caller]
fn is_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.json()["code"], code, "{}", reply.json());
}

/// Requests an operation of the description, with what its address and its body need.
fn request(client: &Client, method: &str, path: &str) -> Reply {
    let id = if path.starts_with("/v1/plugins") { "words" } else { "0000000000001" };
    let path = path.replace("{id}", id).replace("{fingerprint}", "f1:0000000000000001").replace("{topic}", "nobody.x");
    let path = path.replace("{node}", "nobody");
    let of_limits = "/v1/limits?group=words%2Fcount";
    match (method, path.as_str()) {
        ("get", path) => client.get(path),
        ("post", "/v1/jobs") => client.post("/v1/jobs", &json!({ "task": "words/count", "payload": { "text": "a" } })),
        ("post", path) => client.post(path, &json!({})),
        ("put", "/v1/limits") => client.put(of_limits, &json!({ "per_key": 3 })),
        ("delete", "/v1/limits") => client.delete(of_limits),
        ("delete", "/v1/holds") => client.delete("/v1/holds?key=nobody"),
        ("delete", path) if path.starts_with("/v1/operations/") => client.delete(path),
        ("delete", path) if path.starts_with("/v1/schedules/") => client.delete(path),
        ("put", path) if path.starts_with("/v1/schedules/") => client.put(path, &json!({})),
        (method, path) => panic!("how to request {method} {path} is not known here"),
    }
}

#[test]
fn each_operation_is_held_to_the_scope_that_is_documented() {
    let free = SCOPES.map(|_| Token::new());
    let bound = SCOPES.map(|_| Token::new());
    let free_tables = free.iter().zip(SCOPES).map(|(token, scope)| token.table(scope, &[scope], None));
    let by_key = |scope: &&str| !scope.starts_with("broadcast");
    let bound_tables = bound.iter().zip(SCOPES).filter(|(_, scope)| by_key(scope));
    let bound_tables = bound_tables.map(|(token, scope)| token.table(&format!("{scope} of a"), &[scope], Some("a")));
    let host = host(&free_tables.chain(bound_tables).collect::<Vec<_>>());
    let nobody = host.client().clone().with_token(None);
    let document = host.client().get("/openapi.json").ok();
    let (mut seen, mut by_key_seen) = (BTreeSet::new(), BTreeSet::new());
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let name = format!("{method} {path}");
            if operation["x-scope"] == "admin" {
                for token in &free {
                    is_problem(&request(&token.client(&host), method, path), 403, "forbidden");
                }
                assert_eq!(request(host.client(), method, path).status, 200, "{name}");
                continue;
            }
            let Some(scope) = operation["x-scope"].as_str() else {
                let is_probe = ["/health", "/ready"].contains(&path.as_str());
                assert_eq!(request(&nobody, method, path).status, if is_probe { 200 } else { 401 }, "{name}");
                assert_eq!(request(&free[3].client(&host), method, path).status, 200, "{name}");
                continue;
            };
            let kind = |scope: &str| scope.split(':').next().expect("a word").to_owned();
            let at = SCOPES.iter().position(|known| kind(known) == kind(scope)).expect("a scope");
            seen.insert(SCOPES[at]);
            is_problem(&request(&nobody, method, path), 401, "unauthorized");
            for (token, other) in free.iter().zip(SCOPES) {
                let reply = request(&token.client(&host), method, path);
                let includes = other == SCOPES[at] || (other == "operate" && SCOPES[at] == "read");
                match includes {
                    true => assert!(![401, 403].contains(&reply.status), "{name} with {other}: {}", reply.status),
                    false => is_problem(&reply, 403, "forbidden"),
                }
            }
            let is_by_key = operation["x-by-key"].as_bool().expect("true or false");
            by_key_seen.insert((SCOPES[at], is_by_key));
            if by_key(&SCOPES[at]) {
                let reply = request(&bound[at].client(&host), method, path);
                match is_by_key {
                    true => assert!(![401, 403].contains(&reply.status), "{name} with a key: {}", reply.status),
                    false => is_problem(&reply, 403, "forbidden"),
                }
            }
        }
    }
    assert_eq!(seen.len(), SCOPES.len(), "each scope has an operation");
    for scope in ["read", "operate"] {
        for is_by_key in [true, false] {
            assert!(by_key_seen.contains(&(scope, is_by_key)), "{scope} {is_by_key}");
        }
    }
}

#[test]
fn a_scope_names_its_tasks_and_topics() {
    let token = Token::new();
    let host = host(&[token.table("ci", &["enqueue:words/*", "broadcast:text.>"], None)]);
    let client = token.client(&host);
    let job = |task: &str| json!({ "task": task, "payload": { "text": "a", "do": "echo" } });
    let words = json!({ "task": "words/count", "payload": { "text": "a" } });
    assert_eq!(client.post("/v1/jobs", &words).status, 202);
    is_problem(&client.post("/v1/jobs", &job("villain/do")), 403, "forbidden");
    is_problem(&client.post("/v1/jobs", &json!([words, job("villain/do")])), 403, "forbidden");
    is_problem(&client.post("/v1/jobs?wait=1s", &words), 403, "forbidden");
    is_problem(&client.post("/v1/broadcasts/villain.x", &json!({})), 403, "forbidden");
    assert_eq!(client.post("/v1/broadcasts/text.nobody", &json!({})).status, 200);
}

#[test]
fn a_token_with_a_key_sees_the_attempts_of_its_own_jobs_only() {
    let token = Token::new();
    let host = host(&[token.table("acme", &["read"], Some("acme"))]);
    let failed = |key: &str| {
        let id = host.enqueue_with(json!({ "task": "villain/do", "key": key, "payload": { "do": "trap" } }));
        assert_eq!(host.finished(&id)["state"], "failed");
        format!("/v1/jobs/{id}/attempts")
    };
    let (own, other) = (failed("acme"), failed("other"));
    let of_all = host.client().get(&other).ok()["attempts"][0].clone();
    let of_key = token.client(&host).get(&own).ok()["attempts"][0].clone();
    assert_eq!((&of_all["outcome"], &of_key["outcome"]), (&json!("trapped"), &json!("trapped")));
    assert!(of_all["node_name"].is_string() && of_key["node_name"].is_null(), "no host is named to a tenant: {of_key}");
    is_problem(&token.client(&host).get(&other), 404, "job-unknown");
}

/// A function's members are taken with `_` as well, unless one of them is the key: another spelling must not hide a key.
#[test]
fn a_token_with_a_key_calls_functions_for_that_key_only() {
    let token = Token::new();
    let table = token.table("acme", &["enqueue:*"], Some("x"));
    let key = "[plugins.functions.tasks.move]\nkey = \"/row/seen-at/1\"\n";
    let host = Setup::default().plugin("functions").token(ADMIN).settings(key).settings(&table).start();
    let moved = |member: &str, key: &str| {
        let row = json!({ "id": 1, "name": "a", "level": "low", "marks": [], member: [1, key] });
        json!({ "task": "functions/move", "payload": { "row": row, "by": 1 } })
    };
    let client = token.client(&host);
    let id = client.post("/v1/jobs", &moved("seen-at", "x")).ok()["id"].as_str().expect("an id").to_owned();
    assert_eq!(host.finished(&id)["key"], "x");
    assert_eq!(client.post("/v1/jobs", &moved("seen-at", "y")).status, 403);
    for key in ["x", "y"] {
        let hidden = client.post("/v1/jobs", &moved("seen_at", key));
        assert_eq!(hidden.status, 422, "{hidden:?}");
    }
    // Without a key in the payload it is the token's own.
    let without = json!({ "task": "functions/add", "payload": { "a": 1, "b": 2 } });
    let id = client.post("/v1/jobs", &without).ok()["id"].as_str().expect("an id").to_owned();
    assert_eq!(host.finished(&id)["key"], "x");
}

#[test]
fn a_token_with_a_key_finds_and_makes_jobs_of_that_key_only() {
    let token = Token::new();
    let host = host(&[token.table("acme", &["read", "operate", "enqueue:*"], Some("acme"))]);
    let (admin, acme) = (host.client(), token.client(&host));
    let words = |more: Value| {
        let mut job = json!({ "task": "words/count", "payload": { "text": "a" } });
        job.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        job
    };
    let id = |reply: Reply| reply.ok()["id"].as_str().expect("an id").to_owned();

    let own = id(acme.post("/v1/jobs", &words(json!({ "token": "t" }))));
    assert_eq!(acme.get(&format!("/v1/jobs/{own}")).ok()["key"], "acme");
    let other = id(admin.post("/v1/jobs", &words(json!({ "key": "other", "token": "t" }))));
    assert_ne!(own, other, "a token of another key is another token");
    assert_eq!(id(acme.post("/v1/jobs", &words(json!({ "token": "t" })))), own);
    let keyless = id(admin.post("/v1/jobs", &words(json!({}))));

    let in_payload = json!({ "payload": { "tenant": "other", "text": "a" } });
    for job in [words(json!({ "key": "other" })), words(in_payload.clone())] {
        is_problem(&acme.post("/v1/jobs", &job), 403, "key-forbidden");
        is_problem(&acme.post("/v1/jobs", &json!([words(json!({})), job])), 403, "key-forbidden");
    }
    let named = words(json!({ "key": "acme", "payload": { "tenant": "acme", "text": "a" } }));
    let named = id(acme.post("/v1/jobs", &named));

    for id in [&other, &keyless] {
        host.finished(id);
        for path in ["", "/result", "/events", "/attempts"] {
            is_problem(&acme.get(&format!("/v1/jobs/{id}{path}")), 404, "job-unknown");
        }
        for path in ["/cancel", "/retry"] {
            is_problem(&acme.post(&format!("/v1/jobs/{id}{path}"), &Value::Null), 404, "job-unknown");
        }
    }
    let listed = |query: &str| -> Vec<String> {
        let page = acme.get(&format!("/v1/jobs{query}")).ok();
        let jobs = page["jobs"].as_array().expect("a list");
        jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(listed(""), [named.clone(), own.clone()]);
    assert_eq!(listed("?key=acme"), [named, own.clone()]);
    assert_eq!(listed("?key=other"), [""; 0]);
    host.finished(&own);
    assert_eq!(acme.get(&format!("/v1/jobs/{own}/result")).status, 200);

    // A token finds its job also when the plugin is gone, and finds none of another key.
    std::fs::remove_file(host.dir().join("plugins/words.wasm")).expect("removed");
    eventually("the plugin is gone", || (admin.get("/v1/plugins/words").status == 404).then_some(()));
    assert_eq!(id(admin.post("/v1/jobs", &words(json!({ "key": "other", "token": "t" })))), other);
    let foreign = words(json!({ "key": "other", "token": "t" }));
    is_problem(&acme.post("/v1/jobs", &foreign), 403, "key-forbidden");
    is_problem(&acme.post("/v1/jobs?wait=1s", &foreign), 403, "key-forbidden");
    is_problem(&acme.post("/v1/jobs", &json!([foreign])), 403, "key-forbidden");
    let beside_own = acme.post("/v1/jobs", &json!([words(json!({ "token": "t" })), foreign]));
    is_problem(&beside_own, 422, "job-invalid");
    assert!(!beside_own.json().to_string().contains(&other), "{}", beside_own.json());
    for own_job in [json!({ "token": "t" }), json!({ "key": "acme", "token": "t" })] {
        assert_eq!(id(acme.post("/v1/jobs", &words(own_job))), own);
    }
}

#[test]
fn a_result_that_others_are_being_sent_is_unknown_to_another_key() {
    let token = Token::new();
    let host = host(&[token.table("acme", &["read"], Some("acme"))]);
    let job = host.run("villain/slow", json!({ "do": "big-output", "bytes": 16 << 20 }));
    let path = format!("/v1/jobs/{}/result", job["id"].as_str().expect("an id"));
    let address = host.client().address().trim_start_matches("http://");
    let mut reader = TcpStream::connect(address).expect("the host listens");
    write!(reader, "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {ADMIN}\r\n\r\n").expect("sent");
    let mut beginning = vec![0; 100_000];
    reader.read_exact(&mut beginning).expect("the beginning of the result");
    assert!(beginning.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&beginning[..200]));
    is_problem(&token.client(&host).get(&path), 404, "job-unknown");
    drop(reader);
}

#[test]
fn who_holds_a_full_group_is_not_told_to_another_key() {
    let token = Token::new();
    let host = host(&[token.table("acme", &["read", "enqueue:*"], Some("acme"))]);
    let sleep = |key: &str| json!({ "do": "sleep", "ms": 50_000, "key": key });
    let others: Vec<String> = (0..5).map(|n| host.enqueue("villain/pair", sleep(&format!("k{n}")))).collect();
    others.iter().for_each(|id| _ = host.in_state(id, "running"));
    let acme = token.client(&host);
    let job = json!({ "task": "villain/pair", "payload": sleep("acme") });
    let id = acme.post("/v1/jobs", &job).ok()["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/jobs/{id}");
    let why = eventually("it waits for a place", || {
        let why = host.client().get(&path).ok()["wait"].clone();
        why["holders"].as_array().is_some_and(|holders| !holders.is_empty()).then_some(why)
    });
    let shown = acme.get(&path).ok();
    assert_eq!(shown["wait"]["reason"], why["reason"], "{shown}");
    for id in &others {
        assert!(why.to_string().contains(id), "{why}");
        assert!(!shown.to_string().contains(id), "{shown}");
    }
}

/// Replaces the settings file by rename, and waits until the host says this of it.
#[track_caller]
fn replace_settings(host: &Host, text: &str, says: &str) {
    let before = host.said().matches(says).count();
    let temporary = host.dir().join("wharf.toml.new");
    std::fs::write(&temporary, text).expect("written");
    std::fs::rename(&temporary, host.dir().join("wharf.toml")).expect("renamed");
    eventually(&format!("the host says {says}"), || (host.said().matches(says).count() > before).then_some(()));
}

fn settings(host: &Host) -> String {
    std::fs::read_to_string(host.dir().join("wharf.toml")).expect("it is there")
}

/// Follows a job in the background. The first message says that the stream has begun, the second that it has ended.
fn follow(client: Client, job: &str) -> mpsc::Receiver<&'static str> {
    let (tell, told) = mpsc::channel();
    let job = job.to_owned();
    std::thread::spawn(move || {
        let mut events = client.events(&job, None);
        events.next().expect("a state");
        let _ = tell.send("begun");
        events.for_each(drop);
        let _ = tell.send("ended");
    });
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok("begun"));
    told
}

#[test]
fn a_token_is_rotated_under_load_without_a_failed_request() {
    let [old, new] = [Token::new(), Token::new()];
    let host = host(&[old.table("ci", &["read"], None)]);
    let long = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 500_000 }));
    let first = settings(&host);
    let with = |hashes: &Value| first.replace(&json!(old.hash).to_string(), &hashes.to_string());
    let (is_new, stop, sent_new) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let failed: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (old, new) = (old.client(&host), new.client(&host));
                    let (mut failed, mut counted) = (0, 0);
                    while !stop.load(Ordering::Relaxed) {
                        let now = is_new.load(Ordering::SeqCst);
                        let reply = if now { &new } else { &old }.try_get("/v1/jobs?limit=1");
                        failed += usize::from(reply.is_err() || reply.is_ok_and(|reply| reply.status != 200));
                        if now && counted < 5 {
                            counted += 1;
                            sent_new.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    failed
                })
            })
            .collect();
        replace_settings(&host, &with(&json!([old.hash, new.hash])), "tokens changed `ci`");
        let streams = [&old, &new].map(|token| follow(token.client(&host), &long));
        is_new.store(true, Ordering::SeqCst);
        // Each of the clients has sent five requests with the new token, and none with the old one since.
        eventually("all use the new one", || (sent_new.load(Ordering::SeqCst) == 4 * 5).then_some(()));
        replace_settings(&host, &with(&json!(new.hash)), "tokens changed `ci`");
        assert_eq!(streams[0].recv_timeout(Duration::from_secs(60)), Ok("ended"), "what the old one had opened ends");
        is_problem(&old.client(&host).get("/v1/jobs"), 401, "unauthorized");
        assert_eq!(streams[1].try_recv(), Err(mpsc::TryRecvError::Empty), "the new one's stream goes on");
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("no panic")).sum()
    });
    assert_eq!(failed, 0);
    assert_eq!(host.metric("wharf_wrong_tokens_total"), Some(1.0));
}

#[test]
fn a_host_that_got_its_first_token_is_not_opened_again_by_a_file_without_one() {
    let token = Token::new();
    let host = Setup::default().start();
    let open = settings(&host);
    assert_eq!(host.client().get("/v1/jobs").status, 200);
    replace_settings(&host, &(open.clone() + &token.table("ci", &["read"], None)), "tokens added `ci`");
    is_problem(&host.client().get("/v1/jobs"), 401, "unauthorized");
    replace_settings(&host, &open, "no token is left");
    is_problem(&host.client().get("/v1/jobs"), 401, "unauthorized");
    assert_eq!(token.client(&host).get("/v1/jobs").status, 200);
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_says_where() {
    let [token, other] = [Token::new(), Token::new()];
    let host = Setup::default().settings(&token.table("ci", &["read"], None));
    let host = host.token(ADMIN).start();
    let good = settings(&host);
    let line = good.lines().position(|line| line.starts_with("can = ")).expect("a line") + 1;
    let refusal = "refused wharf.toml, and everything stays as it was: ";
    let of_scope = format!("{refusal}wharf.toml:{line}:8: `can`: unknown scope `reed`");
    // One token more, and one mistake: all of the file or none.
    let wrong = good.replace("[\"read\"]", "[\"reed\"]") + &other.table("other", &["read"], None);
    replace_settings(&host, &wrong, &of_scope);
    replace_settings(&host, "listen = \"127.0.0.1:0\"\n", &format!("{refusal}no token is left"));
    replace_settings(&host, &good[..good.len() - 5], &format!("{refusal}wharf.toml:"));
    assert_eq!(token.client(&host).get("/v1/jobs").status, 200);
    assert_eq!(other.client(&host).get("/v1/jobs").status, 401);
    assert_eq!(host.metric("wharf_settings_reloads_total{result=\"refused\"}"), Some(3.0));
    assert_eq!(host.metric("wharf_settings_reloads_total{result=\"applied\"}"), None);

    let more =
        good.clone() + &other.table("other", &["read"], None) + "[attempts]\nat-once = 7\n[plugins.words]\nkv = true\n";
    replace_settings(&host, &more, "read wharf.toml again: tokens added `other`");
    eventually("the rest is said to wait", || {
        let text = "changed settings take effect when the host is started again: `attempts.at-once`";
        host.said().contains(text).then_some(())
    });
    assert_eq!(other.client(&host).get("/v1/jobs").status, 200);
    replace_settings(&host, &good, "read wharf.toml again: tokens removed `other`");
    assert_eq!(other.client(&host).get("/v1/jobs").status, 401);
    assert!(host.metric("wharf_settings_reloads_total{result=\"applied\"}") >= Some(2.0));
}

#[test]
fn a_token_of_a_file_follows_the_links_to_it() {
    let secrets = tempfile::tempdir().expect("a folder");
    let dir = secrets.path();
    for (version, token) in [("v1", "the-first-token-of-ci"), ("v2", "the-second-token-of-ci")] {
        std::fs::create_dir(dir.join(version)).expect("made");
        std::fs::write(dir.join(version).join("ci"), format!("{token}\n")).expect("written");
    }
    // As a container platform mounts secrets: the file is a link through a folder that is a link.
    link("v1", &dir.join("..data"));
    link("..data/ci", &dir.join("ci"));
    let file = dir.join("ci");
    let table = format!("[[tokens]]\nname = \"ci\"\nfrom = \"file:{}\"\ncan = [\"read\"]\n", file.display());
    let host = Setup::default().token(ADMIN).settings(&table).start();
    let status = |token: &str| host.client().clone().with_token(Some(token)).get("/v1/jobs").status;
    assert_eq!((status("the-first-token-of-ci"), status("the-second-token-of-ci")), (200, 401));
    link("v2", &dir.join("..data"));
    eventually("the second one holds", || (status("the-second-token-of-ci") == 200).then_some(()));
    assert_eq!(status("the-first-token-of-ci"), 401);
    assert!(!host.says("tokens changed `ci`").contains("-token-of-ci"), "{}", host.said());
}

/// The list ends at a job of anybody: its ID, its moment and the number of jobs that were looked at are not for a tenant.
#[test]
fn a_token_with_a_key_goes_through_its_list_and_learns_nothing_of_other_jobs() {
    let token = Token::new();
    let host = host(&[token.table("tenant", &["read"], Some("a"))]);
    let enqueue =
        |key: &str| host.enqueue_with(json!({ "task": "villain/do", "key": key, "payload": { "do": "echo" } }));
    let mut own = Vec::new();
    for _ in 0..3 {
        enqueue("b");
        own.push(enqueue("a"));
        enqueue("b");
    }
    own.iter().for_each(|id| _ = host.finished(id));
    let client = token.client(&host);
    for order in ["newest", "finished"] {
        let (mut listed, mut path) = (Vec::new(), format!("/v1/jobs?order={order}&limit=1"));
        loop {
            let page = client.get(&path).ok();
            assert!(page["looked_at"].is_null() && page["until"].is_null(), "{page}");
            let jobs = page["jobs"].as_array().expect("a page").iter();
            listed.extend(jobs.map(|job| job["id"].as_str().expect("an ID").to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            let place = next.rsplit_once("before=").expect("a place").1;
            assert!(place.len() == 64 && !place.contains('.') && own.iter().all(|id| !place.contains(id)), "{next}");
            path = format!("/v1/jobs{next}");
        }
        listed.sort();
        let mut expected = own.clone();
        expected.sort();
        assert_eq!(listed, expected, "{order}");
    }
    let first = client.get("/v1/jobs?limit=1").ok();
    let place = first["next"].as_str().and_then(|next| next.rsplit_once("before=")).expect("a place").1.to_owned();
    let other_digit = if place.ends_with('0') { '1' } else { '0' };
    let altered = client.get(&format!("/v1/jobs?before={}{other_digit}", &place[..63]));
    assert_eq!(altered.status, 400, "{altered:?}");
    // Nobody else reads a place that was sealed, and an operator is told all.
    let operator = host.client().get(&format!("/v1/jobs?before={place}"));
    assert_eq!(operator.status, 400, "{operator:?}");
    let page = host.client().get("/v1/jobs?limit=1").ok();
    assert!(page["looked_at"].is_u64() && page["until"].is_string(), "{page}");
}
