//! Hosts behind a pooler that shares sessions: nobody hears nudges there, the hosts say so, and look by themselves.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Host, Pooler, Postgres, Setup, eventually};

const DEAF: &str = "nudges of other hosts do not arrive";
/// So often a host looks by itself, as host/docs/clustering.md has it.
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// Two hosts, of which the first has room for one attempt.
fn pair(address: &str) -> (Host, Host) {
    let one = Setup::default().plugin("villain").settings("[attempts]\nat-once = 1").database(address).start();
    (one, Setup::default().plugin("villain").database(address).start())
}

#[test]
fn without_nudges_hosts_say_so_and_look_by_themselves() {
    let postgres = Postgres::start(false);
    let pooler = Pooler::before(&postgres);
    let (full, free) = pair(pooler.address());
    for host in [&full, &free] {
        eventually("it says that it hears nothing", || host.said().contains(DEAF).then_some(()));
    }

    // As much as the first has room for, and as much again: the second one finds that by looking.
    let sleeps = || full.enqueue("villain/slow", json!({ "do": "sleep", "ms": 600_000 }));
    let ids = [sleeps(), sleeps()];
    for id in &ids {
        full.in_state(id, "running");
    }
    // Each is cancelled through the host where it may not run, which cannot tell the other.
    for (id, host) in [(&ids[0], &free), (&ids[1], &full), (&ids[0], &full)] {
        host.client().post(&format!("/v1/jobs/{id}/cancel"), &json!({}));
    }
    for id in &ids {
        assert_eq!(free.finished(id)["state"], "cancelled");
    }
    let began = std::time::Instant::now();
    let events = free.client().events(&full.enqueue("villain/do", json!({ "do": "echo" })), None);
    assert!(events.last().is_some_and(|event| event.data["state"] == "succeeded"));
    assert!(began.elapsed() < 10 * LOOKS_EVERY, "it was looked for: {:?}", began.elapsed());
}

#[test]
fn where_nudges_are_heard_or_not_wanted_nobody_complains() {
    let postgres = Postgres::start(false);
    let address = postgres.address();
    let host = |address: &str| Setup::default().plugin("villain").database(address).start();
    let (heard, unwanted) = (host(&address), host(&format!("{address}&listen=no")));
    for n in 0..20 {
        let host = if n % 2 == 0 { &heard } else { &unwanted };
        assert_eq!(host.run("villain/pair", json!({ "key": "k", "do": "echo" }))["state"], "succeeded");
    }
    // Long enough for each to miss its own.
    assert_eq!(heard.run("villain/slow", json!({ "do": "sleep", "ms": 12_000 }))["state"], "succeeded");
    for host in [&heard, &unwanted] {
        let said = host.said();
        assert!(!said.contains(DEAF) && !said.contains("shared by a pooler"), "{said}");
    }
}
