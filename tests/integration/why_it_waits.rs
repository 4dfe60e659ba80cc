//! Why a job waits, as any host tells it: judged over all live hosts, not by the one that was asked.

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, shared_address};

fn sleeper(host: &Host, task: &str, key: &str) -> String {
    host.enqueue(task, json!({ "key": key, "do": "sleep", "ms": 600_000 }))
}

/// Waits until both hosts say that a job waits for this reason, and returns what the second one says.
#[track_caller]
fn both_say(hosts: [&Host; 2], job: &str, reason: &str) -> Value {
    eventually(&format!("both say {reason}"), || {
        let says = hosts.map(|host| host.job(job)["wait"].clone());
        says.iter().all(|wait| wait["reason"] == reason).then(|| says[1].clone())
    })
}

fn readiness(wait: &Value) -> Vec<&str> {
    wait["hosts"].as_array().expect("hosts").iter().map(|host| host["readiness"].as_str().expect("text")).collect()
}

#[test]
fn a_host_without_the_plugin_judges_by_those_that_have_it() {
    let address = shared_address();
    let two = "[attempts]\nat-once = 2\ndrain-timeout = \"300s\"\n";
    let mut owner = Setup::default().plugin("villain").settings(two).database(&address).start();
    let asked = Setup::default().plugin("words").database(&address).start();
    eventually("each knows both", || {
        (asked.client().get("/v1/nodes").ok().as_array().map(Vec::len) == Some(2)).then_some(())
    });

    // The limit is one that only the owner declares.
    let holder = sleeper(&owner, "villain/keyed", "k");
    owner.in_state(&holder, "running");
    let next = sleeper(&owner, "villain/keyed", "k");
    let wait = both_say([&owner, &asked], &next, "lane-full");
    assert_eq!((&wait["holders"][0]["id"], &wait["hosts"]), (&json!(holder), &Value::Null), "{wait}");

    // Every slot of the only host that runs the task is taken.
    let second = sleeper(&owner, "villain/keyed", "l");
    owner.in_state(&second, "running");
    let third = sleeper(&owner, "villain/keyed", "m");
    let wait = eventually("the asked host knows that the owner is full", || {
        let wait = both_say([&owner, &asked], &third, "in-turn");
        (readiness(&wait) == ["full", "plugin-absent"]).then_some(wait)
    });
    assert!(
        wait["message"].as_str().expect("text").contains("the host that runs its task has as many attempts"),
        "{wait}"
    );

    // The only host that runs the task is stopping.
    owner.signal("-TERM");
    let wait = both_say([&owner, &asked], &third, "draining");
    assert_eq!(readiness(&wait), ["draining", "plugin-absent"], "{wait}");
    let cli = asked.cli(&["job", "show", &third]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&cli.stdout).contains("every host that has its task is stopping or draining"));

    // Another one comes while it does.
    let successor = Setup::default().plugin("villain").settings("[attempts]\nat-once = 1\n").database(&address).start();
    assert_eq!(successor.in_state(&third, "running")["state"], "running");
    let fourth = sleeper(&asked, "villain/keyed", "n");
    let wait = eventually("all agree", || {
        let wait = both_say([&owner, &asked], &fourth, "in-turn");
        (readiness(&wait) == ["full", "draining", "plugin-absent"]).then_some(wait)
    });
    assert!(wait["hosts"][0]["name"].as_str().is_some_and(|name| name.contains(':')), "{wait}");

    // Nobody has it any more.
    owner.kill();
    drop(successor);
    let absent = eventually("the plugin is absent", || {
        let wait = asked.job(&fourth)["wait"].clone();
        (wait["reason"] == "plugin-absent").then_some(wait)
    });
    assert_eq!(readiness(&absent), ["plugin-absent"], "{absent}");
}
