//! C: one header, its source, and an object file that carries the world.

use anyhow::Result;
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::{Resolve, WorldId};

use crate::contract;

/// All worlds of the contract have one name in C: a plugin that gets a subscriber names another world in its build, and nothing else.
pub(super) fn generate(resolve: &mut Resolve, world: WorldId, is_contract: bool, files: &mut Files) -> Result<()> {
    let rename_world = is_contract.then(|| contract::WORLD.to_owned());
    wit_bindgen_c::Opts { rename_world, ..wit_bindgen_c::Opts::default() }.build().generate(resolve, world, files)
}
