//! Values of plugins that stand outside of the file, and schedules in it.

use wharf_core::schedule::Timing;

use super::World;
use crate::config::{RawSettings, shown};

const OUTSIDE: &str = "\
[plugins.words]
env = { PLAIN = \"a\", KEY = { from = \"env:STRIPE\" } }
config = { pem = { from = \"file:key.pem\" } }
";

/// Reads the settings as a host does.
fn filled(world: &World) -> Result<RawSettings, String> {
    let (_, mut raw) = world.read()?;
    raw.read_outside(None, &world.environment()).map_err(|problems| problems.to_string())?;
    Ok(raw)
}

#[test]
fn values_come_from_variables_and_files_and_only_a_host_reads_them() {
    let world = World::new(OUTSIDE).variable("STRIPE", "sk-live");
    std::fs::write(world.folder.path().join("key.pem"), "two\nlines\n").unwrap();
    // A command in the folder of the host.
    let (settings, raw) = world.read().unwrap();
    assert!(settings.plugins[&"words".parse().unwrap()].config.is_empty());
    let files = raw.outside_files(&world.environment());
    assert_eq!(files, [world.folder.path().join("key.pem")], "it is watched");

    let raw = filled(&world).unwrap();
    let words = &raw.plugins[0].settings;
    assert_eq!((words.env["KEY"].as_str(), words.env["PLAIN"].as_str()), ("sk-live", "a"));
    assert_eq!(words.config["pem"], "two\nlines\n", "byte for byte");
    let lines: Vec<String> = shown(&raw).iter().map(|one| format!("{} = {}", one.key, one.value)).collect();
    assert!(lines.contains(&"plugins.words.env.KEY = (from env:STRIPE)".to_owned()), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("sk-live") && !line.contains("two")));
}

#[test]
fn a_host_that_reads_another_value_has_other_settings_and_the_same_digest() {
    let world =
        |value| World::new("[plugins.words]\nenv = { KEY = { from = \"env:STRIPE\" } }\n").variable("STRIPE", value);
    let (one, other) = (filled(&world("sk-1")).unwrap(), filled(&world("sk-2")).unwrap());
    assert_eq!(one.live_keys_that_differ(&other), ["plugins.words"]);
    let digest = |file: &str| {
        let (settings, raw) = World::new(file).read().unwrap();
        settings.live_settings(&raw).digest
    };
    let literal = digest("[plugins.words]\nenv = { KEY = \"sk-1\" }\n");
    assert_eq!(literal, digest("[plugins.words]\nenv = { KEY = { from = \"file:/run/key\" } }\n"));
}

#[test]
fn values_that_cannot_be_read_are_reported_with_their_place_and_never_quoted() {
    let error = |value: &str| {
        let file = format!("[plugins.words]\nenv = {{ KEY = {value} }}\n");
        let world = World::new(&file).variable("BAD", "sk-live");
        std::fs::write(world.folder.path().join("bytes"), b"\xff\xfe").unwrap();
        std::fs::write(world.folder.path().join("large"), "x".repeat(70_000)).unwrap();
        let error = filled(&world).unwrap_err();
        assert!(error.starts_with("wharf.toml:2:15: `plugins.words.env.KEY`: "), "{error}");
        assert!(!error.contains("sk-live"), "{error}");
        error
    };
    assert!(error("{ from = \"env:NONE\" }").contains("the environment variable NONE is not set"));
    assert!(error("{ from = \"file:none\" }").contains("could not read none"));
    assert!(error("{ from = \"file:bytes\" }").contains("bytes is not UTF-8"));
    assert!(error("{ from = \"file:large\" }").contains("longer than 65536 bytes"));
    assert!(error("{ from = \"file:/dev/zero\" }").contains("it is not a file"));
    for form in ["{ form = \"env:BAD\" }", "{ from = \"sk-live\" }", "{ from = 3 }", "{ from = \"env:\" }", "{}"] {
        assert!(error(form).contains("expected a string, or `{ from = "), "{form}");
    }
}

#[test]
fn schedules_are_read_with_their_payload_and_their_mistakes_have_a_place() {
    let file = "[schedules.nightly]\ntask = \"report/build\"\ncron = \"0 3 * * *\"\nzone = \"europe/berlin\"\n\
                payload = { days = 0x10, list = [1.5, true, \"a\\\"b\"], at = 2026-01-31 }\nmissed = \"all\"\npause-after = 3\n";
    let (settings, raw) = World::new(file).read().unwrap();
    let spec = &settings.schedules.schedules[&"nightly".parse().unwrap()];
    let payload: serde_json::Value = serde_json::from_slice(&spec.payload).unwrap();
    let expected = serde_json::json!({ "days": 16, "list": [1.5, true, "a\"b"], "at": "2026-01-31" });
    assert_eq!((payload, spec.pause_after), (expected, Some(3)));
    let zone = "Europe/Berlin".to_owned();
    assert_eq!(spec.timing, Timing::Cron { expression: "0 3 * * *".to_owned(), zone });
    assert!(settings.schedules.revision > wharf_core::time::Timestamp::ZERO);
    let shown: Vec<String> = shown(&raw).iter().map(|one| format!("{} = {}", one.key, one.value)).collect();
    assert!(shown.contains(&"schedules.nightly.cron = \"0 3 * * *\"".to_owned()), "{shown:?}");

    let error = |lines: &str| World::new(&format!("[schedules.x]\n{lines}\n")).error();
    for (lines, text) in [
        ("task = \"a/b\"", "wharf.toml:2:8: `schedules.x.cron`: it is missing, and so is `every`"),
        ("task = \"a/b\"\ncron = \"0 3 * *\"", "wharf.toml:3:8: `schedules.x`: invalid cron expression `0 3 * *`"),
        (
            "task = \"a/b\"\ncron = \"0 3 * * *\"\nzone = \"Mars/Base\"",
            "wharf.toml:3:8: `schedules.x`: invalid time zone `Mars/Base`",
        ),
        ("task = \"a/b\"\nevery = \"0s\"", "`schedules.x`: invalid interval"),
        ("task = \"a\"\nevery = \"1m\"", "wharf.toml:2:8: `schedules.x.task`: invalid task `a`"),
        ("task = \"a/b\"\nevery = \"1m\"\nmissed = \"lost\"", "wharf.toml:4:10: `schedules.x.missed`: "),
        ("task = \"a/b\"\nevery = \"1m\"\nzone = \"UTC\"", "wharf.toml:4:8: `schedules.x.zone`: only `cron` has one"),
        ("task = \"a/b\"\nevery = \"1m\"\npayload = nan", "wharf.toml:4:11: `schedules.x.payload`: expected a number"),
        ("task = \"a/b\"\nevry = \"1m\"", "did you mean `every`"),
    ] {
        assert!(error(lines).contains(text), "{lines}: {}", error(lines));
    }
    assert!(World::new("[schedules.X]\n").error().contains("invalid schedule ID `X`"));
    assert!(World::new("schedules = 1\n").error().contains("write `[schedules.NAME]`"));
    assert!(
        World::new("[schedules.x]\ntask = \"a/b\"\nevery = \"1m\"\n[schedules.x]\n").error().contains("wharf.toml:4:")
    );
}

#[test]
fn other_schedules_are_named_and_shared() {
    let world = |every: &str| World::new(&format!("[schedules.x]\ntask = \"a/b\"\nevery = \"{every}\"\n"));
    let read = |every| world(every).read().unwrap();
    let ((minute, raw), (hour, other)) = (read("1m"), read("1h"));
    assert_eq!(raw.live_keys_that_differ(&other), ["schedules.x"]);
    assert_eq!(raw.live_keys_that_differ(&read("60s").1), Vec::<String>::new());
    let digest = |settings: &crate::config::Settings, raw| settings.live_settings(raw).digest;
    assert_ne!(digest(&minute, &raw), digest(&hour, &other));
    let (seconds, in_seconds) = read("60s");
    assert_eq!(digest(&minute, &raw), digest(&seconds, &in_seconds));
}
