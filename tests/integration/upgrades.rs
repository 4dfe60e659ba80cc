//! Upgrades beside each other: two versions of a plugin on two hosts, and hosts and plugins exchanged one by one under load.

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::chaos::{Addresses, count, most_at_once, read_spans, under_load};
use crate::harness::{Host, Postgres, Setup, component, eventually, shared_address, wharf};

/// `villain` with other words in its manifest, each as long as the one in whose place it stands: another version.
fn version(folder: &Path, name: &str, changes: &[(&str, &str)]) -> std::path::PathBuf {
    let mut bytes = std::fs::read(component("villain")).expect("the component");
    for (from, to) in changes {
        assert_eq!(from.len(), to.len(), "what stands behind it must stay where it is");
        let places: Vec<usize> =
            (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
        assert_eq!(places.len(), 1, "`{from}` stands in the manifest");
        bytes[places[0]..places[0] + to.len()].copy_from_slice(to.as_bytes());
    }
    let file = folder.join(format!("{name}.wasm"));
    std::fs::write(&file, bytes).expect("written");
    file
}

fn setup(address: &str, logs: &Path) -> Setup {
    let settings = format!(
        "[attempts]\ndrain-timeout = \"4s\"\n[plugins.villain]\n\
         dirs = [{{ host = \"{}\", guest = \"/log\", writable = true }}]",
        logs.display()
    );
    Setup::default().settings(&settings).database(address)
}

fn loaded(host: &Host) -> Value {
    let plugins = host.client().get("/v1/plugins").ok();
    plugins[0]["loaded"].clone()
}

fn succeeded(host: &Host, ids: &[String]) {
    for id in ids {
        let job = host.finished(id);
        let burnt = (job["failures"].as_u64(), job["crashes"].as_u64());
        assert_eq!((job["state"].as_str(), burnt), (Some("succeeded"), (Some(0), Some(0))), "{job}");
    }
}

#[test]
fn a_job_is_claimed_by_a_host_whose_version_has_its_task() {
    let (address, folder) = (shared_address(), tempfile::tempdir().expect("a temporary folder"));
    let next = version(
        folder.path(),
        "next",
        &[("version = \"0.1.0\"", "version = \"0.2.0\""), ("[tasks.hurried]", "[tasks.further]")],
    );
    let old = setup(&address, folder.path()).plugin("villain").start();
    let mut new = setup(&address, folder.path()).plugin_file("villain", &next).start();
    assert_ne!(loaded(&old)["digest"], loaded(&new)["digest"]);

    let echo = |host: &Host, task: &str| host.enqueue(task, json!({ "do": "echo" }));
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.extend([
            echo(&old, "villain/hurried"),
            echo(&new, "villain/further"),
            echo(&old, "villain/do"),
            echo(&new, "villain/do"),
        ]);
    }
    succeeded(&old, &ids);
    assert!(ids.iter().all(|id| old.job(id)["attempt"] == 1), "nobody began what it cannot do");

    // While no host has the task its jobs wait, and say so; they lose nothing by it.
    let later = json!({ "task": "villain/further", "payload": { "do": "echo" }, "delay": "1s" });
    let later = new.enqueue_with(later);
    assert_eq!(new.terminate(), Some(0));
    eventually("it waits for a host with its task", || {
        (old.job(&later)["wait"]["reason"] == "task-absent").then_some(())
    });
    succeeded(&old, &[echo(&old, "villain/do")]);
    assert_eq!(old.job(&later)["state"], "waiting");
    new.start();
    succeeded(&old, &[later]);
}

#[test]
fn hosts_that_declare_different_limits_stay_within_the_larger_and_leave_nothing_behind() {
    let (address, folder) = (shared_address(), tempfile::tempdir().expect("a temporary folder"));
    let wider = [("limit = { per-key = 2, total = 5 }", "limit = { per-key = 4, total = 9 }")];
    let next = version(folder.path(), "next", &wider);
    let old = setup(&address, folder.path()).plugin("villain").start();
    let new = setup(&address, folder.path()).plugin_file("villain", &next).start();
    let job = |n: usize| {
        let payload = json!({ "key": format!("k{}", n % 3), "do": "span", "ms": 10 + n % 30, "log": "/log/spans" });
        let host = if n.is_multiple_of(2) { &old } else { &new };
        host.enqueue("villain/pair", payload)
    };
    let ids: Vec<String> = (0..200).map(job).collect();
    succeeded(&old, &ids);
    let spans = read_spans(&folder.path().join("spans"));
    assert_eq!(spans.len(), ids.len(), "each ran once");
    for key in ["k0", "k1", "k2"] {
        assert!(most_at_once(&spans, |span| span.key == key, &[]) <= 4, "{key} is over the larger limit");
    }
    assert!(most_at_once(&spans, |_| true, &[]) <= 9, "the group is over the larger total");
    // The wider one is gone: the narrower one alone finds all that the other closed or left.
    drop(new);
    let ids: Vec<String> =
        (0..20).map(|n| old.enqueue("villain/pair", json!({ "key": format!("k{}", n % 3), "do": "echo" }))).collect();
    succeeded(&old, &ids);
}

#[test]
fn a_plugin_is_upgraded_host_by_host_under_load() {
    let (address, folder) = (shared_address(), tempfile::tempdir().expect("a temporary folder"));
    let hosts: Vec<Host> = (0..3).map(|_| setup(&address, folder.path()).plugin("villain").start()).collect();
    let addresses: Addresses =
        Arc::new(Mutex::new(hosts.iter().map(|host| host.client().address().to_owned()).collect()));
    let ((), ids) = under_load(&addresses, |kept| {
        for number in ["0.2.0", "0.3.0"] {
            let next = version(folder.path(), "next", &[("version = \"0.1.0\"", &format!("version = \"{number}\""))]);
            for host in &hosts {
                let before = count(kept);
                eventually("there is load", || (count(kept) > before + 30).then_some(()));
                host.put_plugin("villain", &next);
                eventually("the new version is loaded", || (loaded(host)["version"] == number).then_some(()));
            }
        }
    });
    succeeded(&hosts[0], &ids);
    let spans = read_spans(&folder.path().join("spans"));
    assert!(ids.iter().all(|id| spans.range((id.clone(), 0)..=(id.clone(), u32::MAX)).count() == 1), "each ran once");
}

#[test]
fn hosts_are_exchanged_one_by_one_under_load() {
    let postgres = Postgres::start(false);
    let (address, folder) = (postgres.address(), tempfile::tempdir().expect("a temporary folder"));
    let mut hosts: Vec<Host> = (0..3).map(|_| setup(&address, folder.path()).plugin("villain").start()).collect();
    let addresses: Addresses =
        Arc::new(Mutex::new(hosts.iter().map(|host| host.client().address().to_owned()).collect()));
    // Longer than any host waits for it: each gives it back, and that costs it nothing.
    let long = hosts[0].enqueue("villain/slow", json!({ "do": "sleep", "ms": 3_600_000 }));
    let ((), ids) = under_load(&addresses, |kept| {
        for host in (0..2).flat_map(|_| 0..3) {
            let before = count(kept);
            eventually("there is load", || (count(kept) > before + 30).then_some(()));
            let host = &mut hosts[host];
            let gone = host.client().address().to_owned();
            assert_eq!(host.terminate(), Some(0));
            host.start();
            let mut addresses = addresses.lock().expect("no panic while it is held");
            addresses
                .iter_mut()
                .filter(|address| **address == gone)
                .for_each(|address| *address = host.client().address().to_owned());
            drop(addresses);
            eventually("it is ready again", || host.is_ready().then_some(()));
        }
    });
    succeeded(&hosts[0], &ids);
    let spans = read_spans(&folder.path().join("spans"));
    for id in &ids {
        let ran: Vec<_> = spans.range((id.clone(), 0)..=(id.clone(), u32::MAX)).collect();
        assert!(ran.len() == 1 && ran[0].1.end.is_some(), "{id} ran once, and to its end: {ran:?}");
    }
    let job = hosts[1].in_state(&long, "running");
    assert!(job["attempt"].as_u64() > Some(1), "it was given back: {job}");
    assert_eq!((job["failures"].as_u64(), job["crashes"].as_u64()), (Some(0), Some(0)), "{job}");
}

#[test]
fn tables_of_a_newer_host_are_used_as_long_as_they_may_be() {
    let postgres = Postgres::start(false);
    let (address, folder) = (postgres.address(), tempfile::tempdir().expect("a temporary folder"));
    let schema = address.split_once("schema=").expect("it names one").1.to_owned();
    let mut host = setup(&address, folder.path()).plugin("villain").start();
    let echoes = |host: &Host| succeeded(host, &[host.enqueue("villain/do", json!({ "do": "echo" }))]);
    let newer = |oldest: u32| postgres.sql(&format!("UPDATE {schema}.version SET version = 99, oldest = {oldest}"));
    newer(1);
    echoes(&host);
    assert_eq!(host.terminate(), Some(0));
    host.start();
    eventually("it is ready beside a newer one", || host.is_ready().then_some(()));
    echoes(&host);

    newer(99);
    let why = eventually("it says that it may no more", || {
        let ready = host.client().get("/ready");
        let reasons = ready.json()["reasons"].to_string();
        (ready.status == 503 && reasons.contains("newer")).then_some(reasons)
    });
    assert!(why.contains("Wharf"), "{why}");
    let refused = host.client().post("/v1/jobs", &json!({ "task": "villain/do", "payload": { "do": "echo" } }));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (500, Some("store-broken")), "{refused:?}");
    host.terminate();
    let output = wharf().arg("serve").current_dir(host.dir()).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(5) && said.contains("newer Wharf"), "{said}");
}
