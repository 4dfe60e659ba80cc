//! Makes plugins of small core modules that no compiler would make, for these tests and for the bench of traps.

use std::fmt::Write as _;
use std::path::Path;

use wasm_encoder::{Encode, RawSection, Section};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser_newer::Resolve;

/// Makes a component of a core module that has the exports of the world `handler-plugin`.
pub(crate) fn wrapped(mut module: Vec<u8>) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit")).unwrap();
    let world = resolve.select_world(&[package], Some("handler-plugin")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

/// Writes a number as it is in a module's data.
pub(crate) fn bytes_of(number: usize) -> String {
    u32::try_from(number).unwrap().to_le_bytes().iter().map(|byte| format!("\\{byte:02x}")).collect()
}

pub(crate) fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    RawSection { id, data: content }.append_to(&mut bytes);
    bytes
}

fn custom(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    name.encode(&mut bytes);
    bytes.extend_from_slice(content);
    section(0, &bytes)
}

/// A plugin `evil` with a task `do`, whose handler traps.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) describe_traps: bool,
    /// Names of the functions that it calls one after another until it traps; an empty one has no name.
    pub(crate) names: Vec<String>,
    /// Further sections of its core module.
    pub(crate) custom: Vec<u8>,
}

impl Made {
    pub(crate) fn component(&self) -> Vec<u8> {
        let manifest = "name = 'evil'\nversion = '1'\n[tasks.do]\nretry = { attempts = 1 }\n";
        let (at, length, escaped) = (1024, manifest.len(), manifest.replace('\n', "\\n"));
        // The indices after those of `cabi_realloc`, `describe` and `handle`.
        const FIRST: usize = 3;
        let mut chain = String::new();
        for (number, name) in self.names.iter().enumerate() {
            let next = FIRST + number + 1;
            let name = if name.is_empty() { String::new() } else { format!("(@name \"{name}\")") };
            let is_last = number + 1 == self.names.len();
            let body = if is_last { "unreachable".to_owned() } else { format!("call {next}") };
            let _ = write!(chain, "(func {name} {body})");
        }
        let first = if self.names.is_empty() { "unreachable".to_owned() } else { format!("call {FIRST}") };
        let text = format!(
            r#"(module
                (memory (export "memory") 4)
                (data (i32.const {at}) "{escaped}")
                (data (i32.const 16) "{}{}")
                (global $free (mut i32) (i32.const 4096))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (global.get $free)
                    (global.set $free (i32.and (i32.add (global.get $free) (i32.add (local.get 3) (i32.const 15))) (i32.const -8))))
                (func (export "wharf:plugin/manifest@0.1.0#describe") (result i32) {} (i32.const 16))
                (func $handle (export "wharf:plugin/handler@0.1.0#handle")
                    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                    {first}
                    (i32.const 64))
                {chain})"#,
            bytes_of(at),
            bytes_of(length),
            if self.describe_traps { first.as_str() } else { "" },
        );
        let mut module = wat::parse_str(text).unwrap();
        module.extend_from_slice(&self.custom);
        wrapped(module)
    }
}

/// Makes debug sections whose functions are inlined into each other `depth` deep, all of them around every instruction.
pub(crate) fn inlined(depth: usize) -> Vec<u8> {
    // Tag, whether it has children, attributes with their forms: low_pc as an address, high_pc as four bytes.
    let abbrev = [
        &[1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0, 0][..],
        &[2, 0x2e, 1, 0x11, 0x01, 0x12, 0x06, 0, 0],
        &[3, 0x1d, 1, 0x11, 0x01, 0x12, 0x06, 0, 0],
        &[0],
    ]
    .concat();
    let everywhere = [&1_u32.to_le_bytes()[..], &0xffff_u32.to_le_bytes()].concat();
    let mut entries = Vec::new();
    for number in 0..depth + 2 {
        entries.push(number.min(2) as u8 + 1);
        entries.extend_from_slice(&everywhere);
    }
    entries.extend(std::iter::repeat_n(0, depth + 2));
    let unit = [&4_u16.to_le_bytes()[..], &0_u32.to_le_bytes(), &[4], &entries].concat();
    let info = [&u32::try_from(unit.len()).unwrap().to_le_bytes()[..], &unit].concat();
    [custom(".debug_abbrev", &abbrev), custom(".debug_info", &info)].concat()
}

/// Makes a line program in which all code from its first byte on is line 7 of src/lib.rs.
pub(crate) fn line_program() -> Vec<u8> {
    let tables =
        [&[1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1][..], b"src\0\0lib.rs\0\x01\0\0\0"].concat();
    let program = b"\0\x05\x02\x01\0\0\0\x03\x06\x01\x02\xff\x7f\0\x01\x01";
    let header =
        [&4_u16.to_le_bytes()[..], &u32::try_from(tables.len()).unwrap().to_le_bytes(), &tables, program].concat();
    let unit = [&u32::try_from(header.len()).unwrap().to_le_bytes()[..], &header].concat();
    custom(".debug_line", &unit)
}
