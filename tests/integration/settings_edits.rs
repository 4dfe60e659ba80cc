//! Random edits of the settings under load: no attempt has half of a file, and no job fails for any of them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::harness::{Client, Host, Setup, eventually};

/// The number of edits, unless `SETTINGS_EDITS` names another.
const EDITS: u64 = 60;
const CLIENTS: usize = 3;

/// The setting that has the number of the edit, and that the host shows.
const NUMBER: &str = "jobs.waiting-max";

/// A file with the number `n` in five places, and the rest by chance.
fn version(top: &str, n: u64) -> String {
    let mut text = format!(
        "{top}[plugins.villain-kv]\nkv = true\nconfig = {{ a = \"{n}\", b = \"{n}\" }}\nenv = {{ A = \"{n}\", B = \"{n}\" }}\n"
    );
    if fastrand::bool() {
        text += "http = [\"https://a.example\"]\n";
    }
    if fastrand::bool() {
        text += "dirs = [{ host = \"/\", guest = \"/all\" }]\n";
    }
    let [per_key, memory] = [fastrand::u32(2..9), fastrand::u32(16..64)];
    text += &format!("[plugins.villain-kv.tasks.do]\nlimit = {{ total = {per_key} }}\nmemory = \"{memory}MiB\"\n");
    if fastrand::bool() {
        text += "[plugins.changes]\nkv = true\n";
    }
    text += &format!("[jobs]\nwaiting-max = {}\n", 1000 + n);
    text + &format!("[log]\nlevel = \"{}\"\n", ["info", "warn", "info,wharf_engine=debug"][fastrand::usize(..3)])
}

/// Makes a mistake somewhere in a file.
fn broken(text: &str) -> String {
    let line_starts: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    let at = line_starts[fastrand::usize(..line_starts.len())];
    let mistakes =
        ["[[[\n", "nonsense = 1\n", "= \n", "\"open\n", "[plugins.villain-kv.tasks.od]\nmemory = \"1MiB\"\n"];
    match fastrand::usize(..mistakes.len()) {
        // A table in the middle would end the one before it.
        last if last + 1 == mistakes.len() => format!("{text}{}", mistakes[last]),
        other => format!("{}{}{}", &text[..at], mistakes[other], &text[at..]),
    }
}

fn link(to: &str, from: &Path) {
    let temporary = from.with_file_name("link.new");
    std::os::unix::fs::symlink(to, &temporary).expect("linked");
    std::fs::rename(temporary, from).expect("renamed");
}

/// Brings a text into the settings file in one of the ways of the world.
fn bring(host: &Host, text: &str, number: u64) {
    let dir = host.dir();
    let file = dir.join("wharf.toml");
    match fastrand::u32(..3) {
        // The file may be a link by now, whose target is written.
        0 => std::fs::write(&file, text).expect("written in place"),
        1 => {
            let temporary = dir.join("wharf.toml.new");
            std::fs::write(&temporary, text).expect("written");
            std::fs::rename(&temporary, &file).expect("renamed");
        }
        _ => {
            let version = format!("..v{number}");
            std::fs::create_dir(dir.join(&version)).expect("made");
            std::fs::write(dir.join(&version).join("wharf.toml"), text).expect("written");
            link(&version, &dir.join("..data"));
            link("..data/wharf.toml", &file);
        }
    }
}

fn refusals(host: &Host) -> f64 {
    host.metric("wharf_settings_reloads_total{result=\"refused\"}").unwrap_or_default()
}

/// Returns true if the host has the file of this edit. A count of what was read would not tell: a signal may be late, and
/// have the file of the edit before read once more.
fn holds(host: &Host, number: u64) -> bool {
    let config = host.client().get("/v1/config").ok();
    let shown = (1000 + number).to_string();
    let is_it = |setting: &Value| setting["key"] == NUMBER && setting["value"] == shown;
    config["settings"].as_array().expect("a list").iter().any(is_it)
}

/// Ends the load when it is dropped, also by a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs one job that reads the number in four places, and returns it.
fn read_number(client: &Client) -> u64 {
    let read = [json!({ "config": "a" }), json!({ "env": "A" })];
    let read_again = [json!({ "config": "b" }), json!({ "env": "B" })];
    let pause = json!({ "sleep": fastrand::u64(..300) });
    let steps: Vec<Value> = read.into_iter().chain([pause]).chain(read_again).collect();
    let reply = client.post("/v1/jobs?wait=60s", &json!({ "task": "villain-kv/do", "payload": { "steps": steps } }));
    let result = reply.ok();
    let numbers: Vec<&str> = [0, 1, 3, 4].iter().map(|at| result[at].as_str().expect("a number")).collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "half of a file: {result}");
    numbers[0].parse().expect("a number")
}

#[test]
fn no_attempt_has_half_of_a_file_and_no_job_fails_for_an_edit() {
    let edits = std::env::var("SETTINGS_EDITS").ok().and_then(|text| text.parse().ok()).unwrap_or(EDITS);
    let host =
        Setup::default().plugin("villain-kv").plugin("changes").settings("[plugins.villain-kv]\nkv = true\n").start();
    let top = std::fs::read_to_string(host.dir().join("wharf.toml")).expect("it is there");
    let top = top.split("[plugins.").next().expect("the top").to_owned();
    std::fs::write(host.dir().join("wharf.toml"), version(&top, 0)).expect("written");
    eventually("the first version holds", || holds(&host, 0).then_some(()));
    let (stop, ran) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut good, mut last) = (1, 0);
    std::thread::scope(|scope| {
        let _end = End(&stop);
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    read_number(host.client());
                    ran.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1..=edits {
            let before = refusals(&host);
            let text = version(&top, number);
            let is_broken = fastrand::u32(..3) == 0;
            bring(&host, &if is_broken { broken(&text) } else { text }, number);
            // Some are found by the host alone.
            if fastrand::u32(..6) > 0 {
                host.signal("-HUP");
            }
            eventually(&format!("edit {number} is read, broken: {is_broken}"), || {
                let is_read = if is_broken { refusals(&host) > before } else { holds(&host, number) };
                is_read.then_some(())
            });
            if !is_broken {
                (good, last) = (good + 1, number);
            }
        }
    });
    assert_eq!(read_number(host.client()), last, "what was read last holds");
    let failed = host.client().get("/v1/jobs?state=failed").ok();
    assert_eq!(failed["jobs"], json!([]), "{failed}");
    println!("{} jobs during {edits} edits, {good} of them good", ran.load(Ordering::Relaxed));
    assert!(ran.load(Ordering::Relaxed) > edits / 2, "there was load");
}
