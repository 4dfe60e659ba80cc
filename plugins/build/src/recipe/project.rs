//! The other languages: the project that `wharf new` would write, built by the very command that it would print.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use plugin_kit::{
    bindings::{self, Binding},
    contract,
    language::Language,
    pack, project,
};

use super::Prepared;
use crate::{
    digest, folders,
    guest::Guest,
    tools::{self, Shell},
};

/// What npm put there stays: it is fetched once.
const KEPT: &str = "node_modules";

/// What packing does is part of the component too.
const PACKING: &str = include_str!("../../../kit/src/pack.rs");

pub(super) fn prepare<'a>(guest: &'a Guest, language: Language, work: &Path) -> Result<Prepared<'a>> {
    let folder = work.join("projects").join(guest.name);
    lay_out(&folder, language, guest)?;
    let requirements = requirements(language);
    let identity = match tools::pinned(requirements) {
        "" => "what package-lock.json names",
        pinned => pinned,
    };
    let identity = identity.to_owned();
    let mut sources = digest::folder(&folder, KEPT)?;
    if matches!(language, Language::C | Language::Go) && !guest.is_plain {
        sources.push_str(&digest::text(PACKING));
    }
    let work = work.to_owned();
    let compile = move || {
        let shell = tools::shell(language, requirements)?.with_path(stand_in(&work)?);
        compile(&shell, language, guest, &folder)
    };
    Ok(Prepared { sources, identity, compile: Box::new(compile) })
}

/// What is fetched from PyPI to build it, with its hashes; nothing where npm fetches.
pub(super) fn requirements(language: Language) -> &'static str {
    let files = project::files_of(language);
    // Of Python the other file has the plugin's own packages.
    let name = if language == Language::Python { "build-requirements.txt" } else { "requirements.txt" };
    let pinned = files.iter().find(|(path, _)| *path == name);
    pinned.map_or("", |(_, text)| text)
}

fn lay_out(folder: &Path, language: Language, guest: &Guest) -> Result<()> {
    let name = guest.name;
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for entry in fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == KEPT) {
            continue;
        }
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.with_context(|| format!("{} cannot be removed", path.display()))?;
    }
    if name == language.example() {
        project::write(folder, language, name)?;
    } else {
        copy(&folders::plugins().join(name), folder)?;
        for (file, text) in project::helpers(language) {
            fs::write(folder.join(file), text).with_context(|| format!("{file} cannot be written"))?;
        }
        if guest.is_plain {
            return Ok(());
        }
        put_contract(&folder.join("wit/deps/wharf"))?;
    }
    // What `wharf bindings` does for an author.
    match language {
        Language::C => bindings::write(Binding::C, None, contract::WORLD, &folder.join("gen")),
        Language::Go => bindings::write(Binding::Go, None, contract::WORLD, &folder.join("gen")),
        Language::TypeScript => {
            bindings::write(Binding::TypeScript, Some(&folder.join("wit")), "words", &folder.join("types"))
        }
        Language::Rust | Language::JavaScript | Language::JavaScriptWeb | Language::Python => Ok(()),
    }
}

fn put_contract(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for (file, text) in contract::FILES {
        fs::write(folder.join(file), text).with_context(|| format!("{file} of the contract cannot be written"))?;
    }
    Ok(())
}

/// Copies a plugin that is no example, and so no project of `wharf new`.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("{} cannot be made", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("{} cannot be listed", from.display()))? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to)?;
        } else {
            fs::copy(&path, &to).with_context(|| format!("{} cannot be copied", path.display()))?;
        }
    }
    Ok(())
}

/// A folder with a `wharf` that does nothing: what the command asks of it is done here, before and after, by the same code.
fn stand_in(work: &Path) -> Result<PathBuf> {
    let folder = work.join("tools/stand-in");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    tools::script(&folder.join("wharf"), "exit 0")?;
    Ok(folder)
}

fn compile(shell: &Shell, language: Language, guest: &Guest, folder: &Path) -> Result<Vec<u8>> {
    let name = guest.name;
    shell.run(language.command(), folder, &format!("build the plugin {name}"))?;
    let read = |file: &str| {
        let path = folder.join(file);
        fs::read(&path).with_context(|| format!("{} cannot be read, though the build succeeded", path.display()))
    };
    match language {
        // What `wharf pack` does for an author.
        Language::C | Language::Go if !guest.is_plain => pack::pack(&read("core.wasm")?, None, contract::WORLD),
        _ => read(&format!("{name}.wasm")),
    }
}
