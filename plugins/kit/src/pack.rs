//! From a core module to a component.

use std::path::Path;

use anyhow::{Context, Result, bail};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use crate::contract;

const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// How linkers and bindings name the section in which a module says which world it is of.
const WORLD_SECTION: &[u8] = b"component-type";

/// Makes a component of a core module. `wit` is a folder; without one it is the contract. A module that carries its world
/// already, as those of wit-bindgen for Rust and C do, is taken by its word.
pub fn pack(core: &[u8], wit: Option<&Path>, world: &str) -> Result<Vec<u8>> {
    if core.starts_with(COMPONENT) {
        bail!("it is a component already: put it into the plugin folder as it is");
    }
    if !core.starts_with(CORE_MODULE) {
        bail!("it is no WebAssembly module: it does not begin with the bytes of one");
    }
    let mut core = without_debug_information(core).context("the module is cut off")?;
    if wit.is_some() || !core.windows(WORLD_SECTION.len()).any(|part| part == WORLD_SECTION) {
        let (resolve, world) = contract::world(wit, world)?;
        embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8, false)
            .context("the world could not be written into the module")?;
    }
    ComponentEncoder::default()
        .validate(true)
        .module(&core)
        .context("the module does not fit its world")?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)
        .context("the adapter for WASI preview 1 is not one")?
        .encode()
        .context("the module does not fit its world")
}

/// Leaves out what debuggers read, many times the size of the code. The functions' names stay: trap reports show them.
fn without_debug_information(core: &[u8]) -> Option<Vec<u8>> {
    const CUSTOM: u8 = 0;
    let (head, mut rest) = core.split_at_checked(CORE_MODULE.len())?;
    let mut kept = head.to_vec();
    while let [id, after @ ..] = rest {
        let (size, content) = leb128(after)?;
        let (content, next) = content.split_at_checked(size)?;
        let is_debug = *id == CUSTOM && leb128(content).is_some_and(|(_, name)| name.starts_with(b".debug_"));
        if !is_debug {
            kept.extend(&rest[..rest.len() - next.len()]);
        }
        rest = next;
    }
    Some(kept)
}

/// A number as WebAssembly writes it, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0_usize;
    for (place, byte) in bytes.iter().enumerate().take(5) {
        number |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[place + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests;
