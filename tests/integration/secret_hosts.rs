//! Secrets where hosts differ, and while jobs wait, run, are held and are killed: each attempt has one value, that of its host when it began.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, shared_address};
use crate::secret_headers::{BEARER, RUST, World, value};

const GUEST: &str = "villain-http";
const OTHER: &str = "other_value_of_the_second_host";

fn drain(host: &Host, act: &str) {
    let output = host.cli(&["node", act, "self"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The digests of the settings of both hosts.
fn digests(host: &Host) -> Vec<Value> {
    eventually("both hosts are known", || {
        let nodes = host.client().get("/v1/nodes").ok();
        let digests: Vec<Value> = nodes.as_array()?.iter().map(|node| node["settings"].clone()).collect();
        (digests.len() == 2).then_some(digests)
    })
}

#[test]
fn each_host_sends_the_value_that_it_has() {
    let (world, address) = (World::new(), shared_address());
    fs::write(world.folder.path().join("key-2"), OTHER).expect("written");
    let settings = world.settings(GUEST);
    let start = |settings: &str| Setup::default().plugin(GUEST).settings(settings).database(&address).start();
    let (one, other) = (start(&settings), start(&settings.replace("/key\"", "/key-2\"")));
    for (drained, value) in [(&one, OTHER), (&other, &value())] {
        drain(drained, "drain");
        let job = RUST.send(&one, &world.url("/"), BEARER, "");
        assert_eq!(job["state"], "succeeded", "{job}");
        let result = one.result(job["id"].as_str().expect("an id")).to_string();
        assert!(result.contains("***") && !result.contains(value), "{result}");
        assert_eq!(world.echo.last_authorization(), format!("Bearer {value}"));
        drain(drained, "resume");
    }
}

#[test]
fn on_a_host_that_does_not_give_a_plugin_its_secret_the_plugin_has_no_placeholder() {
    let (world, address) = (World::new(), shared_address());
    let settings = world.settings(GUEST);
    let start = |settings: &str| Setup::default().plugin(GUEST).settings(settings).database(&address).start();
    let with = start(&settings);
    let mut without = start(&settings);
    let same = digests(&with);
    assert_eq!(same[0], same[1]);
    // A host that is to have it and cannot read it would not start at all.
    without.terminate();
    let file = without.dir().join("wharf.toml");
    let text = fs::read_to_string(&file).expect("it is there");
    fs::write(&file, text.replace("secrets = [\"stripe\"]\n", "")).expect("written");
    without.start();
    eventually("the list of hosts tells", || {
        let digests = digests(&with);
        (digests[0] != digests[1]).then_some(())
    });
    drain(&with, "drain");
    let job = RUST.send(&with, &world.url("/"), BEARER, "");
    assert_eq!(job["state"], "succeeded", "{job}");
    // The plugin has no such variable to put in.
    assert_eq!(world.echo.last_authorization(), BEARER);
}

#[test]
fn an_attempt_keeps_its_value_and_one_that_begins_later_has_that_of_its_own_time() {
    let world = World::new();
    let mut host = Setup::default().plugin(GUEST).settings(&world.settings(GUEST)).start();
    let at = |name: &str| world.folder.path().join(name);
    let order = |path: &str| json!({ "do": "http-send", "url": world.url(path), "headers": { "authorization": BEARER }, "body": "" });
    let asked = |host: &Host, gate: &str| {
        let id = host.enqueue(&format!("{GUEST}/do"), order(&format!("/when{}", at(gate).display())));
        eventually("the request is there", || world.echo.seen().contains(gate).then_some(()));
        id
    };
    let rotate = |host: &Host, value: &str| {
        let told = || host.said().matches("`secrets.stripe`").count();
        let before = told();
        fs::write(at("key"), value).expect("written");
        eventually("the host has the new value", || (told() > before).then_some(()));
    };

    // It runs while the value is replaced: its own comes back masked.
    let running = asked(&host, "gate-1");
    rotate(&host, "new-value-1");
    fs::write(at("gate-1"), "").expect("written");
    assert_eq!(host.finished(&running)["state"], "succeeded");
    let result = host.result(&running).to_string();
    assert!(result.contains(&"*".repeat(value().len())) && !result.contains("sk_live"), "{result}");

    // It waits for a hold meanwhile: it has the newer one.
    hold(&host, true);
    let held = host.enqueue(&format!("{GUEST}/do"), order("/"));
    eventually("it is held", || (host.job(&held)["wait"]["reason"] == "held").then_some(()));
    rotate(&host, "new-value-2");
    hold(&host, false);
    assert_eq!(host.finished(&held)["state"], "succeeded");
    assert_eq!(world.echo.last_authorization(), "Bearer new-value-2");

    // Its host is killed half-way, and has another value when it runs again.
    let killed = asked(&host, "gate-2");
    assert_eq!(world.echo.last_authorization(), "Bearer new-value-2");
    host.kill();
    fs::write(at("key"), "new-value-3").expect("written");
    fs::write(at("gate-2"), "").expect("written");
    host.start();
    assert_eq!(host.finished(&killed)["state"], "succeeded");
    assert_eq!(world.echo.last_authorization(), "Bearer new-value-3");
    let result = host.result(&killed).to_string();
    assert!(result.contains("***") && !result.contains("new-value"), "{result}");
}

fn hold(host: &Host, on: bool) {
    match on {
        true => _ = host.client().post("/v1/holds", &json!({ "task": format!("{GUEST}/do") })).ok(),
        false => _ = host.client().delete(&format!("/v1/holds?task={GUEST}%2Fdo")),
    }
}
