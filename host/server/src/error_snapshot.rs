//! A snapshot of error texts on one page, to review their wording as a whole.

use std::fmt::Display;

use wharf_core::ids::{Group, JobId, PluginId, TaskName};
use wharf_core::key::Key;
use wharf_core::kv::KvKey;
use wharf_core::topic::{Pattern, Topic};
use wharf_engine::{Manifest, PluginSettings};

use crate::config::{Environment, Flags, RawSettings, Settings};

/// Error texts, each with its source and the input that causes it.
#[derive(Default)]
pub(crate) struct ErrorSamples(Vec<String>);

impl ErrorSamples {
    /// Adds the error of an invalid input.
    pub(crate) fn add(&mut self, source: &str, input: &str, error: impl Display) {
        let input: String = input.chars().take(80).collect();
        let line = format!("{source} | {} | {error}", input.escape_debug());
        self.0.push(line.replace('\n', "\\n"));
    }

    /// Parses an input, and adds the error.
    fn parse<T: std::str::FromStr<Err: Display>>(&mut self, source: &str, input: &str) {
        match input.parse::<T>() {
            Ok(_) => self.add(source, input, "(valid)"),
            Err(error) => self.add(source, input, error),
        }
    }
}

fn names(samples: &mut ErrorSamples) {
    let long = "x".repeat(2000);
    for text in ["", "x", "0S9Y115FM0000", "zzzzzzzzzzzzz"] {
        samples.parse::<JobId>("job ID", text);
    }
    for text in ["", "Words", "-words", &long] {
        samples.parse::<PluginId>("plugin ID", text);
    }
    for text in ["", "words", "words/", "Words/count", "words/count/all"] {
        samples.parse::<TaskName>("task", text);
    }
    for text in ["", "a group", &long] {
        samples.parse::<Group>("limit group", text);
    }
    for text in ["", "a\0b", &long] {
        samples.parse::<Key>("key", text);
        samples.parse::<KvKey>("KV key", text);
    }
    for text in ["", "a..b", "a b", "a.*", &long] {
        samples.parse::<Topic>("topic", text);
    }
    for text in ["", "a..b", "a.>.b", &long] {
        samples.parse::<Pattern>("topic pattern", text);
    }
}

/// Adds the problems of settings in a `wharf.toml`.
fn settings(samples: &mut ErrorSamples) {
    for file in [
        "listn = \"127.0.0.1:1\"",
        "listen = true",
        "listen = \"nowhere\"",
        "listen = \"0.0.0.0:7070\"",
        "listen = ",
        "listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"",
        "attempts = 1",
        "[attempts]\nat-onse = 1",
        "[attempts]\nat-once = 0",
        "[attempts]\nat-once = \"many\"",
        "[lease]\nlength = 30",
        "[lease]\nlength = \"soon\"",
        "[lease]\nlength = \"2d\"",
        "[lease]\nlength = \"-1s\"",
        "[lease]\nlength = \"6s\"\nmargin = \"2s\"",
        "[log]\nlevel = \"inof\"",
        "[log]\nlevel = \"a=b=c\"",
        "[log]\nformat = \"xml\"",
        "token = \"short\"",
        "token = \"sixteen and more characters\"",
        "token = \"\"",
        "tokens = \"sixteen and more characters\"",
        "[tokens]\nname = \"ci\"",
        "[[tokens]]\nname = \"ci\"\ncan = [\"read\"]",
        "[[tokens]]\nname = \"ci\"\nhash = \"sha256:12\"\ncan = [\"reed\", \"enqueue\"]",
        "[[tokens]]\nname = \"ci\"\nfrom = \"vault:ci\"\ncan = []",
        "[[tokens]]\nname = \"ci\"\nfrom = \"env:UNSET\"\ncan = [\"read\"]",
        "[[tokens]]\nname = \"ci\"\nfrom = \"env:A\"\ncan = [\"admin\"]\nkey = \"acme\"",
        "plugins = 1",
        "public-url = \"jobs.example.com\"",
        "public-url = \"https://jobs.example.com\"",
        "proxy-authenticates = \"maybe\"",
        "host = \"ftp://x\"",
        "store = \"\"",
        "plugins-dir = \"\"",
        "[plugins.Words]",
        "[plugins.words]\nhtpp = []",
        "[plugins.words]\nhttp = [\"example.com\"]",
        "[plugins.words]\nhttp = [\"https://example.com/path\"]",
        "[plugins.words]\naddresses = [\"10.0.0.0/33\"]",
        "[plugins.words]\nkv = 3",
        "[plugins.words]\nkv = \"much\"",
        "[plugins.words.tasks.count]\ntimeout = 5",
        "[plugins.words.tasks.count]\ntimeout = \"5\"",
        "[plugins.words.tasks.count]\nmemory = \"much\"",
        "[plugins.words.tasks.count.retry]\nbackoff = \"1s\"",
        "[plugins.words.tasks.count.retry]\nbackoff = \"5m..1s\"",
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("wharf.toml"), file).expect("written");
        let home = ("HOME".into(), "/home/ann".into());
        let environment = Environment { folder: folder.path().to_owned(), variables: vec![home] };
        let checked = RawSettings::read(&Flags::default(), &environment)
            .and_then(|mut raw| Settings::check(&mut raw, &environment)?.token_table(&raw, &environment));
        match checked {
            Ok(_) => samples.add("settings", file, "(valid)"),
            Err(problems) => samples.add("settings", file, problems),
        }
    }
}

/// Adds the problems of manifests.
fn manifests(samples: &mut ErrorSamples) {
    let plugin: PluginId = "words".parse().expect("an ID");
    for body in [
        "nam = \"x\"",
        "name = 1",
        "[tasks.Count]",
        "[tasks.count]\ntimeout = \"1y\"",
        "[tasks.count]\ntimeout = \"100d\"",
        "[tasks.count]\ntimeout = \"5\"",
        "[tasks.count]\nmemory = \"100GiB\"",
        "[tasks.count]\nkey = \"tenant\"",
        "[tasks.count]\npayload-schema = \"{\"",
        "[tasks.count.limit]\nper-key = -1",
        "[tasks.count.limit]\non-conflict = \"drop\"",
        "[tasks.count.limit]\ngroup = \"a group\"",
        "[tasks.count.retry]\nattempts = 0",
        "[tasks.count.retry]\nbackoff = \"1s\"",
        "topics = [\"a..b\"]",
        "topics = [\"a.b\", \"a.b\"]",
    ] {
        let head =
            if body.starts_with("nam") { "version = \"1.0.0\"" } else { "name = \"words\"\nversion = \"1.0.0\"" };
        match Manifest::read(&plugin, &format!("{head}\n{body}\n"), &PluginSettings::default()) {
            Ok(_) => samples.add("manifest", body, "(valid)"),
            Err(problems) => problems.iter().for_each(|problem| samples.add("manifest", body, problem)),
        }
    }
}

#[tokio::test]
async fn errors_are_as_they_were_reviewed() {
    let mut samples = ErrorSamples::default();
    names(&mut samples);
    settings(&mut samples);
    manifests(&mut samples);
    crate::cli::error_samples::collect(&mut samples);
    crate::http::error_samples::collect(&mut samples).await;
    let now = samples.0.join("\n") + "\n";
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/errors.txt");
    let then = std::fs::read_to_string(file).unwrap_or_default();
    if now != then {
        let new = format!("{file}.new");
        std::fs::write(&new, &now).expect("written");
        panic!("the error texts have changed; if that is meant, move {new} to {file}");
    }
}
