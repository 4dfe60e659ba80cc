//! The contract between host and plugins, as it stands in `wit/`: what bindings are made from and components are held to.

use std::path::Path;

use anyhow::{Context, Result, bail};
use wit_bindgen_core::wit_parser::{Resolve, WorldId};

/// The files of the package `wharf:plugin`.
pub const FILES: [(&str, &str); 4] = [
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("host.wit", include_str!("../../../wit/host.wit")),
    ("handler.wit", include_str!("../../../wit/handler.wit")),
    ("world.wit", include_str!("../../../wit/world.wit")),
];

/// The world of a plugin that runs jobs and answers broadcasts.
pub const WORLD: &str = "plugin";

/// Reads a folder of WIT, or the contract itself where none is given, and finds a world in it.
pub(crate) fn world(folder: Option<&Path>, name: &str) -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let package = match folder {
        Some(folder) => {
            resolve.push_path(folder).with_context(|| format!("the WIT of {} cannot be read", folder.display()))?.0
        }
        None => own(&mut resolve)?,
    };
    match resolve.select_world(&[package], Some(name)) {
        Ok(world) => Ok((resolve, world)),
        Err(_) => {
            let worlds: Vec<_> = resolve.packages[package].worlds.keys().map(String::as_str).collect();
            bail!("there is no world `{name}`; there are {}", worlds.join(", "))
        }
    }
}

fn own(resolve: &mut Resolve) -> Result<wit_bindgen_core::wit_parser::PackageId> {
    let mut sources = wit_bindgen_core::wit_parser::SourceMap::new();
    for (name, text) in FILES {
        sources.push_str(name, text);
    }
    let group = sources.parse().map_err(|(_, error)| error).context("the contract cannot be read")?;
    resolve.push_group(group).map_err(anyhow::Error::from).context("the contract cannot be read")
}
