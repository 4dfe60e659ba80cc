//! A language's view of the contract, where its own tools do not make one: C, Go and TypeScript.

mod c;
mod go;
mod typescript;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use wit_bindgen_core::Files;

use crate::contract;

/// The languages whose bindings this crate makes. The others' tools read the WIT themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    C,
    Go,
    TypeScript,
}

/// Writes the bindings of a world into `out`, over those of before. `wit` is a folder; without one it is the contract.
pub fn write(binding: Binding, wit: Option<&Path>, world: &str, out: &Path) -> Result<()> {
    let is_contract = wit.is_none();
    let (mut resolve, world) = contract::world(wit, world)?;
    let mut files = Files::default();
    match binding {
        Binding::C => c::generate(&mut resolve, world, is_contract, &mut files)?,
        Binding::Go => go::generate(&mut resolve, world, out, &mut files)?,
        Binding::TypeScript => typescript::generate(&resolve, world, &mut files)?,
    }
    for (name, bytes) in files.iter() {
        let path = out.join(name);
        let folder = path.parent().unwrap_or(out);
        fs::create_dir_all(folder).with_context(|| format!("could not make the folder {}", folder.display()))?;
        fs::write(&path, bytes).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
