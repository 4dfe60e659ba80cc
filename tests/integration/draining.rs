//! Draining a host without stopping it: it begins nothing more, says so, and goes on when it is resumed.

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, shared_address};

fn node(host: &Host, args: &[&str]) -> Value {
    let output = host.cli(&[&["node"], args, &["--json"]].concat()).output().expect("the CLI runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn reasons(host: &Host) -> (u16, String) {
    let reply = host.client().get("/ready");
    (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
}

fn waits_draining(host: &Host, job: &str) {
    eventually("the job waits for a host that is not drained", || {
        (host.job(job)["wait"]["reason"] == "draining").then_some(())
    });
}

#[test]
fn a_drained_host_begins_nothing_and_remembers_it_until_it_is_resumed_or_starts_again() {
    let mut host = Setup::default()
        .plugin("villain")
        .plugin("words")
        .settings("[schedules.often]\ntask = \"words/count\"\nevery = \"1s\"\npayload = { text = \"a\" }\n")
        .start();
    let running = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 600_000 }));
    host.in_state(&running, "running");
    eventually("the schedule fires", || {
        let schedule = host.client().get("/v1/schedules/often").ok();
        schedule["recent"].as_array().is_some_and(|recent| !recent.is_empty()).then_some(())
    });

    let drained = node(&host, &["drain"]);
    assert_eq!((&drained["draining"], &drained["running"]), (&json!(true), &json!(1)), "{drained}");
    let (status, text) = reasons(&host);
    assert!(status == 503 && text.contains("draining: an operator drains the host"), "{text}");
    assert_eq!(host.job(&running)["state"], "running", "what runs goes on");
    let waiting = host.enqueue("words/count", json!({ "text": "a b" }));
    waits_draining(&host, &waiting);
    let refused = host.client().post("/v1/broadcasts/greet", &json!({}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("draining")));
    eventually("the list says so", || {
        String::from_utf8_lossy(&host.cli(&["node", "list"]).output().expect("it runs").stdout)
            .contains("draining")
            .then_some(())
    });
    // Schedules do not fire: two of their ticks pass without a job.
    let fired = || {
        let schedule = host.client().get("/v1/schedules/often").ok();
        (schedule["next"].clone(), schedule["recent"].clone())
    };
    let (before, _) = fired();
    let start = std::time::Instant::now();
    eventually("ticks have passed", || (start.elapsed().as_secs() >= 3).then_some(()));
    assert_eq!(fired().0[0], before[0], "the tick waits");

    // Again changes nothing, and leaves no act.
    node(&host, &["drain"]);
    let acts = host.client().get("/v1/audit?act=node-drained").ok();
    assert_eq!(acts["acts"].as_array().map(Vec::len), Some(1), "{acts}");
    host.says("draining: this host claims no jobs");

    let resumed = node(&host, &["resume", "self"]);
    assert_eq!(resumed["draining"], false, "{resumed}");
    assert_eq!(host.finished(&waiting)["state"], "succeeded");
    assert_eq!(reasons(&host).0, 200);
    eventually("the schedule fires again", || (fired().0[0] != before[0]).then_some(()));
    let acts = host.client().get("/v1/audit?act=node-resumed").ok();
    assert_eq!(acts["acts"].as_array().map(Vec::len), Some(1), "{acts}");

    node(&host, &["drain"]);
    host.kill();
    host.start();
    eventually("a start does not remember it", || host.is_ready().then_some(()));
    assert_eq!(host.run("words/count", json!({ "text": "a" }))["state"], "succeeded");
}

#[test]
fn one_host_drains_another_by_its_name_and_its_id() {
    let address = shared_address();
    let asked = Setup::default().plugin("words").database(&address).start();
    let mut owner = Setup::default().plugin("villain").database(&address).start();
    let nodes = eventually("each knows both", || {
        let nodes = asked.client().get("/v1/nodes").ok();
        (nodes.as_array().map(Vec::len) == Some(2)).then_some(nodes)
    });
    let other = nodes.as_array().expect("a list").iter().find(|node| node["here"] == false).expect("the other");
    let (id, name) = (other["id"].as_str().expect("text"), other["name"].as_str().expect("text"));

    let drained = node(&asked, &["drain", name]);
    assert_eq!((drained["id"].as_str(), &drained["draining"]), (Some(id), &json!(true)), "{drained}");
    assert_eq!((reasons(&owner).0, reasons(&asked).0), (503, 200));
    // Who was asked may not know the tasks of the other yet.
    let job = owner.enqueue("villain/slow", json!({ "do": "sleep", "ms": 1 }));
    waits_draining(&asked, &job);
    waits_draining(&owner, &job);
    // The host that was asked still runs what it has.
    assert_eq!(asked.run("words/count", json!({ "text": "a" }))["state"], "succeeded");

    assert_eq!(node(&asked, &["resume", id])["draining"], false);
    assert_eq!(asked.finished(&job)["state"], "succeeded");
    let unknown = asked.client().post("/v1/nodes/nobody/drain", &json!({}));
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (404, Some("node-unknown")));
    let acts = owner.client().get("/v1/audit?act=node-drained").ok();
    assert_eq!(acts["acts"][0]["target"].as_str(), Some(name), "{acts}");
    eventually("the host that was asked for tells it once it does it", || {
        owner.said().contains("resumed: this host claims jobs again").then_some(())
    });
    assert_eq!(owner.said().matches("resumed: this host claims jobs again").count(), 1, "{}", owner.said());

    // One that stops says so, and is not resumed.
    let long = owner.enqueue("villain/slow", json!({ "do": "sleep", "ms": 600_000 }));
    owner.in_state(&long, "running");
    owner.signal("-TERM");
    eventually("its stop is known", || {
        let nodes = asked.client().get("/v1/nodes").ok();
        let nodes = nodes.as_array()?;
        nodes.iter().any(|node| node["id"] == *id && node["draining"] == true).then_some(())
    });
    let refused = asked.client().post(&format!("/v1/nodes/{id}/resume"), &json!({}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("draining")), "{refused:?}");
    assert_eq!(owner.said().matches("resumed: this host claims jobs again").count(), 1, "{}", owner.said());
    assert_eq!(owner.ended(), Some(0));
}
