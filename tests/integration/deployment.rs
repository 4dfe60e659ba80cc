//! Places in which hosts are really run: limits, mounts, owners, and programs that are replaced under them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually};
use crate::loading::{child_of, not_compiled_before};

/// Where this is set, tests that need namespaces are skipped if this user can make none.
const WITHOUT_NAMESPACES: &str = "WHARF_TESTS_WITHOUT_NAMESPACES";

/// Returns whether this user can make namespaces, without which no mount can be tried. Panics if not, unless whoever runs the
/// tests knows that.
pub(crate) fn has_namespaces() -> bool {
    let made = Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|made| made.status.success());
    if !made {
        let skips = std::env::var_os(WITHOUT_NAMESPACES).is_some();
        assert!(skips, "`unshare -rm` does not work here; set {WITHOUT_NAMESPACES}=1 to skip the tests that need it");
        eprintln!("SKIPPED: `unshare -rm` does not work here, so that nothing was mounted and nothing was tested");
    }
    made
}

fn works(host: &Host, task: &str) {
    let job = host.run(task, json!({ "text": "a b" }));
    assert_eq!(job["state"], "succeeded", "{job}\n{}", host.said());
}

fn refusal(host: &Host, id: &str) -> Option<Value> {
    let plugin = host.client().get(&format!("/v1/plugins/{id}"));
    (plugin.status == 200).then(|| plugin.json()["refused"].clone()).filter(Value::is_object)
}

fn files_in(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache).expect("the cache").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file()).collect()
}

#[test]
fn a_host_that_may_use_less_than_its_compiler_may_still_compiles() {
    let cache = tempfile::tempdir().expect("a folder");
    let in_cache = |name: &str| Setup::default().plugin("words").variable("WHARF__CACHE_DIR", cache.path().join(name));
    let host = in_cache("time").under(&["prlimit", "--cpu=250:250"]).start();
    works(&host, "words/count");
    // Too little for any sandbox, and enough to compile.
    let host = in_cache("space").under(&["prlimit", "--as=3500000000:3500000000"]).start();
    let refused = refusal(&host, "words").expect("it cannot describe itself");
    assert!(refused["problems"][0].to_string().contains("`ulimit -v`"), "{refused}");
    assert!(refused["retry"].is_string(), "{refused}");
    assert_eq!(files_in(&cache.path().join("space")).len(), 2, "{refused}");
}

#[test]
fn code_runs_from_memory_where_the_cache_is_mounted_noexec() {
    const NOEXEC: &[&str] = &[
        "unshare",
        "-rm",
        "sh",
        "-c",
        "mount -t tmpfs -o noexec,mode=700 none \"$WHARF__CACHE_DIR\" && exec \"$0\" \"$@\"",
    ];
    if !has_namespaces() {
        return;
    }
    let cache = tempfile::tempdir().expect("a folder");
    let setup = Setup::default().plugin("words").plugin("villain-async");
    let host = setup.variable("WHARF__CACHE_DIR", cache.path()).under(NOEXEC).start();
    works(&host, "words/count");
    let job = host.run("villain-async/echo", json!("hello"));
    assert_eq!(job["state"], "succeeded", "{job}");
    let said = host.says("mounted with noexec");
    assert_eq!(said.matches("mounted with noexec").count(), 1, "{said}");
}

#[test]
fn in_a_system_that_is_read_only_a_default_cache_is_made_among_temporary_files() {
    const READ_ONLY: &[&str] = &[
        "unshare",
        "-rm",
        "sh",
        "-c",
        "mkdir tmp && chmod 1777 tmp && mount --bind \"$PWD\" \"$PWD\" && cd \"$PWD\" && \
         mount -o remount,bind,ro / && unset XDG_CACHE_HOME && HOME=/nobody TMPDIR=\"$PWD/tmp\" exec \"$0\" \"$@\"",
    ];
    if !has_namespaces() {
        return;
    }
    let host = Setup::default().plugin("words").default_cache().under(READ_ONLY).start();
    works(&host, "words/count");
    let said = host.says("could not create the cache folder /nobody/.cache/wharf");
    assert!(said.contains("set `cache-dir`"), "{said}");
}

/// A volume that an orchestrator mounts: of root, and writable for a group.
#[test]
fn in_a_folder_of_somebody_else_the_host_keeps_its_code_to_itself() {
    const AS_NOBODY: &[&str] = &[
        "sh",
        "-c",
        "cp \"$0\" wharf && if [ \"$(id -u)\" != 0 ]; then exec ./wharf \"$@\"; fi; chown -R 65534 . && \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups ./wharf \"$@\"",
    ];
    let volume = tempfile::tempdir().expect("a folder");
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o2777)).expect("its own");
    let host = Setup::default().plugin("words").variable("WHARF__CACHE_DIR", volume.path()).under(AS_NOBODY).start();
    works(&host, "words/count");
    let inside: Vec<PathBuf> =
        fs::read_dir(volume.path()).expect("the volume").map(|entry| entry.expect("an entry").path()).collect();
    let [own] = &inside[..] else { panic!("one folder: {inside:?}") };
    assert_eq!(fs::metadata(own).expect("it is there").permissions().mode() & 0o777, 0o700);
    assert_eq!(files_in(own).len(), 2, "{:?}", files_in(own));
}

#[test]
fn a_host_whose_file_is_replaced_or_removed_goes_on_compiling() {
    const FROM_A_COPY: &[&str] = &["sh", "-c", "cp \"$0\" wharf && exec ./wharf \"$@\""];
    let folder = tempfile::tempdir().expect("a folder");
    let host = Setup::default().plugin("words").under(FROM_A_COPY).start();
    let program = host.dir().join("wharf");
    fs::write(host.dir().join("other"), "#!/bin/sh\nexit 1\n").expect("written");
    fs::rename(host.dir().join("other"), &program).expect("replaced");
    host.put_plugin("first", &not_compiled_before(folder.path(), "words"));
    eventually("it is compiled", || (host.client().get("/v1/plugins/first").status == 200).then_some(()));
    works(&host, "first/count");
    fs::remove_file(&program).expect("removed");
    host.put_plugin("second", &not_compiled_before(folder.path(), "words"));
    eventually("it is compiled", || (host.client().get("/v1/plugins/second").status == 200).then_some(()));
    works(&host, "second/count");
}

#[test]
fn a_full_cache_disk_is_tried_again_until_there_is_room() {
    const FULL: &[&str] = &["prlimit", "--fsize=300000:unlimited"];
    let cache = tempfile::tempdir().expect("a folder");
    let cache = cache.path().join("c");
    let host = Setup::default().plugin("words").variable("WHARF__CACHE_DIR", &cache).under(FULL).start();
    let refused = refusal(&host, "words").expect("it does not fit");
    assert!(refused["problems"][0].to_string().contains("could not write to the cache folder"), "{refused}");
    assert!(refused["retry"].is_string(), "{refused}");
    let listed = host.cli(&["plugin", "list"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("is loaded again later"), "{listed:?}");
    let job = json!({ "task": "words/count", "payload": { "text": "a" } });
    let reply = host.client().post("/v1/jobs", &job);
    assert_eq!((reply.status, reply.json()["code"].as_str()), (503, Some("plugin-loading")), "{reply:?}");
    let again =
        eventually("it was tried again", || refusal(&host, "words").filter(|again| again["retry"] != refused["retry"]));
    assert_eq!(again["since"], refused["since"], "it is the same failure");
    let raised = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &host.pid().to_string()]).output();
    assert!(raised.expect("prlimit runs").status.success());
    eventually("it is loaded", || host.client().get("/v1/plugins/words").ok()["loaded"].is_object().then_some(()));
    assert_eq!(refusal(&host, "words"), None);
    works(&host, "words/count");
    assert_eq!(host.says("it is loaded again later").matches("it is loaded again later").count(), 1, "{}", host.said());
}

#[test]
fn a_compiler_that_is_killed_from_outside_is_started_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Setup::default().plugin("words").start();
    host.put_plugin("killed", &not_compiled_before(folder.path(), "villain"));
    let child = eventually("it is compiled", || child_of(host.pid()));
    let _killed = Command::new("kill").args(["-KILL", &child.to_string()]).output();
    eventually("it is loaded all the same", || {
        let plugin = host.client().get("/v1/plugins/killed");
        (plugin.status == 200 && plugin.json()["loaded"].is_object()).then_some(())
    });
}

#[test]
fn the_cache_stays_within_its_bound_and_keeps_what_is_in_use() {
    let (folder, cache) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let cache = cache.path().join("c");
    let bytes = || files_in(&cache).iter().filter_map(|file| fs::metadata(file).ok()).map(|about| about.len()).sum();
    let setup = || Setup::default().variable("WHARF__CACHE_DIR", &cache);
    let code = |cache: &Path| files_in(cache).into_iter().filter(|file| file.extension().is_some_and(|e| e == "cwasm"));
    // Another host that uses what is oldest.
    let other = setup().plugin("words").start();
    let used: Vec<PathBuf> = code(&cache).collect();
    let one: u64 = bytes();
    for file in files_in(&cache) {
        let long_ago = SystemTime::now() - Duration::from_secs(90 * 24 * 3600);
        fs::File::open(file).and_then(|file| file.set_modified(long_ago)).expect("its own");
    }
    let max = (2 * one + one / 2).max(1 << 20);
    let mut host = setup().variable("WHARF__CACHE_MAX", max.to_string()).start();
    for number in 0..8 {
        host.put_plugin("changing", &not_compiled_before(folder.path(), "words"));
        let digest = |host: &Host| host.client().get("/v1/plugins/changing").json()["loaded"]["digest"].clone();
        let before = digest(&host);
        eventually("it is loaded", || (digest(&host) != before).then_some(()));
        works(&host, "changing/count");
        assert!(bytes() <= max.max(3 * one), "{number}: {} of {max}", bytes());
        assert!(used.iter().all(|file| file.exists()), "{number}: what another host uses was deleted");
    }
    works(&other, "words/count");
    let left = code(&cache).count();
    assert!((2..=1 + usize::try_from(max / one).expect("few")).contains(&left), "{left}");
    // What the host itself used last is there at its next start.
    assert_eq!(host.terminate(), Some(0));
    host.start();
    eventually("it is loaded", || host.is_ready().then_some(()));
    assert_eq!(code(&cache).count(), left, "nothing was compiled");
    assert!(!host.said().contains("compiling"), "{}", host.said());
}
