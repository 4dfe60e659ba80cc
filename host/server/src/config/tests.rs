//! Settings as users write them, and the errors that they get.

mod documents;
mod outside;
mod reloaded;

use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::keep::Keep;

use super::{Environment, Flags, RawSettings, Settings};
use crate::access::Tokens;

/// A folder, flags and variables to read settings from.
struct World {
    folder: tempfile::TempDir,
    flags: Flags,
    variables: Vec<(&'static str, &'static str)>,
}

impl World {
    fn new(file: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        if !file.is_empty() {
            std::fs::write(folder.path().join("wharf.toml"), file).unwrap();
        }
        World { folder, flags: Flags::default(), variables: vec![("HOME", "/home/ann")] }
    }

    fn variable(mut self, name: &'static str, value: &'static str) -> World {
        self.variables.push((name, value));
        self
    }

    fn flag(mut self, flag: &str, key: &str, value: &str) -> World {
        self.flags.values.push((flag.to_owned(), key.to_owned(), value.to_owned()));
        self
    }

    fn environment(&self) -> Environment {
        let variables = self.variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Environment { folder: self.folder.path().to_owned(), variables }
    }

    fn tokens(&self) -> Tokens {
        let (settings, raw) = self.read().unwrap();
        Tokens::new(settings.token_table(&raw, &self.environment()).unwrap())
    }

    fn read(&self) -> Result<(Settings, RawSettings), String> {
        let environment = self.environment();
        let mut raw = RawSettings::read(&self.flags, &environment).map_err(|problems| problems.to_string())?;
        let settings = Settings::check(&mut raw, &environment).map_err(|problems| problems.to_string())?;
        let _tokens = settings.token_table(&raw, &environment).map_err(|problems| problems.to_string())?;
        Ok((settings, raw))
    }

    fn error(&self) -> String {
        self.read().err().unwrap()
    }

    fn origin(&self, key: &'static str) -> String {
        self.read().unwrap().1.of(key).1.to_string()
    }
}

#[test]
fn jobs_are_kept_as_long_as_how_they_ended_says() {
    let file = "[upkeep]\nkeep-finished = \"2d\"\nkeep-succeeded = \"1h\"\n\
                [plugins.words.tasks.count]\nkeep-failed = \"30d\"\n";
    let (settings, raw) = World::new(file).read().unwrap();
    let (text, origin) = raw.of("upkeep.keep-failed");
    assert_eq!((text, origin.to_string().as_str()), ("2d", "default, from `upkeep.keep-finished`"));
    let (hour, days) = (Duration::from_secs(3600), Duration::from_secs(2 * 86_400));
    assert_eq!(settings.keep, Keep { succeeded: hour, failed: days, cancelled: days });
    let words = settings.plugin("words");
    let of_count = words.tasks["count"].keep(settings.keep).unwrap();
    assert_eq!(of_count, Keep { failed: 15 * days, ..settings.keep });
}

#[test]
fn the_defaults_work_with_nothing_at_all_and_are_those_of_the_bounds() {
    let (settings, raw) = World::new("").read().unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:7070");
    assert_eq!(settings.host, "http://127.0.0.1:7070");
    assert_eq!((settings.store.as_str(), settings.plugins_dir.as_path()), ("sqlite:wharf.db", Path::new("plugins")));
    assert_eq!(settings.cache.dir, PathBuf::from("/home/ann/.cache/wharf"));
    assert_eq!(raw.of("cache-dir").1.to_string(), "default, from $HOME");
    assert_eq!(settings.attempts_at_once, bounds::ATTEMPTS_DEFAULT);
    assert_eq!((settings.cancel_grace, settings.drain_timeout), (bounds::CANCEL_GRACE, bounds::DRAIN_TIMEOUT));
    assert_eq!((settings.lease, settings.lease_margin), (bounds::LEASE, bounds::LEASE_MARGIN));
    assert_eq!((settings.upkeep_interval, settings.keep), (bounds::UPKEEP_INTERVAL, Keep::all(bounds::KEEP_FINISHED)));
    assert!(settings.token.is_none() && settings.plugins_dir_is_default && settings.plugins.is_empty());
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let file = "listen = \"127.0.0.1:1\"\n[attempts]\nat-once = 1\n";
    let only_file = World::new(file);
    assert_eq!(only_file.read().unwrap().0.attempts_at_once, 1);
    assert_eq!(only_file.origin("attempts.at-once"), "wharf.toml:3:11");
    let with_variable = World::new(file).variable("WHARF__ATTEMPTS__AT_ONCE", "2");
    assert_eq!(with_variable.read().unwrap().0.attempts_at_once, 2);
    assert_eq!(with_variable.origin("attempts.at-once"), "WHARF__ATTEMPTS__AT_ONCE");
    let with_flag = World::new(file).variable("WHARF__ATTEMPTS__AT_ONCE", "2").flag(
        "--set attempts.at-once",
        "attempts.at-once",
        "3",
    );
    assert_eq!(with_flag.read().unwrap().0.attempts_at_once, 3);
    assert_eq!(with_flag.origin("attempts.at-once"), "--set attempts.at-once");
    assert_eq!(with_flag.read().unwrap().0.host, "http://127.0.0.1:1");
}

#[test]
fn a_file_may_be_named_and_must_then_be_there() {
    let mut world = World::new("");
    std::fs::write(world.folder.path().join("other.toml"), "[upkeep]\nkeep-finished = \"1d\"\n").unwrap();
    world.flags.config = Some("other.toml".into());
    assert_eq!(world.read().unwrap().0.keep, Keep::all(Duration::from_secs(86_400)));
    world.flags.config = Some("missing.toml".into());
    assert!(world.error().starts_with("could not read the settings file missing.toml"), "{}", world.error());
}

#[test]
fn unknown_names_are_reported_with_their_place_and_the_nearest_known_one() {
    assert_eq!(
        World::new("\n  listn = \"x\"\n").error(),
        "wharf.toml:2:3: unknown setting `listn`; did you mean `listen`?"
    );
    assert_eq!(
        World::new("[attempts]\nat-onse = 1\n").error(),
        "wharf.toml:2:1: unknown setting `attempts.at-onse`; did you mean `attempts.at-once`?"
    );
    assert_eq!(
        World::new("[atempts]\nat-once = 1\n").error(),
        "wharf.toml:1:2: unknown setting `atempts`; did you mean `attempts`?"
    );
    let variable = World::new("").variable("WHARF__LISTE", "x").error();
    assert_eq!(variable, "WHARF__LISTE: unknown setting; did you mean `WHARF__LISTEN`?");
    let flag = World::new("").flag("--set lease.lenght", "lease.lenght", "1s").error();
    assert_eq!(flag, "--set lease.lenght: unknown setting `lease.lenght`; did you mean `lease.length`?");
}

#[test]
fn all_problems_are_reported_at_once() {
    let error =
        World::new("listen = \"nowhere\"\n[lease]\nlength = 30\n").variable("WHARF__LOG__FORMAT", "xml").error();
    assert!(error.starts_with("3 problems in the settings:"), "{error}");
    assert!(
        error.contains("wharf.toml:1:10: `listen`: invalid address `nowhere`: expected an IP address and a port"),
        "{error}"
    );
    assert!(
        error.contains("wharf.toml:3:10: `lease.length`: invalid duration `30`: the unit is missing; write \"30s\""),
        "{error}"
    );
    assert!(error.contains("WHARF__LOG__FORMAT: `log.format`: unknown log format `xml`; use text or json"), "{error}");
}

#[test]
fn invalid_toml_is_reported_with_its_position() {
    let error = World::new("listen = \"a\n").error();
    assert!(error.starts_with("wharf.toml:1:"), "{error}");
    let twice = World::new("listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n").error();
    assert!(twice.starts_with("wharf.toml:2:1: duplicate key"), "{twice}");
}

#[test]
fn off_loopback_a_token_is_required() {
    let error = World::new("listen = \"0.0.0.0:7070\"").error();
    assert!(error.contains("0.0.0.0:7070 is reachable from other machines, which requires a token"), "{error}");
    let (settings, _) = World::new("listen = \"0.0.0.0:7070\"\ntoken = \"0123456789abcdef\"").read().unwrap();
    assert_eq!(settings.host, "http://127.0.0.1:7070");
    assert!(World::new("token = \"short\"").error().contains("shorter than 16 characters"));
}

#[test]
fn a_margin_leaves_time_for_a_second_renewal() {
    let error = World::new("[lease]\nlength = \"6s\"\nmargin = \"2s\"\n").error();
    assert!(error.contains("wharf.toml:3:10: `lease.margin`: it must be less than a third"), "{error}");
}

#[test]
fn plugins_have_sections_of_their_own() {
    let file = "[plugins.words]\nhttp = [\"https://api.example.com\"]\nenv = { KEY = \"secret\" }\n[plugins.words.tasks.count]\ntimeout = \"5s\"\n";
    let (settings, raw) = World::new(file).read().unwrap();
    let words = &settings.plugins[&"words".parse().unwrap()];
    assert_eq!(words.tasks["count"].timeout.map(|length| length.0), Some(Duration::from_secs(5)));
    let shown: Vec<String> =
        raw.plugins[0].shown.iter().map(|(key, value, from)| format!("{key} = {value} ({from})")).collect();
    assert!(shown.contains(&"plugins.words.env.KEY = (set) (wharf.toml:3:15)".to_owned()), "{shown:?}");
    assert!(shown.contains(&"plugins.words.tasks.count.timeout = \"5s\" (wharf.toml:5:11)".to_owned()), "{shown:?}");
}

#[test]
fn a_mistake_in_a_plugins_section_is_reported_like_any_other() {
    let error = World::new("[plugins.words]\nhtpp = []\n").error();
    assert!(error.starts_with("wharf.toml:2:1: unknown key `htpp`"), "{error}");
    assert!(error.contains("did you mean `http`?"), "{error}");
    let error = World::new("[plugins.words]\nkv = 3\n").error();
    assert!(error.starts_with("wharf.toml:2:6: ") && error.contains("true or a size, such as \"64MiB\""), "{error}");
    let error = World::new("[plugins.Words]\n").error();
    assert!(error.starts_with("wharf.toml:1:10: invalid name `Words`"), "{error}");
    let error = World::new("").variable("WHARF__PLUGINS__WORDS__HTTP", "x").error();
    assert_eq!(error, "WHARF__PLUGINS__WORDS__HTTP: settings of a plugin can be set in wharf.toml only");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let file = "listen = \"127.0.0.1:1\"";
    let settings = World::new(file).variable("WHARF__LISTEN", "").variable("WHARF__CONFIG", "").read().unwrap().0;
    assert_eq!(settings.listen.to_string(), "127.0.0.1:1");
}

#[test]
fn an_empty_token_is_refused_wherever_it_stands() {
    let refused = "`token`: it is empty; set one, such as that of `openssl rand -hex 32`, or leave the setting out";
    let variable = World::new("token = \"0123456789abcdef\"").variable("WHARF__TOKEN", "");
    assert_eq!(variable.error(), format!("WHARF__TOKEN: {refused}"));
    assert_eq!(World::new("token = \"\"").error(), format!("wharf.toml:1:9: {refused}"));
    assert_eq!(World::new("").flag("--token", "token", "").error(), format!("--token: {refused}"));
}

#[test]
fn a_public_url_requires_a_token_or_a_proxy_that_authenticates() {
    let url = "public-url = \"https://jobs.example.com/wharf/\"\n";
    let error = World::new(url).error();
    assert!(
        error.starts_with("wharf.toml:1:14: `public-url`: others reach the host there, which requires a token"),
        "{error}"
    );
    let token = World::new(&format!("{url}token = \"0123456789abcdef\"")).read().unwrap().0;
    assert_eq!(token.public_url.unwrap().as_str(), "https://jobs.example.com/wharf");
    assert!(World::new(&format!("{url}proxy-authenticates = true")).read().unwrap().0.proxy_authenticates);
    assert!(World::new("public-url = \"http://localhost:8080\"").read().is_ok());
    let error = World::new("proxy-authenticates = \"maybe\"").error();
    assert!(error.ends_with("invalid value `maybe`: expected true or false"), "{error}");
}

#[test]
fn a_bare_word_of_the_log_is_a_level() {
    let error = World::new("[log]\nlevel = \"inof\"\n").error();
    assert!(error.contains("unknown log level `inof`; did you mean `info`?"), "{error}");
    assert!(World::new("[log]\nlevel = \"wharf_engine\"\n").error().contains("`wharf_engine=debug`"));
    for good in ["info", "WARN", "off", "info,wharf_engine=debug", "wharf_engine::pool=trace"] {
        assert_eq!(World::new(&format!("[log]\nlevel = \"{good}\"\n")).read().unwrap().0.log_level, good);
    }
}

const HASH: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn tokens_have_names_scopes_and_perhaps_a_key() {
    let file = format!(
        "token = \"0123456789abcdef\"\n\
         [[tokens]]\nname = \"ci\"\nhash = [\"{HASH}\", \"sha256:{}\"]\ncan = [\"read\", \"enqueue:report/*\"]\n\
         [[tokens]]\nname = \"acme\"\nfrom = \"file:acme.token\"\ncan = [\"enqueue:*\"]\nkey = \"acme\"\n\
         [[tokens]]\nname = \"ops\"\nfrom = \"env:OPS_TOKEN\"\ncan = [\"operate\"]\n",
        "0".repeat(64)
    );
    let world = World::new(&file).variable("OPS_TOKEN", "operators-token-1");
    std::fs::write(world.folder.path().join("acme.token"), "acme-token-of-16+\n").unwrap();
    let (tokens, (_, raw)) = (world.tokens(), world.read().unwrap());
    let acme = tokens.find("acme-token-of-16+").expect("the newline is no part of it");
    assert_eq!((&*acme.name, acme.key().map(ToString::to_string)), ("acme", Some("acme".to_owned())));
    assert!(acme.enqueues_some() && !acme.reads());
    assert!(tokens.find("operators-token-1").is_some_and(|access| access.operates()));
    assert!(tokens.find("test").is_some_and(|access| &*access.name == "ci"), "the hash is that of `test`");
    assert!(tokens.find("0123456789abcdef").is_some_and(|access| access.is_admin()));
    assert!(tokens.find("acme-token-of-16+\n").is_none() && tokens.find("").is_none());
    let shown: Vec<String> =
        raw.tokens.iter().flat_map(|token| &token.shown).map(|(_, value, _)| value.clone()).collect();
    assert!(shown.contains(&HASH.to_owned()) && !shown.iter().any(|value| value.contains("acme-token")), "{shown:?}");
}

#[test]
fn bad_tokens_are_refused_with_their_place() {
    let error = |lines: &str| World::new(&format!("[[tokens]]\n{lines}\n")).error();
    let token = |rest: &str| error(&format!("name = \"ci\"\n{rest}"));
    for (text, place, says) in [
        (token("can = [\"read\"]"), "wharf.toml:1:1", "neither `hash` nor `from`"),
        (token(&format!("hash = [{}]\ncan = [\"read\"]", format!("\"{HASH}\",").repeat(5))), "3:8", "at most 4, got 5"),
        (token("hash = []\ncan = [\"read\"]"), "wharf.toml:1:1", "neither `hash` nor `from`"),
        (token(&format!("hash = \"{HASH}\"\ncan = []")), "wharf.toml:4:7", "it is empty"),
        (token(&format!("hash = \"{HASH}\"\ncan = [\"reed\"]")), "wharf.toml:4:8", "unknown scope `reed`"),
        (token(&format!("hash = \"{HASH}\"\ncan = [\"enqueue\"]")), "wharf.toml:4:8", "it matches no task"),
        (token("hash = \"sha256:12\"\ncan = [\"read\"]"), "wharf.toml:3:8", "64 hexadecimal digits"),
        (token("from = \"vault:x\"\ncan = [\"read\"]"), "wharf.toml:3:8", "`env:NAME` or `file:PATH`"),
        (token("from = \"file:missing\"\ncan = [\"read\"]"), "wharf.toml:3:8", "could not read missing"),
        (token("from = \"env:UNSET\"\ncan = [\"read\"]"), "wharf.toml:3:8", "UNSET is not set"),
        (token("from = \"env:HOME\"\ncan = [\"read\"]"), "wharf.toml:3:8", "shorter than 16 characters"),
        (token("scopes = [\"read\"]"), "wharf.toml:3:1", "scopes"),
        (token(&format!("hash = \"{HASH}\"\ncan = [\"admin\"]\nkey = \"acme\"")), "wharf.toml:4:7", "beyond one key"),
        (token(&format!("hash = \"{HASH}\"\ncan = [\"read\"]\nkey = \"\"")), "wharf.toml:5:7", "`key`"),
        (error("name = \"\"\nfrom = \"env:A\"\ncan = [\"read\"]"), "wharf.toml:2:8", "`name`: expected 1 to 64 bytes"),
    ] {
        assert!(text.contains(place) && text.contains(says), "expected {place} {says}, got {text}");
    }
    let one = format!("[[tokens]]\nname = \"ci\"\nhash = \"{HASH}\"\ncan = [\"read\"]\n");
    let twice = World::new(&format!("{one}{one}")).error();
    assert!(twice.contains("a second token is called `ci`") && twice.contains("wharf.toml:6:8"), "{twice}");
    let same = World::new(&format!("{one}{}", one.replace("\"ci\"", "\"other\""))).error();
    assert!(same.contains("the same token stands in `tokens` twice") && same.contains("wharf.toml:7:8"), "{same}");
}

#[test]
fn a_host_that_others_reach_needs_a_token_of_either_kind() {
    let token = format!("[[tokens]]\nname = \"ci\"\nhash = \"{HASH}\"\ncan = [\"read\"]\n");
    assert!(World::new(&format!("listen = \"0.0.0.0:80\"\n{token}")).read().is_ok());
    assert!(World::new("listen = \"0.0.0.0:80\"").error().contains("`[[tokens]]`"));
}
