//! The README stays short and true in what can be counted, and every reference between documents leads somewhere.

use std::path::{Path, PathBuf};

use crate::{files_below, read, root};

/// Returns every document that people read here.
fn documents() -> Vec<PathBuf> {
    let mut all = vec![root().join("README.md"), root().join("plugins/README.md")];
    for folder in ["host/docs", ".github"] {
        all.extend(files_below(&root().join(folder), "md"));
    }
    all.extend(["host/ARCHITECTURE.md", "host/CHANGELOG.md"].map(|file| root().join(file)));
    all
}

/// Returns a document without its blocks of code.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// Returns the anchor that a heading gets: small letters, dashes for spaces, and nothing but letters, digits, dashes and underscores.
fn anchor(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    plain.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

fn anchors(text: &str) -> Vec<String> {
    prose(text).lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// Returns the addresses of links and pictures that have no scheme.
fn references(text: &str) -> Vec<String> {
    let prose = prose(text);
    let links = prose.split("](").skip(1).filter_map(|part| part.split(')').next());
    let pictures = ["src=\"", "srcset=\""].into_iter();
    let pictures = pictures.flat_map(|mark| prose.split(mark).skip(1).filter_map(|part| part.split('"').next()));
    links.chain(pictures).filter(|link| !link.contains("://")).map(str::to_owned).collect()
}

#[test]
fn every_reference_leads_somewhere() {
    let (mut dead, mut found) = (Vec::new(), 0);
    for file in documents() {
        let text = read(&file);
        for link in references(&text) {
            found += 1;
            let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let target =
                if path.is_empty() { file.clone() } else { file.parent().unwrap_or(Path::new("/")).join(path) };
            let is_there = target.exists()
                && (fragment.is_empty() || anchors(&read(&target)).iter().any(|anchor| anchor == fragment));
            if !is_there {
                dead.push(format!("{}: {link}", file.strip_prefix(root()).unwrap_or(&file).display()));
            }
        }
    }
    assert!(found > 100, "the references are found: {found}");
    assert!(dead.is_empty(), "references that lead nowhere:\n{}", dead.join("\n"));
}

#[test]
fn the_index_names_every_page() {
    let index = read(&root().join("host/docs/index.md"));
    let pages = files_below(&root().join("host/docs"), "md").into_iter();
    let names =
        pages.map(|page| page.strip_prefix(root().join("host/docs")).expect("it is below").display().to_string());
    // The pages of folders are named by the folder, or by the architecture.
    let missing: Vec<String> = names
        .filter(|name| name != "index.md" && !name.contains('/') && !index.contains(&format!("]({name})")))
        .collect();
    assert!(missing.is_empty(), "host/docs/index.md does not name {missing:?}");
}

#[test]
fn the_readme_and_the_map_stay_short() {
    // Rows of tables are no prose.
    let words = |file: &str| {
        let text = prose(&read(&root().join(file)));
        text.lines().filter(|line| !line.starts_with(['|', '<'])).flat_map(str::split_whitespace).count()
    };
    let (readme, map) = (words("README.md"), words("host/ARCHITECTURE.md"));
    assert!(readme < 1000, "README.md has {readme} words of prose; move some to a page of host/docs");
    assert!(map < 2500, "host/ARCHITECTURE.md has {map} words; move some to host/docs/design");
}

#[test]
fn the_two_commands_are_those_of_the_readme() {
    let readme = read(&root().join("README.md"));
    assert!(readme.contains("```sh\ncargo run --release -- serve\n```"), "the command that runs a host stands alone");
    assert!(
        readme.contains("```sh\ncargo test --release --workspace\n```"),
        "the command that runs the tests stands alone"
    );
    let ci = read(&root().join(".ci/run"));
    let line = ci.lines().any(|line| line.ends_with(" cargo test --release --workspace"));
    assert!(line, ".ci/run runs the README's test command");
    let guide = read(&root().join(".github/CONTRIBUTING.md"));
    let aliases = read(&root().join(".cargo/config.toml"));
    let lanes: Vec<&str> = aliases.lines().filter(|line| line.starts_with("lane-")).collect();
    assert!(lanes.len() > 5, "the lanes are found: {}", lanes.len());
    for lane in lanes {
        let name = lane.split(' ').next().unwrap_or_default();
        assert!(guide.contains(&format!("`cargo {name}`")), "CONTRIBUTING.md does not name `cargo {name}`");
        assert!(lane.contains("test --release --workspace "), "{name} builds what all commands build");
    }
}

#[test]
fn the_search_for_references_finds_some() {
    let text = "[a](b.md#c) ![d](e.png) <img src=\"f.svg\"> [g](https://h)\n```sh\n[x](y)\n```\n[i](#j)\n";
    assert_eq!(references(text), ["b.md#c", "e.png", "#j", "f.svg"]);
    assert_eq!(anchor("### What `wharf` does, and why"), "what-wharf-does-and-why");
}
