//! What a host answers about plugins that it does not have yet: it says so, and nobody loses a job by it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Host, Reply, Setup, component, eventually, eventually_within};

/// A component that no cache has: with a section more, which says nothing.
pub(crate) fn not_compiled_before(folder: &Path, guest: &str) -> PathBuf {
    let mut bytes = std::fs::read(component(guest)).expect("the component");
    let note: Vec<u8> = [&[4][..], b"note"].concat().into_iter().chain(fastrand::u128(..).to_le_bytes()).collect();
    bytes.extend([0, u8::try_from(note.len()).expect("short")]);
    bytes.extend(note);
    let file = folder.join(format!("{guest}-{}.wasm", fastrand::u64(..)));
    std::fs::write(&file, bytes).expect("written");
    file
}

/// Ends what looks at it, also where the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A process that compiles, kept from going on.
pub(crate) struct Held(i32);

impl Held {
    /// Stops the one process that compiles for a host.
    pub(crate) fn of(host: &Host) -> Held {
        let child = eventually("something is compiled", || child_of(host.pid()));
        kill("-STOP", child);
        Held(child)
    }

    /// Lets it go on, and waits until all is compiled: on a machine that does much else that takes a while.
    pub(crate) fn go_on(self, host: &Host) {
        kill("-CONT", self.0);
        eventually_within(Duration::from_secs(240), "all plugins are loaded", || {
            (host.is_ready() && child_of(host.pid()).is_none()).then_some(())
        });
    }
}

impl Drop for Held {
    /// One that was let go on may be gone.
    fn drop(&mut self) {
        if std::thread::panicking() {
            kill("-KILL", self.0);
        }
    }
}

fn kill(signal: &str, pid: i32) {
    let _may_be_gone = std::process::Command::new("kill").args([signal, &pid.to_string()]).output();
}

/// Returns the child of a host that runs its own program. Before that it shares the host's memory, and one of the host's threads
/// waits for it: whoever stopped it then would stop the host.
pub(crate) fn child_of(host: i32) -> Option<i32> {
    let command = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let processes = std::fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
    let mut pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<i32>().ok());
        parent == Some(host) && command(*pid) != command(host)
    })
}

fn broadcast(host: &Host, topic: &str, body: &Value) -> Reply {
    host.client().post(&format!("/v1/broadcasts/{topic}"), body)
}

fn enqueue(host: &Host, job: &Value) -> Reply {
    host.client().post("/v1/jobs", job)
}

/// The answer is a 503 with this code, and says when to ask again.
#[track_caller]
fn passes(reply: &Reply, code: &str) -> Value {
    let problem = reply.json();
    assert_eq!((reply.status, problem["code"].as_str()), (503, Some(code)), "{problem}");
    assert_eq!(reply.retry_after.as_deref(), Some("1"), "{problem}");
    problem
}

fn echo(task: &str) -> Value {
    json!({ "task": task, "payload": { "do": "echo" } })
}

#[test]
fn a_host_that_has_just_started_refuses_for_a_moment_what_it_cannot_know() {
    let mut host = Setup::default().plugin("villain").start();
    let known = json!({ "task": "gone/do", "payload": { "do": "echo" }, "delay": "1h", "token": "once" });
    host.put_plugin("gone", &component("villain"));
    let id = eventually("it is loaded", || {
        let reply = enqueue(&host, &known);
        (reply.status == 202).then(|| reply.json()["id"].as_str().expect("an id").to_owned())
    });
    assert_eq!(host.terminate(), Some(0));
    std::fs::remove_file(host.plugin_file("gone")).expect("removed");

    // A file that is written to all the time is never quiet: until it is, the folder was not gone through.
    let busy = host.plugin_file("busy");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::fs::write(&busy, "not yet").expect("written");
                std::thread::park_timeout(Duration::from_millis(10));
            }
        });
        eventually("it is there", || busy.exists().then_some(()));
        let one_is_new = json!([known, { "task": "gone/do", "payload": {}, "token": "another" }]);
        let body = |durable: bool| json!({ "payload": { "do": "echo" }, "durable": durable });
        // On a machine that does much else the moment may be over before all was asked; then the host begins anew.
        let mut runs = false;
        let (unknown, answered, both) = eventually("all was asked within one moment", || {
            if std::mem::replace(&mut runs, true) {
                assert_eq!(host.terminate(), Some(0));
            }
            host.start();
            let began = std::time::Instant::now();
            let unknown = [
                enqueue(&host, &echo("nobody/do")),
                enqueue(&host, &json!([echo("nobody/do")])),
                broadcast(&host, "villain.x", &body(false)),
                broadcast(&host, "villain.x", &body(true)),
                host.client().put("/v1/limits?group=nobody%2Fdo", &json!({ "total": 1 })),
                host.client().get("/v1/plugins/nobody"),
                enqueue(&host, &one_is_new),
            ];
            let answered = enqueue(&host, &known);
            let both = enqueue(&host, &json!([known, known]));
            (began.elapsed() < Duration::from_secs(4)).then_some((unknown, answered, both))
        });
        unknown.iter().for_each(|reply| _ = passes(reply, "plugin-loading"));
        assert_eq!((answered.status, answered.json()["id"].as_str()), (200, Some(id.as_str())), "{answered:?}");
        let both = both.ok();
        assert_eq!((&both[0]["outcome"], &both[1]["id"]), (&json!("duplicate"), &json!(id)), "{both}");

        // One file does not hold up everything else for longer.
        let live = eventually("the host goes on without it", || {
            let reply = broadcast(&host, "villain.x", &json!({ "payload": { "do": "echo" } }));
            (reply.status == 200).then(|| reply.json())
        });
        assert_eq!((&live["loading"], &live["outcomes"]), (&json!(["busy"]), &json!({ "replied": 1 })), "{live}");
        let unknown = enqueue(&host, &echo("nobody/do"));
        assert_eq!((unknown.status, &unknown.json()["code"]), (422, &json!("job-invalid")), "{unknown:?}");
        let refused = passes(&broadcast(&host, "villain.x", &json!({ "durable": true })), "plugin-loading");
        assert_eq!(refused["plugins"], json!(["busy"]), "{refused}");
    });
    std::fs::remove_file(&busy).expect("removed");
    let body = json!({ "payload": { "do": "echo" }, "durable": true });
    let batch = eventually("nobody is waited for", || {
        let reply = broadcast(&host, "villain.x", &body);
        (reply.status == 202).then(|| reply.json())
    });
    assert_eq!(batch["jobs"].as_array().map(Vec::len), Some(1), "{batch}");
}

#[test]
fn a_plugin_that_is_compiled_holds_up_its_own_jobs_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut host = Setup::default().plugin("villain").plugin_as("villain", "slow").plugin("summary").start();
    let waiting = host.enqueue_with(json!({ "task": "slow/do", "payload": { "do": "echo" }, "token": "once",
        "delay": "3s" }));
    host.kill();
    std::fs::copy(not_compiled_before(folder.path(), "villain"), host.plugin_file("slow")).expect("copied");
    host.start();
    let held = Held::of(&host);
    eventually("what need not be compiled is loaded", || {
        (enqueue(&host, &echo("villain/do")).status == 202).then_some(())
    });
    assert_eq!(host.run("villain/do", json!({ "do": "echo" }))["state"], "succeeded");

    let refused = passes(&enqueue(&host, &echo("slow/do")), "plugin-loading");
    assert!(refused["detail"].to_string().contains("`slow` is still loading"), "{refused}");
    assert_eq!(refused["plugins"], json!(["slow"]), "{refused}");
    let count = || host.client().get("/v1/jobs?limit=1000").ok()["jobs"].as_array().map(Vec::len);
    let before = count();
    let both = passes(&enqueue(&host, &json!([echo("villain/do"), echo("slow/do")])), "plugin-loading");
    assert_eq!(both["problems"][0]["index"], 1, "{both}");
    assert_eq!(count(), before, "all or none");
    let mixed = enqueue(&host, &json!([echo("slow/do"), echo("nobody/do")]));
    assert_eq!(mixed.status, 422, "what never passes is told at once: {mixed:?}");
    let known = json!({ "task": "slow/do", "payload": { "do": "echo" }, "token": "once" });
    assert_eq!(enqueue(&host, &known).ok()["id"], json!(waiting), "it was acknowledged before");
    let both = enqueue(&host, &json!([echo("villain/do"), known])).ok();
    assert_eq!((&both[0]["outcome"], &both[1]["outcome"]), (&json!("added"), &json!("duplicate")), "{both}");
    assert_eq!(host.job(&waiting)["wait"]["reason"], "plugin-loading");
    passes(&host.client().put("/v1/limits?group=slow%2Fdo", &json!({ "total": 1 })), "plugin-loading");
    passes(&host.client().get("/v1/plugins/slow"), "plugin-loading");

    let live = broadcast(&host, "villain.x", &json!({ "payload": { "do": "echo" } })).ok();
    assert_eq!((&live["loading"], &live["outcomes"]), (&json!(["slow"]), &json!({ "replied": 1 })), "{live}");
    let durable = json!({ "payload": { "do": "echo" }, "durable": true });
    let refused = passes(&broadcast(&host, "villain.x", &durable), "plugin-loading");
    assert_eq!(refused["plugins"], json!(["slow"]), "{refused}");
    let shown = host.cli(&["broadcast", "villain.x", "--input", r#"{"do":"echo"}"#]).output().expect("it runs");
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.success() && said.contains("they are still loading: slow"), "{said}");

    // The command asks again until it is there.
    let mut command = host.cli(&["job", "enqueue", "slow/do", "--input", r#"{"do":"echo","payload":7}"#, "--wait"]);
    let asking = command.stdout(std::process::Stdio::piped()).spawn().expect("it runs");
    std::thread::park_timeout(Duration::from_millis(500));
    held.go_on(&host);
    let output = asking.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).trim()), (Some(0), "7"));
    assert_eq!(host.finished(&waiting)["state"], "succeeded");
    let batch = broadcast(&host, "villain.x", &durable).ok();
    assert_eq!(batch["jobs"].as_array().map(Vec::len), Some(2), "{batch}");
}

#[test]
fn an_operator_s_word_on_topics_is_known_before_the_plugin_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = "[plugins.slow]\ntopics = ['villain.slow.*']";
    let mut host = Setup::default().plugin("villain").settings(settings).start();
    host.kill();
    std::fs::copy(not_compiled_before(folder.path(), "villain"), host.plugin_file("slow")).expect("copied");
    host.start();
    let held = Held::of(&host);
    let durable = json!({ "payload": { "do": "echo" }, "durable": true });
    let batch = eventually("it is no subscriber of this topic", || {
        let reply = broadcast(&host, "villain.x", &durable);
        (reply.status == 202).then(|| reply.json())
    });
    assert_eq!(batch["jobs"].as_array().map(Vec::len), Some(1), "{batch}");
    passes(&broadcast(&host, "villain.slow.x", &durable), "plugin-loading");
    held.go_on(&host);
    assert_eq!(broadcast(&host, "villain.slow.x", &durable).ok()["jobs"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_job_that_needs_a_plugin_that_is_compiled_is_given_back_and_does_not_fail() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut host = Setup::default().plugin("villain").start();
    let child = json!([{ "task": "slow/do", "payload": { "do": "echo" } }]);
    // One attempt is all that `villain/do` has, and it discards itself where a job is not taken.
    let parent = json!({ "task": "villain/do", "payload": { "do": "enqueue", "children": child }, "delay": "3s" });
    let parent = host.enqueue_with(parent);
    host.kill();
    std::fs::copy(not_compiled_before(folder.path(), "villain"), host.plugin_file("slow")).expect("copied");
    host.start();
    let held = Held::of(&host);
    let job = eventually("it was given back", || {
        let job = host.job(&parent);
        assert_ne!(job["state"], "failed", "{job}");
        (job["state"] == "waiting" && job["attempt"] != 0).then_some(job)
    });
    assert!(job["report"]["text"].to_string().contains("`slow` is still loading"), "{job}");
    held.go_on(&host);
    let job = host.finished(&parent);
    let cost = (job["state"].as_str(), job["failures"].as_u64(), job["crashes"].as_u64());
    assert_eq!(cost, (Some("succeeded"), Some(0), Some(0)), "{job}");
    let children = host.result(&parent);
    assert_eq!(host.finished(children[0].as_str().expect("an id"))["state"], "succeeded");
}

#[test]
fn a_new_version_that_is_compiled_leaves_the_old_one_what_it_has() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let host = Setup::default().plugin("villain").start();
    host.put_plugin("villain", &not_compiled_before(folder.path(), "villain"));
    let held = Held::of(&host);
    assert_eq!(host.run("villain/do", json!({ "do": "echo" }))["state"], "succeeded");
    // It may have a task that the old one does not.
    passes(&enqueue(&host, &echo("villain/brand-new")), "plugin-loading");
    let live = broadcast(&host, "villain.x", &json!({ "payload": { "do": "echo" } })).ok();
    assert_eq!((&live["loading"], &live["outcomes"]), (&Value::Null, &json!({ "replied": 1 })), "{live}");
    let batch = broadcast(&host, "villain.x", &json!({ "payload": { "do": "echo" }, "durable": true })).ok();
    assert_eq!(batch["jobs"].as_array().map(Vec::len), Some(1), "{batch}");
    held.go_on(&host);
    eventually("it is known what it has", || (enqueue(&host, &echo("villain/brand-new")).status == 422).then_some(()));
}

#[test]
fn small_files_are_compiled_first_and_what_was_compiled_waits_for_none_of_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut host = Setup::default().plugin("words").start();
    host.kill();
    // By name the large one is first.
    for (guest, id) in [("villain", "a-large"), ("word-index", "b-small"), ("summary", "c-middle")] {
        std::fs::copy(not_compiled_before(folder.path(), guest), host.plugin_file(id)).expect("copied");
    }
    let size = |id: &str| std::fs::metadata(host.plugin_file(id)).expect("it is there").len();
    let mut by_size = ["a-large", "b-small", "c-middle"];
    by_size.sort_by_key(|id| size(id));
    host.start();
    let held = Held::of(&host);
    eventually("what was compiled before is loaded", || {
        (enqueue(&host, &json!({ "task": "words/count", "payload": { "text": "a" } })).status == 202).then_some(())
    });
    held.go_on(&host);
    let expected = [&["words"][..], &by_size].concat();
    let loaded = eventually("all are told", || {
        let said = host.said();
        let names = said.lines().filter_map(|line| line.split_once("loaded plugin ")?.1.split(' ').next());
        let names: Vec<String> = names.map(str::to_owned).collect();
        (names.len() >= expected.len()).then_some(names)
    });
    assert_eq!(loaded, expected, "{}", host.said());
}
