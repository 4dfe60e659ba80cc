//! What a component is made of, as one number: the same on every machine, whatever the checkout's path.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{folders, guest::Guest};

/// The digest of all that decides what a guest becomes, the compiler aside.
pub(crate) fn sources(guest: &Guest) -> Result<String> {
    let mut files = vec![folders::plugins().join("Cargo.toml"), folders::plugins().join("Cargo.lock")];
    list(&folders::plugins().join(guest.package), &mut files)?;
    list(&folders::root().join("wit"), &mut files)?;
    // Words for people do not change the component, and the component itself is no source of it.
    files.retain(|file| file.extension().is_none_or(|extension| extension != "md" && extension != "wasm"));
    of_files(&format!("{:?} {}\n", guest.feature, guest.more_memories), files, folders::root())
}

/// The digest of a folder's files, but for one folder within.
pub(crate) fn folder(folder: &Path, except: &str) -> Result<String> {
    let mut files = Vec::new();
    list(folder, &mut files)?;
    files.retain(|file| !file.starts_with(folder.join(except)));
    of_files("", files, folder)
}

fn of_files(head: &str, files: Vec<PathBuf>, base: &Path) -> Result<String> {
    let mut entries = Vec::new();
    for file in files {
        let name = file.strip_prefix(base).unwrap_or(&file);
        let name: Vec<_> = name.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        let bytes = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        entries.push((name.join("/"), bytes));
    }
    entries.sort();
    let mut digest = Sha256::new();
    digest.update(head);
    for (name, bytes) in entries {
        digest.update(format!("{name} {}\n", bytes.len()));
        digest.update(bytes);
    }
    Ok(hex(&digest.finalize()))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))? {
        let path = entry?.path();
        // `cargo build` inside a guest's folder may have left its output there.
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            list(&path, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// The digest of one file, as `sha256sum` prints it.
pub(crate) fn file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(hex(&Sha256::digest(bytes)))
}

/// The digest of a text.
pub(crate) fn text(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
