//! From a core module to a component.

use std::path::Path;

use anyhow::{Context, Result, bail};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use crate::contract;

const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// The ID of a custom section.
const CUSTOM: u8 = 0;
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// How the names of the sections begin in which a module says which world it is of.
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
    let has_world = has_world(&core);
    if wit.is_none() && !has_world && is_program(&core) {
        return program(&core);
    }
    if wit.is_some() || !has_world {
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

/// Returns true if a module carries its world. A program that makes components has that name in its data, too.
fn has_world(core: &[u8]) -> bool {
    let name = |content| leb128(content).and_then(|(size, rest)| rest.get(..size));
    sections(core)
        .any(|(id, content)| id == CUSTOM && name(content).is_some_and(|name| name.starts_with(WORLD_SECTION)))
}

/// Returns true if a module is a program for WASI preview 1: it has a function `_start`.
fn is_program(core: &[u8]) -> bool {
    const EXPORT: u8 = 7;
    const START: &[u8] = b"\x06_start\0";
    sections(core).any(|(id, content)| id == EXPORT && content.windows(START.len()).any(|part| part == START))
}

/// Makes a program of WASI 0.2 of one of preview 1.
fn program(core: &[u8]) -> Result<Vec<u8>> {
    if sections(core).any(|(id, content)| id == CUSTOM && content.starts_with(b"\x0ago:buildid")) {
        bail!(
            "it was made by Go, whose programs break behind the adapter for WASI preview 1 when their heap grows; \
             put it into the plugin folder as it is"
        );
    }
    ComponentEncoder::default()
        .validate(true)
        .module(core)
        .context("the program does not fit WASI preview 1")?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
        .context("the adapter for WASI preview 1 is not one")?
        .encode()
        .context("the program does not fit WASI preview 1")
}

/// The sections of a module, as far as they are whole.
fn sections(core: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = core.get(CORE_MODULE.len()..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (id, after) = rest.split_first()?;
        let (size, content) = leb128(after)?;
        let (content, next) = content.split_at_checked(size)?;
        rest = next;
        Some((*id, content))
    })
}

/// The custom section in which a component has a manifest.
const MANIFEST_SECTION: &[u8] = b"wharf-manifest";

/// Returns true if these are the bytes of a program that a host runs as it is: a core module for WASI preview 1.
pub fn is_program_as_it_is(bytes: &[u8]) -> bool {
    bytes.starts_with(CORE_MODULE) && !has_world(bytes) && is_program(bytes)
}

/// Returns true if these are the bytes of a component.
pub fn is_component(bytes: &[u8]) -> bool {
    bytes.starts_with(COMPONENT)
}

/// Writes a manifest into a component or a program, in place of one that it has.
pub fn with_manifest(file: &[u8], manifest: &str) -> Result<Vec<u8>> {
    let is_manifest = |name: &[u8]| name == MANIFEST_SECTION;
    // Components and core modules have heads of one length.
    let mut kept = without_custom(file, COMPONENT, is_manifest).context("the file is cut off")?;
    let mut content = Vec::new();
    write_leb128(&mut content, MANIFEST_SECTION.len());
    content.extend(MANIFEST_SECTION);
    content.extend(manifest.as_bytes());
    kept.push(CUSTOM);
    write_leb128(&mut kept, content.len());
    kept.extend(content);
    Ok(kept)
}

fn write_leb128(to: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Leaves out what debuggers read, many times the size of the code. The functions' names stay: trap reports show them.
fn without_debug_information(core: &[u8]) -> Option<Vec<u8>> {
    without_custom(core, CORE_MODULE, |name| name.starts_with(b".debug_"))
}

/// Leaves out the custom sections whose names are such.
fn without_custom(bytes: &[u8], head: &[u8], is_left_out: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let (head, mut rest) = bytes.split_at_checked(head.len())?;
    let mut kept = head.to_vec();
    while let [id, after @ ..] = rest {
        let (size, content) = leb128(after)?;
        let (content, next) = content.split_at_checked(size)?;
        let name = || leb128(content).and_then(|(size, rest)| rest.get(..size));
        let is_out = *id == CUSTOM && name().is_some_and(&is_left_out);
        if !is_out {
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
