use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;

/// Where the examples are.
fn plugins() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("plugins/ is above")
}

/// What a build in place may leave there.
const MADE: [&str; 9] = ["node_modules", ".venv", "gen", "types", "build", "target", "__pycache__", "deps", "packages"];

fn files_below(folder: &Path, base: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of an example") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().expect("entries have names").to_string_lossy().into_owned();
        if path.is_dir() && !MADE.contains(&name.as_str()) {
            files_below(&path, base, found);
        } else if path.is_file() && !name.ends_with(".wasm") {
            found.insert(path.strip_prefix(base).expect("below").to_string_lossy().into_owned());
        }
    }
}

#[test]
fn a_project_has_every_file_of_its_example() {
    for language in Language::ALL {
        let mut found = BTreeSet::new();
        let folder = plugins().join(language.example());
        files_below(&folder, &folder, &mut found);
        if matches!(language, Language::JavaScript | Language::TypeScript) {
            // What stands around a plugin is of both languages.
            let shared = plugins().join("kit/src/javascript");
            files_below(&shared, &shared, &mut found);
        }
        let listed: BTreeSet<String> = files_of(language).iter().map(|(path, _)| (*path).to_owned()).collect();
        if language == Language::Rust {
            assert!(listed.is_superset(&found), "{language}: {found:?} is not all in {listed:?}");
        } else {
            assert_eq!(listed, found, "{language}");
        }
    }
}

/// What a new project has, by its path.
fn made(language: Language, name: &str, kind: Kind) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join(name);
    create(&folder, language, name, kind).expect("it can be made");
    let mut found = BTreeSet::new();
    files_below(&folder, &folder, &mut found);
    found.into_iter().map(|file| (file.clone(), fs::read_to_string(folder.join(file)).expect("a text"))).collect()
}

#[test]
fn a_handler_is_alone_unless_a_subscriber_is_asked_for() {
    for language in Language::ALL {
        for (path, edits) in alone::edits(language) {
            let (_, text) = files_of(language)
                .iter()
                .find(|(file, _)| file == path)
                .unwrap_or_else(|| panic!("{language}: {path}"));
            let mut text = (*text).to_owned();
            for (place, edit) in edits.iter().enumerate() {
                text = edit.of(&text).unwrap_or_else(|| panic!("{language}, {path}: edit {place} has no place"));
            }
        }
        let is_of_subscribers =
            |text: &str| ["ubscriber", "receive(", "text.written", "roadcast"].iter().any(|word| text.contains(word));
        let alone = made(language, "mine", Kind::Handler);
        // The contract has both, and so has what is of both.
        for (path, text) in alone.iter().filter(|(path, _)| !path.ends_with(".wit") && *path != "guard.js") {
            let lines: Vec<&str> = text.lines().filter(|line| is_of_subscribers(line)).collect();
            assert!(lines.is_empty(), "{language}, {path}: {lines:?}");
            assert!(!text.contains("\n\n\n\n") && !text.ends_with("\n\n"), "{language}, {path}: {text}");
        }
        let both = made(language, "mine", Kind::HandlerAndSubscriber);
        assert!(both.keys().eq(alone.keys()), "{language}");
        assert!(both.values().any(|text| text.contains("text.written")), "{language} has a topic");
        let of_example = files_of(language).iter().find(|(path, _)| *path == "README.md").expect("it has one").1;
        assert_eq!(both["README.md"].lines().count(), of_example.lines().count(), "{language}");
    }
}

#[test]
fn a_plain_project_does_not_mention_the_host_in_its_sources() {
    for language in Language::ALL {
        let files = made(language, "shout-2", Kind::Plain);
        for (path, text) in files.iter().filter(|(path, _)| *path != "README.md") {
            let mentions = text.to_lowercase().lines().find(|line| line.contains("wharf")).map(str::to_owned);
            assert!(mentions.is_none(), "{language}, {path}: {mentions:?}");
            assert!(!text.contains("tally") && !text.contains("functions-"), "{language}, {path} has another name");
        }
        assert!(files["README.md"].contains("wharf check shout-2.wasm"), "{language}");
    }
}

#[test]
fn what_a_rust_project_depends_on_is_what_its_example_does() {
    let workspace = fs::read_to_string(plugins().join("Cargo.toml")).expect("the guests' workspace");
    let project = files_of(Language::Rust).iter().find(|(path, _)| *path == "Cargo.toml").expect("it has one").1;
    for dependency in ["wit-bindgen", "serde", "serde_json"] {
        let line =
            |text: &str| text.lines().find(|line| line.starts_with(&format!("{dependency} = "))).map(str::to_owned);
        assert!(line(project).is_some(), "{dependency} stands in the project");
        assert_eq!(line(project), line(&workspace), "{dependency}");
    }
}

#[test]
fn the_example_is_a_project_of_its_own_name_and_another_has_none_of_it() {
    for language in Language::ALL {
        let all = made(language, "shout-2", Kind::HandlerAndSubscriber).into_values().collect::<String>();
        assert!(all.contains("name = \"shout-2\""), "{language} has a manifest with its name");
        if language != Language::Rust {
            assert!(!all.contains(language.example()), "{language}");
        }
    }
}

/// The tests of what a sandbox has instead of a console and of Math.random are those of a plugin with the same files.
#[test]
fn what_is_tested_of_javascript_is_what_a_project_has() {
    for file in ["system.js", "utf8.js"] {
        let of = |folder: &str| fs::read_to_string(plugins().join(folder).join(file)).expect("it is there");
        assert_eq!(of("outside-js"), of("words-js").replace("words-js", "outside-js"), "{file}");
    }
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("mine");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("words.c"), "precious").expect("a file");
    let refused = create(&folder, Language::C, "mine", Kind::Handler).expect_err("it is there");
    assert!(matches!(refused, NotMade::Exists(_)), "{refused}");
    assert_eq!(fs::read_to_string(folder.join("words.c")).expect("still there"), "precious");
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
}

#[test]
fn bad_names_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for name in ["", "-x", "x-", "9lives", "Upper", "under_score", "../up", "a/b", "a b", "ä", &"x".repeat(41)] {
        let refused = create(&dir.path().join("made"), Language::Go, name, Kind::Plain).expect_err(name);
        assert!(matches!(refused, NotMade::Name(..)), "{name}: {refused}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0);
}
