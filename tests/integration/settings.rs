//! Settings that change while the host runs: what acts at once, what waits for a restart, and what is refused.

use serde_json::{Value, json};

use crate::harness::{Host, Setup, component, eventually, shared_address};

const KV: &str = "[plugins.villain-kv]\nkv = true\n";

fn settings(host: &Host) -> String {
    std::fs::read_to_string(host.dir().join("wharf.toml")).expect("it is there")
}

/// Counts how often the host has read its settings again, with this result.
fn reloads(host: &Host, result: &str) -> f64 {
    host.metric(&format!("wharf_settings_reloads_total{{result=\"{result}\"}}")).unwrap_or_default()
}

/// Replaces the settings by rename, asks for them, and waits until they were read with this result.
#[track_caller]
fn put(host: &Host, text: &str, result: &str) {
    let before = reloads(host, result);
    let temporary = host.dir().join("wharf.toml.new");
    std::fs::write(&temporary, text).expect("written");
    std::fs::rename(&temporary, host.dir().join("wharf.toml")).expect("renamed");
    host.signal("-HUP");
    eventually(&format!("the settings are {result}"), || (reloads(host, result) > before).then_some(()));
}

/// Waits for a line in the log, which has a thread of its own.
fn is_said(host: &Host, text: &str) {
    eventually(&format!("the host says {text}"), || host.said().contains(text).then_some(()));
}

fn config(host: &Host) -> Value {
    host.client().get("/v1/config").ok()
}

/// A setting that the host has, and where it is from.
fn holds(host: &Host, key: &str) -> Option<(String, String)> {
    let config = config(host);
    let setting = config["settings"].as_array()?.iter().find(|setting| setting["key"] == key)?;
    Some((setting["value"].as_str()?.to_owned(), setting["from"].as_str()?.to_owned()))
}

fn plugin(host: &Host, id: &str) -> Value {
    host.client().get(&format!("/v1/plugins/{id}")).json()
}

#[track_caller]
fn is_loaded(host: &Host, id: &str) {
    eventually(&format!("{id} is loaded"), || plugin(host, id)["loaded"].is_object().then_some(()));
}

#[test]
fn a_grant_loads_the_plugin_that_was_refused_without_it_and_its_loss_refuses_it_again() {
    let host = Setup::default().plugin("villain-kv").plugin("words").start();
    let without = settings(&host);
    let refused = plugin(&host, "villain-kv");
    assert!(refused["refused"]["problems"][0].as_str().is_some_and(|text| text.contains("kv = true")), "{refused}");
    // By the watch of the file alone.
    std::fs::write(host.dir().join("wharf.toml"), format!("{without}{KV}")).expect("written in place");
    is_loaded(&host, "villain-kv");
    let job = host.run("villain-kv/do", json!({ "steps": [{ "add": "n" }] }));
    assert_eq!(job["state"], "succeeded", "{job}");

    let waiting = host.enqueue_with(json!({ "task": "villain-kv/do", "payload": { "steps": [] }, "delay": "3s" }));
    put(&host, &without, "applied");
    let refused = plugin(&host, "villain-kv");
    assert!(refused["loaded"].is_null(), "{refused}");
    assert!(refused["refused"]["problems"][0].as_str().is_some_and(|text| text.contains("kv = true")), "{refused}");
    let listed = host.cli(&["plugin", "list"]).output().expect("it runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("(`kv`) is not granted") && listed.contains("words"), "{listed}");
    is_said(&host, "plugins refused `villain-kv`");
    assert_eq!(host.run("words/count", json!({ "text": "a" }))["state"], "succeeded");
    eventually("its job waits for it", || (host.job(&waiting)["wait"]["reason"] == "plugin-absent").then_some(()));
    put(&host, &format!("{without}{KV}"), "applied");
    assert_eq!(host.finished(&waiting)["state"], "succeeded");
}

#[test]
fn what_is_taken_away_ends_a_running_attempt_at_its_next_host_call_and_costs_its_job_nothing() {
    let host = Setup::default().plugin("villain-kv").settings(KV).start();
    let with = settings(&host);
    // It asks again and again, and would for minutes.
    let ask =
        json!({ "steps": [{ "set": ["k", "of the first"] }, { "ask": { "key": "k", "times": 2_000_000_000u32 } }] });
    let id = host.enqueue("villain-kv/do", ask);
    // This one leaves its host alone, and so ends by itself, but what it has set is not kept.
    let sets = json!({ "steps": [{ "set": ["late", "x"] }, { "sleep": 5000 }] });
    let sleeper = host.enqueue("villain-kv/do", sets);
    host.in_state(&id, "running");
    host.in_state(&sleeper, "running");
    put(&host, &with.replace("kv = true", "kv = false"), "applied");
    let given_back = |id: &str| {
        let job = host.in_state(id, "waiting");
        let counts = (job["attempt"].as_u64(), job["failures"].as_u64(), job["crashes"].as_u64());
        assert_eq!(counts, (Some(1), Some(0), Some(0)), "{job}");
        assert_eq!(job["report"]["outcome"], "interrupted", "{job}");
        let text = job["report"]["text"].as_str().expect("a text");
        assert!(text.contains("new settings grant plugin `villain-kv` less") && text.contains("kv"), "{text}");
    };
    given_back(&id);
    given_back(&sleeper);
    host.client().post(&format!("/v1/jobs/{id}/cancel"), &json!({})).ok();
    host.client().post(&format!("/v1/jobs/{sleeper}/cancel"), &json!({})).ok();
    put(&host, &with, "applied");
    is_loaded(&host, "villain-kv");
    let job = host.run("villain-kv/do", json!({ "steps": [{ "get": "k" }, { "get": "late" }] }));
    assert_eq!(host.result(job["id"].as_str().expect("an id")), json!([null, null]), "neither success was recorded");
}

#[test]
fn an_attempt_goes_on_as_it_began_where_nothing_is_taken_from_it() {
    let of = |n: u32| format!("[plugins.villain-kv]\nkv = true\nconfig = {{ n = \"{n}\" }}\nenv = {{ N = \"{n}\" }}\n");
    let host = Setup::default().plugin("villain-kv").settings(&of(1)).start();
    let steps = json!({ "steps": [{ "config": "n" }, { "sleep": 4000 }, { "config": "n" }, { "env": "N" }] });
    let id = host.enqueue("villain-kv/do", steps);
    host.in_state(&id, "running");
    let text = settings(&host).replace(&of(1), &of(2));
    put(&host, &text, "applied");
    let new = host.run("villain-kv/do", json!({ "steps": [{ "config": "n" }, { "env": "N" }] }));
    assert_eq!(host.result(new["id"].as_str().expect("an id")), json!(["2", "2"]), "new attempts have the new ones");
    let job = host.finished(&id);
    assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("succeeded"), Some(1)), "{job}");
    assert_eq!(host.result(&id), json!(["1", null, "1", "1"]));
}

#[test]
fn a_folder_that_is_taken_away_is_closed_to_the_attempt_that_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let grant = format!("[plugins.villain]\ndirs = [{{ host = \"{}\", guest = \"/in\" }}]\n", folder.path().display());
    let host = Setup::default().plugin("villain").settings(&grant).start();
    let with = settings(&host);
    let id = host.enqueue("villain/slow", json!({ "do": "emit-when-told", "dir": "/in", "chunks": 2 }));
    std::fs::write(folder.path().join("0"), "").expect("written");
    std::fs::write(folder.path().join("1"), "").expect("written");
    let chunks = |id: &str| {
        let shown = host.cli(&["job", "follow", id]).output().expect("it runs");
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    let finished = host.finished(&id);
    assert_eq!(finished["state"], "succeeded", "with the grant: {finished} {}", chunks(&id));

    std::fs::remove_file(folder.path().join("1")).expect("removed");
    let id = host.enqueue("villain/slow", json!({ "do": "emit-when-told", "dir": "/in", "chunks": 3 }));
    host.in_state(&id, "running");
    put(&host, &with.replace(&grant, ""), "applied");
    // Its first attempt was given back; the next ones find no folder.
    let job = eventually("it was begun again", || {
        let job = host.job(&id);
        (job["attempt"].as_u64() >= Some(2)).then_some(job)
    });
    assert!(job["failures"].as_u64() < job["attempt"].as_u64(), "{job}");
}

#[test]
fn limits_and_task_settings_act_at_once_and_a_job_that_waits_keeps_its_group() {
    limits_act_at_once(Setup::default());
}

#[test]
fn limits_of_a_changed_file_act_at_once_on_postgres() {
    limits_act_at_once(Setup::default().database(&shared_address()));
}

fn limits_act_at_once(setup: Setup) {
    let of = |limit: &str| format!("[plugins.villain.tasks.keyed]\nlimit = {{ {limit} }}\ntimeout = \"100s\"\n");
    let host = setup.plugin("villain").settings(&of("per-key = 1")).start();
    let text = settings(&host);
    let with = |limit: &str| text.replace(&of("per-key = 1"), &of(limit));
    let sleep = json!({ "do": "sleep", "ms": 90_000, "key": "a" });
    let jobs: Vec<String> = (0..3).map(|_| host.enqueue("villain/keyed", sleep.clone())).collect();
    host.in_state(&jobs[0], "running");
    let why = eventually("the next one waits", || {
        let job = host.job(&jobs[1]);
        (job["wait"]["reason"] == "lane-full").then_some(job)
    });
    assert_eq!(why["group"], "villain/keyed", "{why}");
    put(&host, &with("per-key = 2"), "applied");
    host.in_state(&jobs[1], "running");

    put(&host, &with("per-key = 2, group = \"other\""), "applied");
    let new = host.enqueue("villain/keyed", sleep.clone());
    host.in_state(&new, "running");
    assert_eq!(host.job(&new)["group"], "other");
    assert_eq!(host.job(&jobs[2])["group"], "villain/keyed", "it keeps the group of its enqueue");

    // An operator's word, which the store keeps, goes before the file.
    host.client().put("/v1/limits?group=other", &json!({ "per_key": 1 })).ok();
    put(&host, &with("per-key = 9, group = \"other\""), "applied");
    let limits = host.client().get("/v1/limits").ok();
    let other =
        limits.as_array().and_then(|all| all.iter().find(|limit| limit["group"] == "other")).expect("the group");
    assert_eq!((other["declared"]["per_key"].as_u64(), other["per_key"].as_u64()), (Some(9), Some(1)), "{other}");
    let held = host.enqueue("villain/keyed", sleep);
    eventually("the operator's limit holds", || (host.job(&held)["wait"]["reason"] == "lane-full").then_some(()));

    put(&host, &with("per-key = 1").replace("100s", "300ms"), "applied");
    let short = host.run("villain/keyed", json!({ "do": "sleep", "ms": 90_000, "key": "b" }));
    assert_eq!(short["report"]["outcome"], "timed-out", "{short}");
}

#[test]
fn more_jobs_may_wait_as_soon_as_the_settings_say_so() {
    let host = Setup::default().plugin("words").settings("[jobs]\nwaiting-max = 2\n").start();
    let later = || json!({ "task": "words/count", "payload": { "text": "a" }, "delay": "1h" });
    assert_eq!(host.client().post("/v1/jobs", &json!([later(), later()])).status, 202);
    assert_eq!(host.client().post("/v1/jobs", &later()).status, 429);
    put(&host, &settings(&host).replace("waiting-max = 2", "waiting-max = 3"), "applied");
    assert_eq!(host.client().post("/v1/jobs", &later()).status, 202);
    is_said(&host, "settings changed `jobs.waiting-max`");
}

#[test]
fn the_log_level_acts_at_once() {
    let host = Setup::default().plugin("words").settings("[log]\nlevel = \"info\"\n").start();
    let text = settings(&host);
    let debug_lines = |id: &str| host.said().lines().filter(|line| line.contains(id) && line.contains("DEBUG")).count();
    let run = || {
        let job = host.run("words/count", json!({ "text": "a" }));
        job["id"].as_str().expect("an id").to_owned()
    };
    assert_eq!(debug_lines(&run()), 0);
    put(&host, &text.replace("level = \"info\"", "level = \"info,wharf=debug\""), "applied");
    let id = run();
    eventually("what a part of the program does is logged", || (debug_lines(&id) > 0).then_some(()));
    assert!(host.said().lines().any(|line| line.contains(&id) && line.contains(" wharf::")), "it names the part");
    put(&host, &text, "applied");
    let id = run();
    // The log is in order: what is logged later is written later.
    put(&host, &format!("{text}# again\n"), "applied");
    assert_eq!(debug_lines(&id), 0);
}

#[test]
fn a_mistake_leaves_what_holds_and_is_told_with_its_place() {
    let grant = "[plugins.words]\nenv = { A = \"1\" }\n";
    let host = Setup::default().plugin("words").settings(grant).start();
    let good = settings(&host);
    let lines = good.lines().count();
    let refused = |host: &Host| config(host)["refused"].clone();
    assert!(refused(&host).is_null());
    for (wrong, place, says) in [
        ("[plugins.words]\nhttp = [\"x\"]\n", 0, ""),
        ("[plugins.other]\nhttp = [\"x\"]\n", 2, "invalid place `x`"),
        ("[attempts]\nat-once = \"many\"\n", 2, "`attempts.at-once`"),
        (
            "[plugins.words.tasks.cuont]\nmemory = \"64MiB\"\n",
            2,
            "plugin `words` cannot have these settings: settings: unknown task",
        ),
        ("[plugins.words.tasks.count]\nmemory = \"1TiB\"\n", 2, "tasks.count.memory: "),
        ("[plugins.words.tasks.count]\nretry = { attempts = 0 }\n", 2, "tasks.count.retry.attempts: 0 is out of range"),
    ] {
        // With the loss of a grant, which does not happen either.
        put(&host, &format!("{}{wrong}", good.replace("A = \"1\"", "")), "refused");
        let why = refused(&host)["why"].as_str().expect("a reason").to_owned();
        if place > 0 {
            assert!(why.starts_with(&format!("wharf.toml:{}:", lines + place)), "{why}");
        }
        assert!(why.contains(says), "{why}");
        let first = why.lines().next().unwrap_or_default();
        is_said(&host, &format!("refused wharf.toml, and everything stays as it was: {first}"));
        assert!(holds(&host, "plugins.words.env.A").is_some());
        assert_eq!(host.run("words/count", json!({ "text": "a" }))["state"], "succeeded");
    }
    let shown = host.cli(&["config", "--host"]).output().expect("it runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("refused ") && shown.contains("0 is out of range"),
        "the file in this folder is the wrong one: {shown}"
    );
    std::fs::remove_file(host.dir().join("wharf.toml")).expect("removed");
    eventually("it is told that the file is gone", || {
        refused(&host)["why"].as_str().is_some_and(|why| why.contains("the file is gone")).then_some(())
    });
    assert!(holds(&host, "plugins.words.env.A").is_some());
    put(&host, &good, "applied");
    assert!(refused(&host).is_null());
}

#[test]
fn a_file_that_a_plugin_refuses_is_taken_once_there_is_a_plugin_that_it_fits() {
    let host = Setup::default().plugin("words").start();
    put(&host, &format!("{}[plugins.words.tasks.do]\ntimeout = \"3s\"\n", settings(&host)), "refused");
    assert_eq!(reloads(&host, "applied"), 0.0);
    host.put_plugin("words", &component("villain"));
    eventually("the settings are taken", || (reloads(&host, "applied") == 1.0).then_some(()));
    assert!(config(&host)["refused"].is_null());
    assert_eq!(reloads(&host, "refused"), 1.0, "it was told once");
    assert!(plugin(&host, "words")["loaded"]["tasks"].as_array().map_or(0, Vec::len) > 5);
}

#[test]
fn what_needs_a_restart_is_named_and_what_holds_is_shown_without_secrets() {
    let secrets = "[plugins.words]\nenv = { KEY = \"secret-one\" }\nconfig = { key = \"secret-two\" }\n";
    let host = Setup::default().plugin("words").token("the-secret-token").settings(secrets).start();
    let more = "[attempts]\nat-once = 7\n[lease]\nlength = \"40s\"\n";
    put(&host, &format!("{}{more}", settings(&host)), "applied");
    eventually("it is told", || {
        let text = "changed settings take effect when the host is started again: `attempts.at-once`, `lease.length`";
        host.said().contains(text).then_some(())
    });
    let shown = config(&host);
    assert_eq!(shown["restart"], json!(["attempts.at-once", "lease.length"]), "{shown}");
    assert_eq!(holds(&host, "attempts.at-once"), Some(("256".to_owned(), "default".to_owned())));
    let line = settings(&host).lines().position(|line| line.starts_with("env = ")).expect("a line") + 1;
    assert_eq!(holds(&host, "plugins.words.env.KEY"), Some(("(set)".to_owned(), format!("wharf.toml:{line}:15"))));
    let listed = host.cli(&["config", "--host"]).output().expect("it runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("attempts.at-once, lease.length") && listed.contains("plugins.words.env.KEY"), "{listed}");
    let plain = host.cli(&["config"]).output().expect("it runs");
    let plain = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(plain.lines().any(|line| line.starts_with("attempts.at-once") && line.contains(" 7 ")), "{plain}");
    for secret in ["the-secret-token", "secret-one", "secret-two"] {
        assert!(!shown.to_string().contains(secret) && !listed.contains(secret) && !host.said().contains(secret));
    }
    let json = host.cli(&["config", "--host", "--json"]).output().expect("it runs");
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).expect("JSON")["digest"], shown["digest"]);
}

#[test]
fn a_file_behind_links_is_seen_when_they_lead_elsewhere() {
    let host = Setup::default().plugin("words").start();
    let (dir, text) = (host.dir().to_owned(), settings(&host));
    let version = |n: u32| format!("{text}[jobs]\nwaiting-max = {n}\n");
    for n in [1, 2] {
        std::fs::create_dir(dir.join(format!("..v{n}"))).expect("made");
        std::fs::write(dir.join(format!("..v{n}/wharf.toml")), version(n)).expect("written");
    }
    let link = |to: &str, from: &str| {
        let temporary = dir.join("link.new");
        std::os::unix::fs::symlink(to, &temporary).expect("linked");
        std::fs::rename(temporary, dir.join(from)).expect("renamed");
    };
    let becomes = |n: &str| {
        eventually(&format!("it is {n}"), || {
            holds(&host, "jobs.waiting-max").is_some_and(|(value, _)| value == n).then_some(())
        });
    };
    link("..v1", "..data");
    link("..data/wharf.toml", "wharf.toml");
    becomes("1");
    link("..v2", "..data");
    becomes("2");
    link("..v1", "..data");
    becomes("1");
    std::fs::write(dir.join("..v1/wharf.toml"), version(3)).expect("written in place");
    becomes("3");
}

#[test]
fn hosts_show_if_their_settings_agree() {
    let address = shared_address();
    let grant = "[plugins.words]\nhttp = [\"https://a.example\"]\n";
    let setup = || Setup::default().plugin("words").settings(grant).database(&address);
    let (first, second) = (setup().start(), setup().start());
    let digests = || -> Vec<String> {
        let nodes = first.client().get("/v1/nodes").ok();
        let nodes = nodes.as_array().expect("a list").iter();
        nodes.filter_map(|node| node["settings"].as_str().map(str::to_owned)).collect()
    };
    let both = eventually("both are known", || Some(digests()).filter(|digests| digests.len() == 2));
    assert_eq!(both[0], both[1], "whatever their addresses and folders");
    assert_eq!(config(&first)["digest"], both[0]);
    let text = settings(&second);
    put(&second, &text.replace("a.example", "b.example"), "applied");
    let differ = eventually("they differ", || Some(digests()).filter(|digests| digests[0] != digests[1]));
    let listed = first.cli(&["node", "list"]).output().expect("it runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("SETTINGS") && differ.iter().all(|digest| listed.contains(&digest[..8])), "{listed}");
    put(&second, &text, "applied");
    eventually("they agree again", || (digests()[0] == digests()[1]).then_some(()));
}

#[test]
fn jobs_that_the_budget_cannot_hold_wait_and_run_once_their_settings_fit_it() {
    let budget = "[memory]\nbudget = \"256MiB\"\n";
    let host = Setup::default().settings(budget).plugin("villain").start();
    let without = settings(&host);
    let hold = || host.run("villain/slow", json!({ "do": "hold-mib", "mib": 100 }));
    assert_eq!(hold()["state"], "failed", "its manifest has an eighth");
    let grant = |memory: &str| format!("{without}[plugins.villain.tasks.slow]\nmemory = \"{memory}\"\n");
    put(&host, &grant("900MiB"), "applied");
    is_said(&host, "tasks.slow.memory: 900.0 MiB is more than one attempt can have of this host's budget");
    let too_large = host.enqueue("villain/slow", json!({ "do": "hold-mib", "mib": 100 }));
    eventually("it says why it waits", || (host.job(&too_large)["wait"]["reason"] == "too-large").then_some(()));
    put(&host, &grant("150MiB"), "applied");
    for held in [host.finished(&too_large), hold()] {
        assert_eq!(held["state"], "succeeded", "{held}");
    }
    // The budget itself is one of the machine, and needs a restart.
    put(&host, &grant("150MiB").replace("256MiB", "512MiB"), "applied");
    let metric = |host: &Host| host.metric("wharf_memory_budget_bytes");
    assert_eq!(metric(&host), Some(f64::from(256 << 20)));
    eventually("it says so", || host.said().contains("started again: `memory.budget`").then_some(()));
}
