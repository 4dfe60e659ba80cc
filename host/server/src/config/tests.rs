//! What people write, and what they are told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_core::bounds;

use super::{Flags, Given, Settings, Surroundings};

/// Settings as they come out, or what is told of them.
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

    fn read(&self) -> Result<(Settings, Given), String> {
        let variables = self.variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let around = Surroundings { folder: self.folder.path().to_owned(), variables };
        let mut given = Given::read(&self.flags, &around).map_err(|problems| problems.to_string())?;
        let settings = Settings::ready(&mut given, &around).map_err(|problems| problems.to_string())?;
        Ok((settings, given))
    }

    fn told(&self) -> String {
        self.read().err().unwrap()
    }

    fn origin(&self, key: &'static str) -> String {
        self.read().unwrap().1.of(key).1.to_string()
    }
}

#[test]
fn the_defaults_work_with_nothing_at_all_and_are_those_of_the_bounds() {
    let (settings, given) = World::new("").read().unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:7070");
    assert_eq!(settings.host, "http://127.0.0.1:7070");
    assert_eq!((settings.store.as_str(), settings.plugins_dir.as_path()), ("sqlite:wharf.db", Path::new("plugins")));
    assert_eq!(settings.cache_dir, PathBuf::from("/home/ann/.cache/wharf"));
    assert_eq!(given.of("cache-dir").1.to_string(), "default, from $HOME");
    assert_eq!(settings.attempts_at_once, bounds::ATTEMPTS_DEFAULT);
    assert_eq!((settings.cancel_grace, settings.drain_patience), (bounds::CANCEL_GRACE, bounds::DRAIN_PATIENCE));
    assert_eq!((settings.lease, settings.lease_margin), (bounds::LEASE, bounds::LEASE_MARGIN));
    assert_eq!((settings.upkeep_interval, settings.keep_finished), (bounds::UPKEEP_INTERVAL, bounds::KEEP_FINISHED));
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
    assert_eq!(world.read().unwrap().0.keep_finished, Duration::from_secs(86_400));
    world.flags.config = Some("missing.toml".into());
    assert!(world.told().starts_with("could not read the settings file missing.toml"), "{}", world.told());
}

#[test]
fn unknown_names_are_told_with_their_place_and_the_nearest_known_one() {
    assert_eq!(
        World::new("\n  listn = \"x\"\n").told(),
        "wharf.toml:2:3: `listn` is no setting; did you mean `listen`?"
    );
    assert_eq!(
        World::new("[attempts]\nat-onse = 1\n").told(),
        "wharf.toml:2:1: `attempts.at-onse` is no setting; did you mean `attempts.at-once`?"
    );
    assert_eq!(
        World::new("[atempts]\nat-once = 1\n").told(),
        "wharf.toml:1:2: `atempts` is no setting; did you mean `attempts`?"
    );
    let variable = World::new("").variable("WHARF__LISTE", "x").told();
    assert_eq!(variable, "WHARF__LISTE: no setting has this name; did you mean `WHARF__LISTEN`?");
    let flag = World::new("").flag("--set lease.lenght", "lease.lenght", "1s").told();
    assert_eq!(flag, "--set lease.lenght: `lease.lenght` is no setting; did you mean `lease.length`?");
}

#[test]
fn all_problems_are_told_at_once() {
    let told = World::new("listen = \"nowhere\"\n[lease]\nlength = 30\n").variable("WHARF__LOG__FORMAT", "xml").told();
    assert!(told.starts_with("3 things are wrong with the settings:"), "{told}");
    assert!(told.contains("wharf.toml:1:10: `listen`: `nowhere` is no address to listen on"), "{told}");
    assert!(told.contains("wharf.toml:3:10: `lease.length`: `30` has no unit; write \"30s\""), "{told}");
    assert!(
        told.contains("WHARF__LOG__FORMAT: `log.format`: `xml` is no log format; text or json is possible"),
        "{told}"
    );
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    let told = World::new("listen = \"a\n").told();
    assert!(told.starts_with("wharf.toml:1:"), "{told}");
    let twice = World::new("listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n").told();
    assert!(twice.starts_with("wharf.toml:2:1: duplicate key"), "{twice}");
}

#[test]
fn off_loopback_a_token_is_required() {
    let told = World::new("listen = \"0.0.0.0:7070\"").told();
    assert!(told.contains("0.0.0.0:7070 can be reached from other machines, so a token is required"), "{told}");
    let (settings, _) = World::new("listen = \"0.0.0.0:7070\"\ntoken = \"0123456789abcdef\"").read().unwrap();
    assert_eq!(settings.host, "http://127.0.0.1:7070");
    assert!(World::new("token = \"short\"").told().contains("shorter than 16 characters"));
}

#[test]
fn a_margin_leaves_room_for_a_second_renewal() {
    let told = World::new("[lease]\nlength = \"6s\"\nmargin = \"2s\"\n").told();
    assert!(told.contains("wharf.toml:3:10: `lease.margin`: it must be less than a third"), "{told}");
}

#[test]
fn plugins_have_sections_of_their_own() {
    let file = "[plugins.words]\nhttp = [\"https://api.example.com\"]\nenv = { KEY = \"secret\" }\n[plugins.words.tasks.count]\ntimeout = \"5s\"\n";
    let (settings, given) = World::new(file).read().unwrap();
    let words = &settings.plugins[&"words".parse().unwrap()];
    assert_eq!(words.tasks["count"].timeout.map(|length| length.0), Some(Duration::from_secs(5)));
    let shown: Vec<String> =
        given.plugins[0].shown.iter().map(|(key, value, from)| format!("{key} = {value} ({from})")).collect();
    assert!(shown.contains(&"plugins.words.env.KEY = (set) (wharf.toml:3:15)".to_owned()), "{shown:?}");
    assert!(shown.contains(&"plugins.words.tasks.count.timeout = \"5s\" (wharf.toml:5:11)".to_owned()), "{shown:?}");
}

#[test]
fn a_slip_in_a_plugins_section_is_told_like_any_other() {
    let told = World::new("[plugins.words]\nhtpp = []\n").told();
    assert!(told.starts_with("wharf.toml:2:1: unknown key `htpp`"), "{told}");
    assert!(told.contains("did you mean `http`?"), "{told}");
    let told = World::new("[plugins.words]\nkv = 3\n").told();
    assert!(
        told.starts_with("wharf.toml:2:6: ") && told.contains("true or a size, such as \"64MiB\""),
        "{told}"
    );
    let told = World::new("[plugins.Words]\n").told();
    assert!(told.starts_with("wharf.toml:1:10: `Words` is no name"), "{told}");
    let told = World::new("").variable("WHARF__PLUGINS__WORDS__HTTP", "x").told();
    assert_eq!(told, "WHARF__PLUGINS__WORDS__HTTP: settings of a plugin are read from wharf.toml only");
}

#[test]
fn an_empty_variable_is_none() {
    let file = "token = \"0123456789abcdef\"";
    let settings = World::new(file).variable("WHARF__TOKEN", "").variable("WHARF__CONFIG", "").read().unwrap().0;
    assert_eq!(settings.token.as_deref(), Some("0123456789abcdef"));
}

#[test]
fn a_bare_word_of_the_log_is_a_level() {
    let told = World::new("[log]\nlevel = \"inof\"\n").told();
    assert!(told.contains("`inof` is no log level; did you mean `info`?"), "{told}");
    assert!(World::new("[log]\nlevel = \"wharf_engine\"\n").told().contains("`wharf_engine=debug`"));
    for good in ["info", "WARN", "off", "info,wharf_engine=debug", "wharf_engine::pool=trace"] {
        assert_eq!(World::new(&format!("[log]\nlevel = \"{good}\"\n")).read().unwrap().0.log_level, good);
    }
}
