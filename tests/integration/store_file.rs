//! The file of the store under a running host: other hosts that want it, and whoever takes it away.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, wharf};

/// Starts another host on `file`, by a command that ends as `wharf` does. It must be refused, and this is what it says.
#[track_caller]
fn refused(host: &Host, mut command: Command, file: &Path) -> String {
    let log = host.dir().join("second.log");
    let mut second = command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .current_dir(host.dir())
        .env("WHARF__STORE", file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a file"))
        .spawn()
        .expect("it starts");
    let said = || std::fs::read_to_string(&log).expect("text");
    let status = eventually("the second host ends or listens", || match second.try_wait().expect("it can be asked") {
        Some(status) => Some(Some(status)),
        None => said().contains("http://").then_some(None),
    });
    if status.is_none() {
        second.kill().expect("it can be killed");
        second.wait().expect("it can be waited for");
    }
    assert_eq!(status.and_then(|status| status.code()), Some(5), "two hosts have {}: {}", file.display(), said());
    said()
}

fn echoes(host: &Host) {
    assert_eq!(host.run("villain/do", json!({ "do": "echo" }))["state"], "succeeded");
}

fn store(host: &Host) -> PathBuf {
    host.dir().join("wharf.db")
}

#[test]
fn a_second_host_is_refused_by_whatever_name_it_calls_the_file() {
    let host = Setup::default().plugin("villain").start();
    let file = store(&host);
    let (link, hard) = (host.dir().join("link.db"), host.dir().join("hard.db"));
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    for has_lock_file in [true, false] {
        if !has_lock_file {
            std::fs::remove_file(host.dir().join("wharf.db.lock")).expect("removed");
        }
        for name in [&file, &link] {
            let text = refused(&host, wharf(), name);
            assert!(text.contains("another host uses it"), "{text}");
        }
    }
    std::fs::hard_link(&file, &hard).expect("a link");
    let text = refused(&host, wharf(), &hard);
    assert!(text.contains("another host uses it"), "{text}");
    std::fs::remove_file(&hard).expect("removed");

    // Mounted at another place, as into a container: another path, another folder, one link.
    let mounted = host.dir().join("mounted.db");
    std::fs::write(&mounted, b"").expect("written");
    let may_mount = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    if may_mount.is_ok_and(|status| status.success()) {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
        command.args([&file, &mounted]).arg(wharf().get_program());
        let text = refused(&host, command, &mounted);
        assert!(text.contains("mounted.db: another host uses it"), "{text}");
    } else {
        println!("nobody may mount here: that part is left out");
    }
    echoes(&host);
}

#[test]
fn a_file_with_two_names_is_refused_when_nobody_has_it() {
    let mut host = Setup::default().plugin("villain").start();
    echoes(&host);
    assert_eq!(host.terminate(), Some(0));
    std::fs::hard_link(store(&host), host.dir().join("hard.db")).expect("a link");
    for name in ["wharf.db", "hard.db"] {
        let text = refused(&host, wharf(), &host.dir().join(name));
        assert!(text.contains("2 names (hard links)"), "{text}");
    }
    std::fs::remove_file(host.dir().join("hard.db")).expect("removed");
    host.start();
    eventually("it is ready", || host.is_ready().then_some(()));
    echoes(&host);
}

/// Enqueues until that fails, and then some: the ids of what was acknowledged before the first failure, and the failures.
fn until_refused(host: &Host, mut act: impl FnMut()) -> (Vec<String>, Vec<Value>) {
    let enqueue =
        || host.client().post("/v1/jobs", &json!({ "task": "villain/do", "payload": { "do": "echo" }, "delay": "1h" }));
    let id = |reply: &Value| reply["id"].as_str().expect("an id").to_owned();
    let mut kept: Vec<String> = (0..20).map(|_| id(&enqueue().ok())).collect();
    act();
    let mut failures = Vec::new();
    while failures.len() < 10 {
        let reply = enqueue();
        if reply.status < 300 {
            assert!(failures.is_empty(), "it was acknowledged after {failures:?}");
            kept.push(id(&reply.json()));
            assert!(kept.len() < 40, "it goes on");
        } else {
            failures.push(reply.json());
        }
    }
    (kept, failures)
}

/// What a process still has open of a file that was removed.
fn still_open(host: &Host, file: &Path) -> PathBuf {
    let deleted = format!("{} (deleted)", file.display());
    let all = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).expect("its files");
    all.map(|entry| entry.expect("an entry").path())
        .find(|fd| std::fs::read_link(fd).is_ok_and(|target| target.to_string_lossy() == deleted))
        .unwrap_or_else(|| panic!("{deleted} is not open"))
}

#[test]
fn a_host_whose_file_is_removed_says_so_takes_no_more_and_loses_nothing() {
    let mut host = Setup::default().plugin("villain").settings("[lease]\nlength = \"3s\"\nmargin = \"500ms\"").start();
    let running = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 600_000 }));
    host.in_state(&running, "running");
    let file = store(&host);
    let beside = |ending: &str| host.dir().join(format!("wharf.db{ending}"));
    let (log, index, lock) = (beside("-wal"), beside("-shm"), beside(".lock"));
    let files = [&file, &log, &index, &lock];
    let (kept, failures) =
        until_refused(&host, || files.iter().for_each(|file| std::fs::remove_file(file).expect("removed")));
    assert_eq!(kept.len(), 20, "what was acknowledged afterwards stands in a file that is gone");
    let text = failures[9]["detail"].as_str().expect("a text");
    assert!(text.contains("wharf.db is missing") && text.contains(&format!("/proc/{}/fd", host.pid())), "{text}");
    let why = eventually("it is not ready", || {
        let ready = host.client().get("/ready");
        (ready.status == 503).then(|| ready.json()["reasons"].to_string())
    });
    assert!(why.contains("wharf.db is missing"), "{why}");
    eventually("what ran is stopped", || (host.metric("wharf_attempts_running") == Some(0.0)).then_some(()));
    assert_eq!(host.client().get("/health").status, 200);
    assert_eq!(host.says("the store is broken").matches("the store is broken").count(), 1, "{}", host.said());

    // All of it is in what the host still has open.
    for file in [&file, &log] {
        std::fs::copy(still_open(&host, file), host.dir().join("rescued")).expect("copied");
        std::fs::rename(host.dir().join("rescued"), file).expect("put back");
    }
    host.kill();
    host.start();
    eventually("it is ready", || host.is_ready().then_some(()));
    for id in kept.iter().chain([&running]) {
        host.job(id);
    }
    echoes(&host);
}

#[test]
fn a_host_that_has_nothing_to_do_notices_that_its_file_was_replaced() {
    let mut host = Setup::default().plugin("villain").start();
    echoes(&host);
    let (file, away) = (store(&host), host.dir().join("away.db"));
    std::fs::rename(&file, &away).expect("moved");
    std::fs::write(&file, b"").expect("written");
    eventually("it is not ready", || (!host.is_ready()).then_some(()));
    host.says("wharf.db was replaced by another file");
    // Of a write that was on its way it says that this is unknown, once more.
    assert_eq!(host.says("the store is broken").matches("the store is broken").count(), 1, "{}", host.said());
    let refused = host.client().post("/v1/jobs", &json!({ "task": "villain/do", "payload": { "do": "echo" } }));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (500, Some("store-broken")), "{refused:?}");
    assert_eq!(host.terminate(), Some(0), "it can be stopped: {}", host.said());
    assert_eq!(std::fs::metadata(&file).expect("a file").len(), 0, "the other file is not touched");
    std::fs::rename(&away, &file).expect("put back");
    host.start();
    eventually("it is ready", || host.is_ready().then_some(()));
    echoes(&host);
}

#[test]
fn a_reader_that_never_ends_is_told_of_with_how_much_it_costs() {
    let host = Setup::default().plugin("villain").start();
    let reader = rusqlite::Connection::open(store(&host)).expect("the store");
    reader.execute_batch("BEGIN; SELECT count(*) FROM jobs;").expect("it reads");
    assert_eq!(host.metric("wharf_store_log_pinned_bytes"), Some(0.0));
    let large = json!({ "task": "villain/do", "payload": { "do": "x".repeat(16 << 20) }, "delay": "1h" });
    for _ in 0..10 {
        host.client().post("/v1/jobs", &large).ok();
    }
    let held = eventually("it is told", || host.metric("wharf_store_log_pinned_bytes").filter(|bytes| *bytes > 0.0));
    assert!(held >= f64::from(128 << 20), "{held}");
    let line = || host.said().lines().find(|line| line.contains("wharf.db-wal has grown to")).map(str::to_owned);
    let line = eventually("the log says so", line);
    assert!(line.contains("WARN") && line.contains("fuser -v"), "{line}");
    assert!(host.is_ready(), "it works");
    reader.execute_batch("COMMIT").expect("it ends");
    eventually("it is carried in", || (host.metric("wharf_store_log_pinned_bytes") == Some(0.0)).then_some(()));
    host.says("written to its database file again");
    echoes(&host);
    let length = || std::fs::metadata(host.dir().join("wharf.db-wal")).expect("the log").len();
    eventually("it is short again", || {
        echoes(&host);
        (length() <= 70 << 20).then_some(())
    });
}
