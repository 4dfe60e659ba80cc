//! C: one header, its source, and an object file that carries the world.

use anyhow::Result;
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::{Resolve, WorldId};

pub(super) fn generate(resolve: &mut Resolve, world: WorldId, files: &mut Files) -> Result<()> {
    wit_bindgen_c::Opts::default().build().generate(resolve, world, files)
}
