//! Live broadcasts: one call, exactly one reply from each subscriber, whatever they do.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Host, Setup, component, eventually};

/// A broadcast that must be answered.
#[track_caller]
fn broadcast(host: &Host, topic: &str, body: Value) -> Value {
    host.client().post(&format!("/v1/broadcasts/{topic}"), &body).ok()
}

/// The reply of each plugin.
fn replies(answer: &Value) -> BTreeMap<&str, &Value> {
    let all = answer["replies"].as_array().expect("a list");
    all.iter().map(|reply| (reply["plugin"].as_str().expect("an id"), reply)).collect()
}

fn outcome<'a>(answer: &'a Value, plugin: &str) -> &'a str {
    replies(answer)[plugin]["outcome"].as_str().expect("an outcome")
}

/// A villain that does what `order` says when it is told to do as its environment says.
fn section(id: &str, order: &Value) -> String {
    format!("[plugins.{id}]\nenv = {{ ORDER = '{order}' }}\n")
}

fn as_environment() -> Value {
    json!({ "payload": { "do": "from-env" }, "timeout": "30s" })
}

fn metric(host: &Host, line: &str) -> Option<f64> {
    let page = String::from_utf8(host.client().get("/metrics").body).expect("text");
    page.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
}

#[test]
fn the_examples_answer_what_a_saved_document_is() {
    let host = Setup::default().plugin("word-index").plugin("link-check").plugin("summary").plugin("words").start();
    let text = "# To be\n\nOr not to be. That is it: [why](#whether), [how](../../up.md).\n\n```\n[no](#link)\n```\n";
    let answer = broadcast(&host, "document.saved", json!({ "payload": { "path": "a/b.md", "text": text } }));
    assert_eq!(answer["topic"], "document.saved");
    assert_eq!(answer["outcomes"], json!({ "replied": 3 }), "{answer}");
    let order: Vec<&str> =
        answer["replies"].as_array().expect("a list").iter().filter_map(|r| r["plugin"].as_str()).collect();
    assert_eq!(order, ["link-check", "summary", "word-index"], "by plugin, and nobody who does not subscribe");
    let replies = replies(&answer);
    assert_eq!(
        replies["link-check"]["reply"],
        json!({ "links": 2, "problems": [
            { "line": 3, "target": "#whether", "why": "no heading here is #whether" },
            { "line": 3, "target": "../../up.md", "why": "it leads above the root of the documents" },
        ]})
    );
    assert_eq!(
        replies["summary"]["reply"],
        json!({ "title": "To be", "headings": ["To be"], "words": 11, "minutes": 1, "opening": "Or not to be." })
    );
    assert_eq!(replies["word-index"]["reply"]["lines"]["be"], json!([1, 3]));
}

/// Every kind of end at once, a thousand times: none touches another.
#[test]
fn a_thousand_subscribers_of_every_kind_are_each_answered_for() {
    // What each does, and what the caller hears of it.
    let kinds: [(Value, &str, &str); 10] = [
        (json!({ "do": "echo", "payload": 7 }), "replied", ""),
        (json!({ "do": "sleep", "ms": 50 }), "replied", ""),
        (json!({ "do": "fail-retry", "text": "later" }), "failed", "later"),
        (json!({ "do": "fail-retry-after", "ms": 900, "text": "busy" }), "failed", "busy"),
        (json!({ "do": "fail-discard", "text": "never" }), "failed", "never"),
        (json!({ "do": "trap" }), "trapped", "unreachable"),
        (json!({ "do": "hoard" }), "trapped", "out of memory"),
        (json!({ "do": "loop-ignoring-cancel" }), "timed-out", "300"),
        (json!({ "do": "stall", "ms": 60_000 }), "timed-out", "300"),
        (json!({ "do": "flood-stderr", "lines": 20_000 }), "replied", ""),
    ];
    let mut setup = Setup::default();
    let mut settings = "[broadcasts]\ncalls = 256\n".to_owned();
    for n in 0..1000 {
        let (order, expected, _) = &kinds[n % kinds.len()];
        // Loops share two cores: each gets a little of its own time before the wall clock ends it.
        let receive =
            if *expected == "timed-out" { "timeout = \"300ms\"\n" } else { "timeout = \"60s\"\ncpu = \"20s\"\n" };
        settings += &section(&format!("v{n:03}"), order);
        settings += &format!("[plugins.v{n:03}.receive]\nmemory = \"8MiB\"\n{receive}");
        setup = setup.plugin_as("villain", &format!("v{n:03}"));
    }
    let host = setup.settings(&settings).start();
    let answer = broadcast(&host, "villain.all", json!({ "payload": { "do": "from-env" }, "timeout": "120s" }));
    let replies = replies(&answer);
    assert_eq!((replies.len(), answer["replies"].as_array().map(Vec::len)), (1000, Some(1000)), "one for each");
    for (n, (plugin, reply)) in replies.iter().enumerate() {
        let (order, expected, said) = &kinds[n % kinds.len()];
        assert_eq!(reply["outcome"], *expected, "{plugin} should do {order}: {reply}");
        let report = reply["report"].as_str().unwrap_or_default();
        assert!(report.contains(said), "{plugin}: {reply}");
        if order["do"] == "echo" {
            assert_eq!(reply["reply"], 7);
        }
    }
    assert_eq!(answer["outcomes"], json!({ "replied": 300, "failed": 300, "trapped": 200, "timed-out": 200 }));
    // And the host is as it was.
    let again = broadcast(&host, "villain.all", json!({ "payload": { "do": "echo", "payload": "still here" } }));
    assert_eq!(again["outcomes"], json!({ "replied": 1000 }));
}

#[test]
fn one_deadline_holds_for_all_also_in_a_tight_loop() {
    let host = Setup::default()
        .plugin_as("villain", "looping")
        .plugin_as("villain", "quick")
        .settings(&section("looping", &json!({ "do": "loop-ignoring-cancel" })))
        .settings(&section("quick", &json!({ "do": "echo" })))
        .start();
    let answer = broadcast(&host, "villain.x", json!({ "payload": { "do": "from-env" }, "timeout": "200ms" }));
    assert_eq!((outcome(&answer, "looping"), outcome(&answer, "quick")), ("timed-out", "replied"), "{answer}");
    let took = answer["elapsed_ms"].as_f64().expect("a number");
    assert!((200.0..2000.0).contains(&took), "the villain's own limit is two seconds of processor: {took} ms");
}

#[test]
fn when_enough_have_replied_the_rest_is_stopped() {
    let mut setup = Setup::default();
    for id in ["slow-1", "slow-2"] {
        setup = setup.plugin_as("villain", id).settings(&section(id, &json!({ "do": "loop-ignoring-cancel" })));
    }
    for id in ["quick-1", "quick-2", "quick-3"] {
        setup = setup.plugin_as("villain", id).settings(&section(id, &json!({ "do": "echo", "payload": id })));
    }
    let host = setup.start();
    let quorum =
        broadcast(&host, "villain.x", json!({ "payload": { "do": "from-env" }, "timeout": "60s", "mode": "quorum" }));
    assert_eq!(quorum["outcomes"], json!({ "replied": 3, "skipped": 2 }), "{quorum}");
    assert!(replies(&quorum)["slow-1"]["report"].to_string().contains("enough others had replied"));
    let first =
        broadcast(&host, "villain.x", json!({ "payload": { "do": "from-env" }, "timeout": "60s", "mode": "first=1" }));
    assert_eq!(first["replies"].as_array().map(Vec::len), Some(5), "{first}");
    assert!(first["outcomes"]["replied"].as_u64() >= Some(1), "{first}");
    eventually("both were counted as over since enough had replied", || {
        (metric(&host, "wharf_broadcasts_total{topic=\"villain.x\",ending=\"enough\"}")? == 2.0).then_some(())
    });
}

#[test]
fn a_caller_that_goes_away_ends_the_broadcast() {
    let host = Setup::default()
        .plugin("villain")
        .settings("[broadcasts]\nat-once = 1\n[plugins.villain.receive]\ntimeout = \"10m\"\ncpu = \"10m\"\n")
        .start();
    let address = host.client().address().trim_start_matches("http://").to_owned();
    for (n, accept) in ["application/json", "text/event-stream"].into_iter().enumerate() {
        let body = json!({ "payload": { "do": "loop-ignoring-cancel" }, "timeout": "10m" }).to_string();
        let request = format!(
            "POST /v1/broadcasts/villain.x HTTP/1.1\r\nhost: {address}\r\naccept: {accept}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // There is room for one: as long as it is open, another is refused. The question itself may have taken the place from it.
        let (stream, refused) = eventually("the place is taken", || {
            let mut stream = std::net::TcpStream::connect(&address).expect("the host listens");
            std::io::Write::write_all(&mut stream, request.as_bytes()).expect("sent");
            std::thread::sleep(std::time::Duration::from_millis(500));
            let reply = host.client().post("/v1/broadcasts/nobody.listens", &json!({}));
            (reply.status == 429).then(|| (stream, reply.json()))
        });
        assert_eq!(refused["code"], "too-many-broadcasts");
        drop(stream);
        eventually("the place is free again", || {
            (host.client().post("/v1/broadcasts/nobody.listens", &json!({})).status == 200).then_some(())
        });
        let gone = metric(&host, "wharf_broadcasts_total{topic=\"villain.x\",ending=\"caller-gone\"}");
        assert!(gone >= Some((n + 1) as f64), "{accept}: {gone:?}");
    }
    assert!(metric(&host, "wharf_broadcasts_refused_total") >= Some(2.0));
    // The sandboxes are gone with it: the processor is not eaten by a loop that nobody waits for.
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.pid())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks")
    };
    eventually("the loops are stopped", || {
        let before = spent();
        std::thread::sleep(Duration::from_millis(500));
        // A loop would take 50 ticks of 10 ms.
        (spent() - before < 25).then_some(())
    });
}

#[test]
fn replies_stream_as_they_come() {
    let host = Setup::default()
        .plugin_as("villain", "late")
        .plugin_as("villain", "soon")
        .settings(&section("late", &json!({ "do": "sleep", "ms": 3000 })))
        .settings(&section("soon", &json!({ "do": "echo", "payload": [1, 2] })))
        .start();
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let response = agent
        .post(format!("{}/v1/broadcasts/villain.x", host.client().address()))
        .header("accept", "text/event-stream")
        .send_json(as_environment())
        .expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body().into_reader();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    let mut late_too = None;
    loop {
        let count = body.read(&mut buffer).expect("the stream is read");
        if count == 0 {
            break;
        }
        text.push_str(std::str::from_utf8(&buffer[..count]).expect("text"));
        if late_too.is_none() && text.contains("event: reply") {
            late_too = Some(text.contains("\"plugin\":\"late\",\"outcome\""));
        }
    }
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["subscribers", "reply", "reply", "end"], "{text}");
    let data: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|d| serde_json::from_str(d).expect("JSON"))
        .collect();
    assert_eq!(data[0]["subscribers"], json!(["late", "soon"]));
    assert_eq!(
        (&data[1]["plugin"], &data[1]["reply"], &data[2]["plugin"]),
        (&json!("soon"), &json!([1, 2]), &json!("late"))
    );
    assert_eq!(data[3]["outcomes"], json!({ "replied": 2 }));
    assert_eq!(late_too, Some(false), "the first one was there before the second");
}

#[test]
fn a_plugin_that_broadcasts_gets_replies_and_cannot_go_round_in_circles() {
    let host = Setup::default()
        .plugin_as("villain", "asker")
        .plugin_as("villain", "other")
        .settings("[plugins.asker]\ntopics = [\"ring.>\"]\n[plugins.other]\ntopics = [\"ring.>\"]\n")
        .start();
    // A job asks; its own plugin subscribes, too, and is left out.
    let ask = json!({ "do": "broadcast", "topic": "ring.one", "payload": { "do": "echo", "payload": "hello" } });
    let job = host.run("asker/do", ask.clone());
    assert_eq!(job["state"], "succeeded", "{job}");
    let heard = host.result(job["id"].as_str().expect("an id"));
    let kinds: Vec<(&str, &str)> = heard
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| (r["plugin"].as_str().unwrap(), r["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(kinds, [("asker", "skipped"), ("other", "replied")], "{heard}");
    assert!(heard[0]["text"].to_string().contains("reentrant"), "{heard}");
    // The wait is not the guest's own time.
    let slow = json!({ "do": "broadcast", "topic": "ring.one", "payload": { "do": "sleep", "ms": 600 } });
    let job = host.run("asker/do", slow);
    assert!(job["usage"]["cpu_ms"].as_f64() < Some(300.0) && job["usage"]["wall_ms"].as_f64() > Some(600.0), "{job}");
    // Its own time is what its subscribers have at most.
    let hurried = json!({ "do": "broadcast", "topic": "ring.one", "payload": { "do": "sleep", "ms": 60_000 } });
    let job = host.run("asker/hurried", hurried);
    assert_eq!(job["report"]["outcome"], "timed-out", "half a second is all that it has: {job}");
    // A topic that is none is the guest's to know.
    let job = host.run("asker/do", json!({ "do": "broadcast", "topic": "ring.*" }));
    assert!(job["report"]["text"].to_string().contains("are for subscriptions"), "{job}");
}

#[test]
fn broadcasts_within_broadcasts_end_at_the_depth_bound() {
    let mut setup = Setup::default();
    for n in 1..=6 {
        let next = json!({ "do": "broadcast", "topic": format!("step.{}", n + 1), "payload": { "do": "from-env" } });
        setup = setup
            .plugin_as("villain", &format!("v{n}"))
            .settings(&format!("[plugins.v{n}]\ntopics = [\"step.{n}\"]\nenv = {{ ORDER = '{next}' }}\n"));
    }
    let host = setup.start();
    let answer = broadcast(&host, "step.1", as_environment());
    // Each reply holds the replies of the next.
    let mut depth = 1;
    let mut reply = replies(&answer)["v1"]["reply"].clone();
    while let Some(inner) = reply[0].get("reply").filter(|inner| inner.is_array()).cloned() {
        depth += 1;
        reply = inner;
    }
    assert_eq!(depth, 3, "v1, v2 and v3 were answered with replies: {answer}");
    assert_eq!((&reply[0]["plugin"], &reply[0]["kind"]), (&json!("v4"), &json!("failed-discard")), "{answer}");
    assert!(
        reply[0]["text"].to_string().contains("the limit is 4"),
        "v4 is the fourth, and hears why it may not: {answer}"
    );
}

#[test]
fn a_reentrant_plugin_is_called_again_until_the_depth_bound() {
    let order = json!({ "do": "broadcast", "topic": "villain.again", "payload": { "do": "from-env" } });
    let host = Setup::default()
        .plugin("villain")
        .settings(&section("villain", &order))
        .settings("[plugins.villain.receive]\nreentrant = true\n")
        .start();
    let answer = broadcast(&host, "villain.again", as_environment());
    assert_eq!(answer.to_string().matches("\"plugin\":\"villain\"").count(), 4, "four calls in all: {answer}");
}

#[test]
fn jobs_and_broadcasts_do_not_starve_each_other() {
    let host = Setup::default()
        .plugin_as("villain", "one")
        .plugin_as("villain", "two")
        .plugin("words")
        .settings("[attempts]\nat-once = 8\n[broadcasts]\ncalls = 8\nat-once = 64\n")
        .start();
    // Eight sandboxes are full of jobs for a long time, and many more wait.
    let jobs: Vec<Value> =
        (0..200).map(|_| json!({ "task": "one/slow", "payload": { "do": "sleep", "ms": 200 } })).collect();
    host.client().post("/v1/jobs", &json!(jobs)).ok();
    let running = || metric(&host, "wharf_attempts_running").unwrap_or_default();
    eventually("all sandboxes of jobs are taken", || (running() >= 8.0).then_some(()));
    let done = || metric(&host, "wharf_jobs_ended_total{task=\"one/slow\",state=\"succeeded\"}").unwrap_or_default();
    let before = done();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| {
                    broadcast(&host, "villain.x", json!({ "payload": { "do": "sleep", "ms": 100 }, "timeout": "60s" }))
                })
            })
            .collect();
        for one in all {
            let answer = one.join().expect("no panic");
            assert_eq!(answer["outcomes"], json!({ "replied": 2 }), "{answer}");
        }
    });
    assert!(done() > before, "jobs went on meanwhile");
    assert!(done() < 200.0, "the queue was not empty before the broadcasts were through");
}

#[test]
fn a_subscriber_that_enqueues_has_its_jobs_added_before_its_reply() {
    let host = Setup::default().plugin("villain").start();
    let child = json!({ "task": "villain/do", "payload": { "do": "echo", "payload": "child" } });
    let then = |then: &str| json!({ "payload": { "do": "enqueue", "children": [child.clone()], "then": then } });
    let answer = broadcast(&host, "villain.x", then("return"));
    assert_eq!(outcome(&answer, "villain"), "replied", "{answer}");
    let jobs = host.client().get("/v1/jobs").ok()["jobs"].as_array().expect("a list").clone();
    assert_eq!(jobs.len(), 1);
    host.finished(jobs[0]["id"].as_str().expect("an id"));
    let answer = broadcast(&host, "villain.x", then("trap"));
    assert_eq!(outcome(&answer, "villain"), "trapped", "{answer}");
    assert_eq!(host.client().get("/v1/jobs").ok()["jobs"].as_array().map(Vec::len), Some(1), "all or none");
}

#[test]
fn a_broadcast_keeps_the_plugins_that_it_began_with() {
    let host = Setup::default().plugin_as("villain", "a").plugin_as("villain", "b").start();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            broadcast(&host, "villain.x", json!({ "payload": { "do": "sleep", "ms": 3000 }, "timeout": "60s" }))
        });
        eventually("it has begun", || {
            let page = String::from_utf8(host.client().get("/metrics").body).expect("text");
            page.contains("wharf_broadcasts_open 1").then_some(())
        });
        std::fs::remove_file(host.plugin_file("b")).expect("it is there");
        host.put_plugin("a", &component("words"));
        eventually("the folder was looked at", || {
            let plugins = host.client().get("/v1/plugins").ok();
            (plugins.as_array().map(Vec::len) == Some(1) && plugins[0]["loaded"]["name"] == "words").then_some(())
        });
        let answer = waiting.join().expect("no panic");
        assert_eq!(answer["outcomes"], json!({ "replied": 2 }), "{answer}");
    });
    let answer = broadcast(&host, "villain.x", json!({ "payload": { "do": "echo" } }));
    assert_eq!(answer["replies"], json!([]), "nobody subscribes any more");
}

#[test]
fn what_cannot_be_sent_is_said_to_be_wrong() {
    let host = Setup::default().plugin("villain").start();
    let told = |topic: &str, body: Value, status: u16, code: &str, text: &str| {
        let reply = host.client().post(&format!("/v1/broadcasts/{topic}"), &body);
        let problem = reply.json();
        assert_eq!((reply.status, problem["code"].as_str()), (status, Some(code)), "{problem}");
        assert!(problem["detail"].to_string().contains(text), "{problem}");
    };
    told("villain.*", json!({}), 422, "broadcast-invalid", "are for subscriptions");
    told("a..b", json!({}), 422, "broadcast-invalid", "invalid topic `a..b`");
    told("a.b", json!({ "mode": "most" }), 400, "bad-request", "first=N");
    told("a.b", json!({ "mode": "first=0" }), 422, "broadcast-invalid", "1 or more");
    told("a.b", json!({ "timeout": "soon" }), 400, "bad-request", "timeout");
    told("a.b", json!({ "timeout": "2h" }), 422, "broadcast-invalid", "the limit is");
    told("a.b", json!({ "text": "hello" }), 400, "bad-request", "goes into `payload`");
    told("a.b", json!({ "durable": true, "mode": "quorum" }), 400, "bad-request", "live broadcast");
    let raw = host.client().post_bytes(
        "/v1/broadcasts/villain.x?timeout=9s",
        "application/octet-stream",
        b"{\"do\":\"echo\",\"payload\":1}",
    );
    assert_eq!(raw.ok()["replies"][0]["reply"], 1);
    let unknown = host.client().get("/v1/broadcasts/0000000000001");
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (404, Some("broadcast-unknown")));
}

#[test]
fn the_command_shows_a_table_that_fills() {
    let host = Setup::default().plugin("word-index").plugin("summary").plugin("villain").start();
    let run = |args: &[&str]| host.cli(args).output().expect("it runs");
    let output = run(&["broadcast", "document.saved", "--input", r##"{"text": "# Hi\n\nThere."}"##]);
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("PLUGIN      OUTCOME    AFTER"), "{text}");
    assert!(text.contains("summary     replied") && text.contains("word-index  replied"), "{text}");
    assert_eq!((lines.len(), output.status.code()), (3, Some(0)), "{text}");
    let output = run(&["broadcast", "villain.x", "--input", r#"{"do": "trap"}"#, "--timeout", "3s"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("villain  trapped"), "{output:?}");
    assert_eq!(output.status.code(), Some(1), "not everybody replied");
    let output = run(&["broadcast", "villain.x", "--input", r#"{"do": "echo", "payload": 5}"#, "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["replies"][0]["reply"], 5);
    let output = run(&["broadcast", "nobody.here"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no plugin subscribes to nobody.here"), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
    let output = run(&["broadcast", "bad..topic"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}
