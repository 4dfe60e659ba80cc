use std::collections::BTreeSet;
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
        let listed: BTreeSet<String> = files_of(language).iter().map(|(path, _)| (*path).to_owned()).collect();
        if language == Language::Rust {
            assert!(listed.is_superset(&found), "{language}: {found:?} is not all in {listed:?}");
        } else {
            assert_eq!(listed, found, "{language}");
        }
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
    let of = |language, name: &str| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        create(&dir.path().join(name), language, name).expect("it can be made");
        let mut all = String::new();
        let mut found = BTreeSet::new();
        files_below(&dir.path().join(name), &dir.path().join(name), &mut found);
        for file in found {
            all += &fs::read_to_string(dir.path().join(name).join(file)).expect("a text");
        }
        all
    };
    for language in Language::ALL {
        assert!(of(language, "shout-2").contains("name = \"shout-2\""), "{language} has a manifest with its name");
        if language != Language::Rust {
            assert!(!of(language, "shout-2").contains(language.example()), "{language}");
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
fn what_stands_around_javascript_is_the_same_for_typescript() {
    for file in ["guard.js", "url.js", "web.js"] {
        let of = |folder: &str| fs::read_to_string(plugins().join(folder).join(file)).expect("it is there");
        assert_eq!(of("words-js"), of("words-ts"), "{file}");
    }
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("mine");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("words.c"), "precious").expect("a file");
    let refused = create(&folder, Language::C, "mine").expect_err("it is there");
    assert!(matches!(refused, NotMade::Exists(_)), "{refused}");
    assert_eq!(fs::read_to_string(folder.join("words.c")).expect("still there"), "precious");
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
}

#[test]
fn bad_names_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for name in ["", "-x", "x-", "9lives", "Upper", "under_score", "../up", "a/b", "a b", "ä", &"x".repeat(41)] {
        let refused = create(&dir.path().join("made"), Language::Go, name).expect_err(name);
        assert!(matches!(refused, NotMade::Name(..)), "{name}: {refused}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0);
}
