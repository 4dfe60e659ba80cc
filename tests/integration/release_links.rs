//! Plugin folders as releases and orchestrators lay them out: links that are moved on, and files that are links.
//!
//! The folder is scanned once an hour, so that all that is found is found by its watches.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use crate::deployment::has_namespaces;
use crate::harness::{Host, Setup, component, eventually, link};

fn loaded(host: &Host) -> Vec<String> {
    let plugins = host.client().get("/v1/plugins").ok();
    let all = plugins.as_array().expect("a list");
    let names = all.iter().filter(|plugin| plugin["loaded"].is_object()).filter_map(|plugin| plugin["id"].as_str());
    names.map(str::to_owned).collect()
}

#[track_caller]
fn until_loaded(host: &Host, expected: &[&str]) {
    eventually(&format!("{expected:?} are loaded"), || (loaded(host) == expected).then_some(()));
}

fn put(guest: &str, file: &Path) {
    fs::create_dir_all(file.parent().expect("it is in a folder")).expect("a folder");
    fs::copy(component(guest), file).expect("copied");
}

fn rarely_scanned(plugins: &Path) -> Setup {
    Setup::default().variable("WHARF__PLUGINS_DIR", plugins).variable("WHARF__PLUGINS_RESCAN", "1h")
}

#[test]
fn a_release_link_that_is_moved_on_is_followed_and_watched_there() {
    let outer = tempfile::tempdir().expect("a folder");
    let release = |number: u32| outer.path().join(format!("releases/{number}"));
    put("words", &release(1).join("plugins/words.wasm"));
    put("words", &release(2).join("plugins/second.wasm"));
    link("releases/1", &outer.path().join("current"));
    // Both the folder is a link, and a folder above it.
    link("current/plugins", &outer.path().join("plugins"));
    let host = rarely_scanned(&outer.path().join("plugins")).start();
    until_loaded(&host, &["words"]);
    link("releases/2", &outer.path().join("current"));
    until_loaded(&host, &["second"]);
    put("words", &release(2).join("plugins/third.wasm"));
    until_loaded(&host, &["second", "third"]);
    // Back, as a release that is undone; nothing watches the one before any more.
    link("releases/1", &outer.path().join("current"));
    until_loaded(&host, &["words"]);
    assert!(!host.said().contains("could not watch"), "{}", host.said());
}

#[test]
fn a_folder_that_is_put_in_the_place_of_another_is_watched() {
    let outer = tempfile::tempdir().expect("a folder");
    let plugins = outer.path().join("plugins");
    put("words", &plugins.join("words.wasm"));
    let host = rarely_scanned(&plugins).start();
    until_loaded(&host, &["words"]);
    put("words", &outer.path().join("next/second.wasm"));
    fs::rename(&plugins, outer.path().join("before")).expect("renamed");
    fs::rename(outer.path().join("next"), &plugins).expect("renamed");
    until_loaded(&host, &["second"]);
    put("words", &plugins.join("third.wasm"));
    until_loaded(&host, &["second", "third"]);
}

/// Kubernetes replaces all files of a ConfigMap by moving one link on.
#[test]
fn the_files_of_a_config_map_change_together() {
    let outer = tempfile::tempdir().expect("a folder");
    let plugins = outer.path().join("plugins");
    put("words", &plugins.join("..2026_1/words.wasm"));
    link("..2026_1", &plugins.join("..data"));
    symlink("..data/words.wasm", plugins.join("words.wasm")).expect("a link");
    let host = rarely_scanned(&plugins).start();
    until_loaded(&host, &["words"]);
    let digest = || host.client().get("/v1/plugins/words").ok()["loaded"]["digest"].clone();
    let before = digest();
    put("summary", &plugins.join("..2026_2/words.wasm"));
    link("..2026_2", &plugins.join("..data"));
    fs::remove_dir_all(plugins.join("..2026_1")).expect("removed");
    eventually("the new version is loaded", || (digest() != before).then_some(()));
    assert!(!host.said().contains("retired"), "{}", host.said());
}

#[test]
fn a_file_that_cannot_be_looked_at_for_a_moment_keeps_its_plugin() {
    let outer = tempfile::tempdir().expect("a folder");
    let plugins = outer.path().join("plugins");
    fs::create_dir(&plugins).expect("a folder");
    put("words", &outer.path().join("real/words.wasm"));
    let way = outer.path().join("way");
    link("real", &way);
    symlink("../way/words.wasm", plugins.join("words.wasm")).expect("a link");
    let host = rarely_scanned(&plugins).start();
    until_loaded(&host, &["words"]);
    let document = || host.client().get("/v1/plugins/words").ok();
    let before = document();
    // A link that leads to itself: an error that is not that there is no file.
    link("way", &way);
    fs::write(plugins.join("hint.txt"), "look").expect("written");
    let refused = eventually("it is told", || Some(document()).filter(|plugin| plugin["refused"].is_object()));
    assert_eq!(refused["loaded"], before["loaded"]);
    assert!(refused["refused"]["problems"][0].as_str().is_some_and(|why| why.contains("could not read the file")));
    assert!(refused["refused"]["retry"].is_string(), "{refused}");
    link("real", &way);
    fs::write(plugins.join("hint.txt"), "look again").expect("written");
    eventually("it is as before", || (document() == before).then_some(()));
    assert!(!host.said().contains("retired"), "{}", host.said());
    // One that is gone is retired.
    fs::remove_file(outer.path().join("real/words.wasm")).expect("removed");
    fs::remove_file(plugins.join("hint.txt")).expect("removed");
    until_loaded(&host, &[]);
    host.says("retired plugin words");
}

#[test]
fn a_folder_that_cannot_be_watched_is_told_once_and_scanned() {
    const NO_WATCHES: &[&str] =
        &["unshare", "-rm", "sh", "-c", "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\""];
    if !has_namespaces() {
        return;
    }
    let host = Setup::default().plugin("words").variable("WHARF__PLUGINS_RESCAN", "100ms").under(NO_WATCHES).start();
    host.put_plugin("second", &component("words"));
    until_loaded(&host, &["second", "words"]);
    fs::remove_file(host.plugin_file("second")).expect("removed");
    until_loaded(&host, &["words"]);
    let said = host.says("could not watch the plugin folder");
    assert_eq!(said.matches("could not watch the plugin folder").count(), 1, "{said}");
    assert_eq!(host.run("words/count", serde_json::json!({ "text": "a" }))["state"], Value::from("succeeded"));
}
