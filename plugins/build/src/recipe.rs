//! From a guest's sources to its component: once for all languages, with what each does in a file of its own.

mod project;
mod rust;

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use plugin_kit::language::Language;

use crate::{digest, folders, guest::Guest, memories, toolchain, tools};

/// What stands between a guest's sources and its component.
struct Prepared<'a> {
    /// The digest of all that is compiled.
    sources: String,
    /// Who compiles: two of the same identity make the same bytes of the same sources.
    identity: String,
    compile: Box<dyn FnOnce() -> Result<Vec<u8>> + 'a>,
}

pub(crate) fn build(guest: &Guest) -> Result<PathBuf> {
    build_with(guest, &mut None)
}

/// Returns the component's path; sets `identity` to that of the toolchain that made it.
pub(crate) fn build_with(guest: &Guest, identity: &mut Option<String>) -> Result<PathBuf> {
    let components = folders::target().join("plugins");
    let work = folders::target().join("guests");
    for folder in [&components, &work] {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let _lock = lock(&work)?;

    let prepared = match guest.language {
        Language::Rust => rust::prepare(guest, &work)?,
        other => project::prepare(guest, other, &work)?,
    };
    let Prepared { sources, identity: by, compile } = prepared;
    identity.replace(by.clone());
    let component = components.join(format!("{}.wasm", guest.name));
    let note = work.join(format!("{}.built", guest.name));
    let wanted = || Ok::<_, anyhow::Error>(format!("{sources}\n{by}\n{}\n", digest::file(&component)?));
    if component.exists() && fs::read_to_string(&note).is_ok_and(|noted| wanted().is_ok_and(|now| now == noted)) {
        return Ok(component);
    }
    eprintln!("plugins: building {} with {by}", guest.name);
    let mut bytes = compile()?;
    if guest.more_memories > 0 {
        memories::append(&mut bytes, guest.more_memories)?;
    }
    // Beside the destination first: whoever watches the folder sees a whole file or none.
    let beside = components.join(format!("{}.new", guest.name));
    fs::write(&beside, bytes).with_context(|| format!("{} cannot be written", beside.display()))?;
    fs::rename(&beside, &component).with_context(|| format!("{} cannot be put in place", component.display()))?;
    fs::write(&note, wanted()?).with_context(|| format!("{} cannot be written", note.display()))?;
    Ok(component)
}

/// One builder at a time, over all processes: they share tools and cargo's output file. The lock goes with the handle.
pub(crate) fn lock(work: &Path) -> Result<File> {
    let lock = File::create(work.join("lock")).context("the builder's lock file cannot be made")?;
    lock.lock().context("the builder's lock cannot be taken")?;
    Ok(lock)
}

pub(crate) fn environment(language: Language) -> Result<Vec<(OsString, OsString)>> {
    let work = folders::target().join("guests");
    fs::create_dir_all(&work).with_context(|| format!("{} cannot be made", work.display()))?;
    let _lock = lock(&work)?;
    match language {
        Language::Rust => Ok(vec![("RUSTC".into(), toolchain::find()?.rustc.into())]),
        other => tools::shell(other, project::requirements(other))?.environment(),
    }
}
