//! Tests of the conventions that no reader can check at a glance.

mod docs;
mod layers;
mod licences;
mod pages;
mod readme;
mod streams;
mod words;

use std::path::{Path, PathBuf};

/// Returns the root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()))
}

/// Returns every file with extension `ext` below `dir`, sorted, without build output.
fn files_below(dir: &Path, ext: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("could not list {}: {e}", dir.display())) {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == ext) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
