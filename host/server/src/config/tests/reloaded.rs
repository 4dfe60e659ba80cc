//! Settings that are read again: what differs, what hosts should share, and where a plugin's problem is.

use wharf_engine::Problem;

use super::World;
use crate::config::{RawSettings, shown};

const WORDS: &str = "\
[plugins.words]
http = [\"https://a.example\"]
env = { TOKEN = \"secret-1\" }
dirs = [{ host = \"/srv/a\", guest = \"/a\" }]
[plugins.words.tasks.count]
memory = \"64MiB\"
limit = { per-key = 2, total = 8 }
[plugins.words.tasks.cuont]
memory = \"64MiB\"
";

fn raw(file: &str) -> RawSettings {
    World::new(file).read().unwrap().1
}

fn digest(file: &str) -> String {
    let (settings, raw) = World::new(file).read().unwrap();
    settings.live_settings(&raw).digest
}

#[test]
fn a_problem_of_a_plugin_is_at_the_value_that_it_names() {
    let raw = raw(WORDS);
    let place = |what: &str| {
        let found = [("words".parse().unwrap(), vec![Problem::new(what)])];
        raw.problems_of_plugins(&found).to_string()
    };
    for (what, at) in [
        ("settings: unknown task [plugins.words.tasks.cuont]", "wharf.toml:9:10: "),
        ("tasks.count.memory: 64 MiB is out of range", "wharf.toml:6:10: "),
        ("tasks.count.limit.group: invalid group", "wharf.toml:7:21: "),
        ("tasks.other.memory: out of range", "wharf.toml:1:10: "),
        ("it has topics, but it does not export it", "wharf.toml:1:10: "),
    ] {
        let text = place(what);
        assert!(text.starts_with(at) && text.contains("plugin `words` cannot have these settings: "), "{at} {text}");
    }
    let gone = [("gone".parse().unwrap(), vec![Problem::new("x")])];
    assert_eq!(raw.problems_of_plugins(&gone).to_string(), "plugin `gone` cannot have these settings: x");
}

#[test]
fn what_needs_a_restart_stays_and_the_rest_is_replaced() {
    let started = raw("store = \"memory:\"\n[jobs]\nwaiting-max = 5\n[lease]\nlength = \"30s\"\n");
    let new = raw(&format!("store = \"sqlite:x\"\n[jobs]\nwaiting-max = 6\n[log]\nlevel = \"debug\"\n{WORDS}"));
    assert_eq!(started.keys_for_restart(&new), ["store"], "a default that is written is no change");
    assert_eq!(started.live_keys_that_differ(&new), ["jobs.waiting-max", "log.level", "plugins.words"]);
    let held = new.over(&started);
    let of = |key| held.of(key).0;
    assert_eq!((of("store"), of("jobs.waiting-max"), of("log.level")), ("memory:", "6", "debug"));
    assert_eq!(held.plugins.len(), 1);
}

#[test]
fn hosts_share_a_digest_unless_something_differs_that_they_should_share() {
    let same = |one: &str, other: &str| assert_eq!(digest(one), digest(other), "{one}\n{other}");
    let other = |one: &str, other: &str| assert_ne!(digest(one), digest(other), "{one}\n{other}");
    same("", "listen = \"127.0.0.1:1\"\nstore = \"memory:\"\ntoken = \"a-long-enough-token\"\nplugins-dir = \"p\"\n");
    same("", "[attempts]\nat-once = 3\nguest-threads = 2\n[log]\nlevel = \"debug\"\n[lease]\nlength = \"30s\"\n");
    same("", "[plugins.words]\n");
    same(WORDS, &WORDS.replace("secret-1", "secret-2"));
    same(WORDS, &WORDS.replace("/srv/a", "/srv/b"));
    same(WORDS, &WORDS.replace("per-key = 2, total = 8", "total = 8,  per-key = 2"));
    same("[plugins.a]\nkv = true\n[plugins.b]\nkv = true\n", "[plugins.b]\nkv = true\n[plugins.a]\nkv = true\n");
    other("", "[lease]\nlength = \"31s\"\n");
    other("", "[jobs]\nwaiting-max = 5\n");
    other("", WORDS);
    other(WORDS, &WORDS.replace("per-key = 2", "per-key = 3"));
    other(WORDS, &WORDS.replace("a.example", "b.example"));
    other(WORDS, &WORDS.replace("TOKEN", "KEY"));
    other(WORDS, &WORDS.replace("guest = \"/a\"", "guest = \"/b\""));
    let token = |can: &str, hash: char| {
        let hash = hash.to_string().repeat(64);
        format!("[[tokens]]\nname = \"ci\"\nhash = \"sha256:{hash}\"\ncan = [\"{can}\"]\n")
    };
    same(&token("read", 'a'), &token("read", 'b'));
    other(&token("read", 'a'), &token("operate", 'a'));
    other("", &token("read", 'a'));
}

#[test]
fn what_is_shown_has_no_secret() {
    let file = format!("token = \"a-long-enough-token\"\nstore = \"postgres://me:secret-3@db/jobs\"\n{WORDS}");
    let text = format!("{:?}", shown(&raw(&file)));
    for secret in ["a-long-enough-token", "secret-1", "secret-3"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(text.contains("plugins.words.env.TOKEN") && text.contains("(set)"), "{text}");
}
