//! Settings files that are written slowly: the host takes no part of a file for the whole.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually};

/// The part that has the grant. It comes last, so that what comes before is a valid file that grants nothing.
fn grant(n: u32) -> String {
    format!("[plugins.villain-kv]\nkv = true\nconfig = {{ n = \"{n}\" }}\n")
}

fn reloads(host: &Host, result: &str) -> f64 {
    host.metric(&format!("wharf_settings_reloads_total{{result=\"{result}\"}}")).unwrap_or_default()
}

/// Returns the number that a job reads from the settings. It needs the grant.
fn number(host: &Host) -> Value {
    let job = host.run("villain-kv/do", json!({ "steps": [{ "config": "n" }, { "add": "jobs" }] }));
    assert_eq!(job["state"], "succeeded", "{job}");
    host.result(job["id"].as_str().expect("an id"))[0].clone()
}

/// Opens the settings file as `open` does, writes half of it, and the rest once the host has said that it waits.
#[track_caller]
fn is_taken_whole(host: &Host, open: impl FnOnce(&Path) -> File) {
    let path = host.dir().join("wharf.toml");
    let before = fs::read_to_string(&path).expect("it is there");
    let (half, _) = before.split_once("[plugins.villain-kv]").expect("the grant");
    host.signal("-HUP");
    eventually("the host has read its file again", || (reloads(host, "applied") >= 1.0).then_some(()));

    let mut file = open(&path);
    file.write_all(half.as_bytes()).expect("written");
    host.signal("-HUP");
    eventually("the host waits for the rest", || host.said().contains("has not closed it").then_some(()));
    host.signal("-HUP");
    assert_eq!(number(host), "1", "what held still holds");
    file.write_all(grant(2).as_bytes()).expect("written");
    drop(file);
    eventually("the whole file holds", || (number(host) == "2").then_some(()));
    assert_eq!(reloads(host, "refused"), 0.0, "{}", host.said());
    assert!(!host.said().contains("plugins refused"), "{}", host.said());
}

fn host() -> Host {
    Setup::default().plugin("villain-kv").settings(&grant(1)).start()
}

#[test]
fn a_file_that_is_written_in_place_is_taken_once_its_writer_has_closed_it() {
    is_taken_whole(&host(), |path| File::create(path).expect("truncated"));
}

#[test]
fn a_file_that_is_removed_and_created_again_is_taken_once_its_writer_has_closed_it() {
    is_taken_whole(&host(), |path| {
        fs::remove_file(path).expect("removed");
        File::create_new(path).expect("created")
    });
}

#[test]
fn a_file_behind_a_link_is_taken_once_its_writer_has_closed_it() {
    let host = host();
    let path = host.dir().join("wharf.toml");
    fs::create_dir(host.dir().join("v1")).expect("made");
    fs::copy(&path, host.dir().join("v1/wharf.toml")).expect("copied");
    let link = host.dir().join("link.new");
    std::os::unix::fs::symlink("v1/wharf.toml", &link).expect("linked");
    fs::rename(link, &path).expect("renamed");
    is_taken_whole(&host, |path| File::create(path).expect("truncated"));
}

/// Replaces a file as Kubernetes does with a secret: by rename.
fn replace(file: &std::path::Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, file).expect("renamed");
}

#[test]
fn values_from_files_are_rotated_without_a_restart_and_shown_nowhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("key");
    std::fs::write(&file, "first-secret").expect("written");
    let settings = format!(
        "[plugins.villain-kv]\nkv = true\nenv = {{ KEY = {{ from = \"file:{}\" }} }}\nconfig = {{ key = {{ from = \"env:KEY_OUTSIDE\" }} }}",
        file.display()
    );
    let host =
        Setup::default().plugin("villain-kv").settings(&settings).variable("KEY_OUTSIDE", "in-a-variable").start();
    let read = || {
        let id = host.enqueue("villain-kv/do", json!({ "steps": [{ "env": "KEY" }, { "config": "key" }] }));
        assert_eq!(host.finished(&id)["state"], "succeeded");
        host.result(&id).to_string()
    };
    assert!(read().contains("first-secret") && read().contains("in-a-variable"));
    replace(&file, "second-secret");
    eventually("new attempts have the new value", || read().contains("second-secret").then_some(()));
    std::fs::remove_file(&file).expect("removed");
    eventually("the loss is told", || host.said().contains("could not read").then_some(()));
    assert!(read().contains("second-secret"), "what holds stays");
    let config = host.client().get("/v1/config").ok().to_string();
    for text in [host.said(), config] {
        assert!(!text.contains("-secret") && !text.contains("in-a-variable"), "{text}");
    }
}
