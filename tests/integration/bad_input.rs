//! Whatever is wrong at the start is said in one clear text, and loses nothing.

use std::path::Path;
use std::process::Output;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Setup, component, wharf};

/// Runs `wharf` in `dir`; it must fail by itself, with a text on stderr and nothing on stdout.
#[track_caller]
fn refused(dir: &Path, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = wharf().current_dir(dir).args(args).output().expect("it runs");
    let text = String::from_utf8(stderr).expect("text");
    assert!(!status.success(), "{args:?} succeeded: {text}");
    assert!(!text.contains("panicked"), "{text}");
    assert!(stdout.is_empty() || args.contains(&"check"), "{}", String::from_utf8_lossy(&stdout));
    text + &String::from_utf8_lossy(&stdout)
}

#[track_caller]
fn names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not named:\n{text}");
    }
}

#[test]
fn settings_are_refused_with_line_column_and_nearest_key() {
    let dir = TempDir::new().expect("a folder");
    let write = |text: &str| std::fs::write(dir.path().join("wharf.toml"), text).expect("written");
    write("[attempts]\nat-onec = 3\n");
    names(&refused(dir.path(), &["serve"]), &["wharf.toml", "2", "at-onec", "at-once"]);
    write("listen = \"127.0.0.1:0\"\n[attempts\n");
    names(&refused(dir.path(), &["serve"]), &["wharf.toml", "2"]);
    write("[attempts]\nat-once = \"many\"\n");
    names(&refused(dir.path(), &["serve"]), &["wharf.toml:2", "many"]);
    write("[attempts]\nat-once = 1000000\n");
    names(&refused(dir.path(), &["serve"]), &["8000"]);
    write("[plugins.words.tasks.count]\ntimeuot = \"3s\"\n");
    names(&refused(dir.path(), &["serve"]), &["wharf.toml:2", "timeuot", "timeout"]);
    write("listen = \"0.0.0.0:0\"\n");
    names(&refused(dir.path(), &["serve"]), &["token"]);
    assert!(!dir.path().join("wharf.db").exists(), "nothing was begun");
}

#[test]
fn flags_and_variables_are_refused_with_the_nearest_name() {
    let dir = TempDir::new().expect("a folder");
    names(&refused(dir.path(), &["serve", "--lisen", "127.0.0.1:0"]), &["--lisen", "--listen"]);
    names(&refused(dir.path(), &["sevre"]), &["sevre", "serve"]);
    let output = wharf().current_dir(dir.path()).arg("config").env("WHARF__ATTEMPTS__AT_ONEC", "3").output();
    let text = String::from_utf8(output.expect("it runs").stderr).expect("text");
    names(&text, &["WHARF__ATTEMPTS__AT_ONEC", "WHARF__ATTEMPTS__AT_ONCE"]);
}

#[test]
fn a_port_in_use_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let dir = TempDir::new().expect("a folder");
    std::fs::create_dir(dir.path().join("plugins")).expect("a folder");
    names(&refused(dir.path(), &["serve", "--listen", &address]), &[&address, "in use"]);
}

#[test]
fn a_second_host_on_the_same_store_is_refused_and_the_first_goes_on() {
    let host = Setup::default().plugin("words").start();
    let text = refused(host.dir(), &["serve", "--listen", "127.0.0.1:0"]);
    names(&text, &["wharf.db", "another"]);
    assert_eq!(host.run("words/count", json!({ "text": "a" }))["state"], "succeeded");
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_as_it_is() {
    let mut host = Setup::default().plugin("words").start();
    host.run("words/count", json!({ "text": "a" }));
    host.terminate();
    let file = host.dir().join("wharf.db");
    let connection = rusqlite::Connection::open(&file).expect("the store");
    connection.pragma_update(None, "user_version", 9999).expect("written");
    connection.close().expect("closed");
    let before = std::fs::read(&file).expect("the store");
    names(&refused(host.dir(), &["serve"]), &["wharf.db", "newer", "9999"]);
    assert_eq!(std::fs::read(&file).expect("the store"), before);
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().expect("a folder");
    let text = "these are the minutes of a meeting, and no database\n".repeat(100);
    std::fs::write(dir.path().join("minutes.txt"), &text).expect("written");
    names(
        &refused(dir.path(), &["serve", "--store", "sqlite:minutes.txt", "--listen", "127.0.0.1:0"]),
        &["minutes.txt"],
    );
    assert_eq!(std::fs::read_to_string(dir.path().join("minutes.txt")).expect("it is there"), text);
    names(&refused(dir.path(), &["serve", "--store", "mysql://x", "--listen", "127.0.0.1:0"]), &["mysql", "sqlite:"]);
}

#[test]
fn check_explains_files_that_are_no_plugins() {
    let dir = TempDir::new().expect("a folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).expect("written");
    write("text.wasm", b"hello");
    names(&refused(dir.path(), &["check", "text.wasm"]), &["text.wasm", "WebAssembly"]);
    write("core.wasm", b"\0asm\x01\0\0\0");
    names(&refused(dir.path(), &["check", "core.wasm"]), &["core module", "component"]);
    write("empty.wasm", b"\0asm\x0d\0\x01\0");
    names(&refused(dir.path(), &["check", "empty.wasm"]), &["wharf:plugin/handler", "wharf:plugin/manifest"]);
    write("Bad_Name.wasm", &std::fs::read(component("words")).expect("the component"));
    names(&refused(dir.path(), &["check", "Bad_Name.wasm"]), &["Bad_Name"]);
    names(&refused(dir.path(), &["check", "missing.wasm"]), &["missing.wasm"]);
    let manifest = component("villain-bad-manifest");
    names(&refused(dir.path(), &["check", &manifest.display().to_string()]), &["line"]);

    let good = wharf().current_dir(dir.path()).arg("check").arg(component("words")).output().expect("it runs");
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    names(&String::from_utf8_lossy(&good.stdout), &["words", "count"]);
}

/// Fills a small file system of its own. Needs the right to mount one; says so where it has not.
#[test]
fn a_full_disk_refuses_new_jobs_loses_none_and_recovers() {
    let dir = TempDir::new().expect("a folder");
    let mount =
        |args: &[&str]| std::process::Command::new("mount").args(args).output().is_ok_and(|o| o.status.success());
    let path = dir.path().display().to_string();
    if !mount(&["-t", "tmpfs", "-o", "size=6m", "tmpfs", &path]) {
        println!(
            "not run: mounting a small file system is not permitted here; the store's own suite fills a database too"
        );
        return;
    }
    let mut host = Setup::default().plugin("words").store_in(dir.path()).start();
    let text = "word ".repeat(20_000);
    let job = json!({ "task": "words/count", "payload": { "text": text }, "delay": "1h" });
    let mut taken = Vec::new();
    let refused = loop {
        let reply = host.client().post("/v1/jobs", &job);
        match reply.status {
            202 => taken.push(reply.json()["id"].as_str().expect("an id").to_owned()),
            _ => break reply,
        }
        assert!(taken.len() < 200, "6 MiB are full by now");
    };
    assert_eq!(refused.status, 503, "{}", String::from_utf8_lossy(&refused.body));
    names(&String::from_utf8_lossy(&refused.body), &["the disk of", "wharf.db", "is full"]);
    for id in &taken {
        assert_eq!(host.job(id)["state"], "waiting", "what was acknowledged is there");
    }
    assert!(mount(&["-o", "remount,size=64m", &path]), "room is made");
    let again = host.client().post("/v1/jobs", &job);
    assert_eq!(again.status, 202, "it recovers by itself: {}", String::from_utf8_lossy(&again.body));
    host.terminate();
    let _unmounted = std::process::Command::new("umount").arg(&path).status();
}
