//! Crates depend downward only, and within a crate a module uses only modules declared above it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{files_below, read, root};

/// The crates of the host that each crate may use, as in the table in `host/ARCHITECTURE.md`.
const MAY_USE: [(&str, &[&str]); 5] = [
    ("wharf-core", &[]),
    ("wharf-store", &["wharf-core"]),
    ("wharf-engine", &["wharf-core"]),
    ("wharf-runner", &["wharf-core", "wharf-store", "wharf-engine"]),
    ("wharf", &["wharf-core", "wharf-store", "wharf-engine", "wharf-runner"]),
];

/// External crates that only some crates of the host may use.
const ONLY_IN: [(&str, &[&str]); 9] = [
    ("wasmtime", &["wharf-engine"]),
    ("wasmtime-wasi", &["wharf-engine"]),
    ("rusqlite", &["wharf-store"]),
    ("axum", &["wharf"]),
    ("clap", &["wharf"]),
    ("ureq", &["wharf"]),
    ("notify", &["wharf-runner"]),
    ("anyhow", &["wharf"]),
    ("serde", &["wharf-store", "wharf-engine", "wharf"]),
];

/// Returns the dependencies of each package in the workspace, without dev-dependencies.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let name = |v: &serde_json::Value| v["name"].as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().expect("dependencies");
            (name(package), all.iter().filter(|d| d["kind"].is_null()).map(name).collect())
        })
        .collect()
}

#[test]
fn crates_depend_downward_only() {
    let dependencies = dependencies();
    let host_crates: Vec<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in MAY_USE {
        let uses = dependencies.get(name).unwrap_or_else(|| panic!("{name} is not in the workspace"));
        for used in uses.iter().filter(|d| host_crates.contains(&d.as_str())) {
            assert!(allowed.contains(&used.as_str()), "{name} must not use {used}");
        }
    }
    assert_eq!(dependencies["wharf-core"], Vec::<String>::new(), "core uses std and nothing else");
}

#[test]
fn external_crates_are_used_where_they_belong() {
    for (name, uses) in dependencies() {
        for (external, crates) in ONLY_IN {
            if name.starts_with("wharf") && name != "wharf-tests" && uses.iter().any(|u| u == external) {
                assert!(crates.contains(&name.as_str()), "{name} must not use {external}");
            }
        }
    }
}

/// Returns the modules that a file declares, in order, without test modules.
fn declared(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut for_tests = false;
    for line in text.lines() {
        if line.trim() == "#[cfg(test)]" {
            for_tests = true;
            continue;
        }
        let bare = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        if let Some(name) = bare.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
            && !for_tests
        {
            found.push(name.to_owned());
        }
        for_tests = false;
    }
    found
}

/// Returns the files of module `name`, which `parent` declares, without tests.
fn files_of(parent: &Path, name: &str) -> Vec<PathBuf> {
    let stem = parent.file_stem().expect("a file").to_string_lossy().into_owned();
    let dir = parent.parent().expect("a folder");
    let dir = if ["lib", "main", "mod"].contains(&stem.as_str()) { dir.to_owned() } else { dir.join(stem) };
    let mut files = Vec::new();
    let single = dir.join(format!("{name}.rs"));
    if single.is_file() {
        files.push(single);
    }
    let folder = dir.join(name);
    if folder.is_dir() {
        files.extend(files_below(&folder, "rs").into_iter().filter(|f| f.file_name().is_some_and(|n| n != "tests.rs")));
    }
    files
}

/// Returns the path of a file's module from the crate's root: `http::wire` for src/http/wire.rs, empty for lib.rs and main.rs.
fn module_path(file: &Path) -> Vec<String> {
    let text = file.with_extension("").to_string_lossy().into_owned();
    let path = text.rsplit_once("/src/").expect("a source file").1;
    path.split('/').filter(|part| !["lib", "main", "mod"].contains(part)).map(str::to_owned).collect()
}

/// Returns the code of a file without comments and tests, where `self::` and `super::` are written as paths from the crate's root.
fn code_with_full_paths(text: &str, module: &[String]) -> String {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    let code: String = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut full = String::with_capacity(code.len());
    let mut rest = code.as_str();
    while let Some(at) = rest.find("super::").into_iter().chain(rest.find("self::")).min() {
        let (before, from) = rest.split_at(at);
        full.push_str(before);
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            // A part of another word or path.
            let (word, after) = from.split_at("self::".len());
            full.push_str(word);
            rest = after;
            continue;
        }
        let (mut levels, mut after) = (0, from.strip_prefix("self::").unwrap_or(from));
        while let Some(parent) = after.strip_prefix("super::") {
            (levels, after) = (levels + 1, parent);
        }
        full.push_str("crate::");
        module.iter().take(module.len().saturating_sub(levels)).for_each(|name| full.push_str(&format!("{name}::")));
        rest = after;
    }
    full + rest
}

/// Returns the modules that code names by `prefix`: in `use crate::{a, b::C}` and in `crate::a::f()`.
fn named(code: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in code.split(prefix).skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push(std::mem::take(&mut word)),
                    _ if depth == 0 => word.push(c),
                    _ => {}
                }
            }
            found.push(word);
        } else {
            found.push(rest.to_owned());
        }
    }
    let name = |text: &String| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    found.iter().map(name).collect()
}

#[test]
fn modules_use_only_modules_declared_above_them() {
    let host = root().join("host");
    let mut upward = Vec::new();
    let mut checked = 0;
    for parent in files_below(&host, "rs").into_iter().filter(|f| f.to_string_lossy().contains("/src/")) {
        let modules = declared(&read(&parent));
        let stem = parent.file_stem().expect("a file").to_string_lossy().into_owned();
        // The path of this level from anywhere in the crate: `crate::` at the root, `crate::http::` below.
        let level = match stem.as_str() {
            "lib" | "main" => "crate::".to_owned(),
            _ => {
                let path = module_path(&parent).join("::");
                format!("crate::{path}::")
            }
        };
        for (place, module) in modules.iter().enumerate() {
            for file in files_of(&parent, module) {
                checked += 1;
                let code = code_with_full_paths(&read(&file), &module_path(&file));
                for name in named(&code, &level) {
                    let at = modules.iter().position(|m| *m == name);
                    if at.is_some_and(|at| at > place) {
                        upward.push(format!("{} uses {level}{name}, which is declared below {module}", file.display()));
                    }
                }
            }
        }
    }
    assert!(checked > 20, "the modules are found: {checked} files");
    assert!(upward.is_empty(), "upward arrows:\n{}", upward.join("\n"));
}

#[test]
fn the_search_for_arrows_finds_one() {
    let text = "use crate::low::Thing;\nuse crate::{a::B, deep::{x, y}, c};\nfn f() { crate::high::go() }\n";
    assert_eq!(named(text, "crate::"), ["low", "a", "deep", "c", "high"]);
    let relative = "use super::wire::Job;\nuse super::super::{cli, config::Flags};\nfn f() { self::part::go(); myself::x() }\npub(super) fn g() {}\n";
    let code = code_with_full_paths(relative, &["http".to_owned(), "jobs".to_owned()]);
    assert_eq!(named(&code, "crate::http::"), ["wire", "jobs"]);
    assert_eq!(named(&code, "crate::"), ["http", "cli", "config", "http"]);
    assert_eq!(declared("pub mod a;\nmod b;\n#[cfg(test)]\nmod tests;\npub(crate) mod c;\n"), ["a", "b", "c"]);
}

/// Returns the dependencies and features that `cargo tree` lists, sorted and without the shape of the tree.
fn features(of: &[&str]) -> Vec<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--prefix", "none", "-f", "{p} [{f}]"])
        .args(of)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<String> = text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect();
    lines.sort();
    lines.dedup();
    lines
}

/// The two commands in the README must agree on every feature, so that wasmtime, which takes minutes to build, is built
/// only once.
#[test]
fn running_and_testing_build_the_same_dependencies() {
    let run = features(&["-p", "wharf", "-e", "normal,no-proc-macro"]);
    let test = features(&["--workspace", "-e", "normal,dev,no-proc-macro"]);
    let other: Vec<_> = run.iter().filter(|line| !test.contains(line)).collect();
    assert!(run.len() > 100, "the tree was read: {}", run.len());
    assert!(other.is_empty(), "`cargo run` builds these with other features than `cargo test --workspace`: {other:#?}");
}
