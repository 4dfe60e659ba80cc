//! The components that are checked in beside their sources, so that a user needs no Wasm toolchain,
//! and the record that says what they were made of.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{digest, folders, guest, recipe};

/// The plugins that a user meets first, and the one that the binary carries.
pub const NAMES: [&str; 6] = ["words", "thumbnail", "word-index", "link-check", "summary", CARRIED];

/// Part of the binary, for `wharf bench`. It stands within its own folder: a host that is started here must not load it.
const CARRIED: &str = "bench";

const HEADER: &str = "# What the checked-in components were made of. Written by `cargo run --release -p plugins -- --prebuilt`, held true by a test.\n\n";

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The toolchain that made them all: another one makes other bytes.
    pub toolchain: String,
    pub plugins: BTreeMap<String, Digests>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    /// SHA-256 of the component, as `sha256sum` prints it.
    pub component: String,
    /// Of the guest's sources, the contract, the lock file and the profile.
    pub sources: String,
}

/// Where the checked-in component of this name is.
pub fn path(name: &str) -> PathBuf {
    let folder = if name == CARRIED { folder(name) } else { folders::plugins().to_owned() };
    folder.join(format!("{name}.wasm"))
}

/// Where the sources of the component of this name are.
pub fn folder(name: &str) -> PathBuf {
    folders::plugins().join(name)
}

fn record_path() -> PathBuf {
    folders::plugins().join("prebuilt.toml")
}

/// What the record says.
pub fn recorded() -> Result<Record> {
    let path = record_path();
    let text =
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read; --prebuilt makes it", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("{} is not a record of components; --prebuilt makes it anew", path.display()))
}

/// The same, as the checked-in files and the sources are now. `toolchain` is taken as given.
pub fn found(toolchain: String) -> Result<Record> {
    let mut plugins = BTreeMap::new();
    for name in NAMES {
        let digests = Digests { component: digest::file(&path(name))?, sources: digest::sources(guest::named(name)?)? };
        plugins.insert(name.to_owned(), digests);
    }
    Ok(Record { toolchain, plugins })
}

/// Builds a plugin, and returns its component and the toolchain that is in use.
pub fn rebuild(name: &str) -> Result<(PathBuf, String)> {
    let mut toolchain = None;
    let component = recipe::build_with(guest::named(name)?, &mut toolchain)?;
    Ok((component, toolchain.context("a component was made by no toolchain")?))
}

/// Builds the components anew and puts them beside their sources.
pub fn refresh() -> Result<Vec<PathBuf>> {
    let mut made_with = None;
    for name in NAMES {
        let (component, toolchain) = rebuild(name)?;
        fs::copy(&component, path(name)).with_context(|| format!("{} cannot be written", path(name).display()))?;
        made_with = Some(toolchain);
    }
    let record = found(made_with.context("there are no components to refresh")?)?;
    let text = HEADER.to_owned() + &toml::to_string(&record).context("the record does not fit TOML")?;
    fs::write(record_path(), text).with_context(|| format!("{} cannot be written", record_path().display()))?;
    Ok(NAMES.map(path).into())
}
