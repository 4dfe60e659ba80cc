//! Everything that the documents name exists, and everything that exists for users is documented.

use std::collections::BTreeSet;

use crate::{files_below, read, root};

/// Returns the texts between backticks, except in code blocks.
fn quoted(text: &str) -> Vec<String> {
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    prose.iter().flat_map(|part| part.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

fn is_path(text: &str) -> bool {
    let plain = text.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
    plain && (text.ends_with('/') || text.ends_with(".rs") || text.ends_with(".md") || text.ends_with(".wit"))
}

fn is_type(text: &str) -> bool {
    text.len() > 2
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(char::is_alphanumeric)
        && text.chars().any(|c| c.is_ascii_lowercase())
}

#[test]
fn every_path_and_type_that_the_map_names_exists() {
    let sources: String =
        files_below(&root().join("host"), "rs").iter().map(|file| read(file)).collect::<Vec<_>>().join("\n");
    let mut missing = Vec::new();
    let mut checked = 0;
    let mut pages = ["host/ARCHITECTURE.md", "host/docs/concepts.md", ".github/CONTRIBUTING.md"]
        .map(|page| root().join(page))
        .to_vec();
    pages.extend(files_below(&root().join("host/docs/design"), "md"));
    for name in pages.iter().flat_map(|page| quoted(&read(page))) {
        if is_path(&name) {
            checked += 1;
            if !root().join(&name).exists() && !root().join("host").join(&name).exists() {
                missing.push(name);
            }
        } else if is_type(&name) {
            checked += 1;
            let kinds = ["struct", "enum", "trait", "type"];
            let is_there = |kind: &&str| {
                [" ", "<", "(", ";", ":", "\n"].iter().any(|end| sources.contains(&format!("{kind} {name}{end}")))
            };
            let is_variant = [",", " {", "("].iter().any(|end| sources.contains(&format!("    {name}{end}")));
            if !kinds.iter().any(is_there) && !is_variant {
                missing.push(name);
            }
        }
    }
    assert!(checked > 200, "the map names things: {checked}");
    assert!(
        missing.is_empty(),
        "the map, its design pages, the glossary or CONTRIBUTING name what is not there: {missing:?}"
    );
}

#[test]
fn every_plugin_folder_is_in_its_table() {
    let table = read(&root().join("plugins/README.md"));
    let mut folders = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("plugins")).expect("plugins/ is there") {
        let entry = entry.expect("a readable entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && name != "target" && !name.starts_with('.') {
            folders.insert(name);
        }
    }
    assert!(folders.len() >= 3, "the examples are there: {folders:?}");
    for folder in folders {
        assert!(table.contains(&format!("| [`{folder}`]({folder}) |")), "plugins/README.md has no row for {folder}");
    }
}
