//! What of a component is compiled: its code, and names of its functions that are short. Debug information and all other
//! custom sections stay behind, so that nobody who looks at a trap later has to read what a stranger wrote there.

use std::collections::HashMap;
use std::ops::Range;

use wasmparser::{Encoding, KnownCustom, Name, NameSectionReader, Parser, Payload};
use wharf_core::bounds;

use crate::inspect::symbol_names::Readable;

const CUSTOM_SECTION: u8 = 0;
const MODULE_SECTION: u8 = 1;
const COMPONENT_SECTION: u8 = 4;
/// Of a name section.
const FUNCTION_NAMES: u8 = 1;

/// A component without what is not compiled, and what was left out of its modules.
pub(crate) struct Stripped<'a> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) modules: Vec<Module<'a>>,
}

/// A core module's debug sections, and where its code went.
#[derive(Default)]
pub(crate) struct Module<'a> {
    /// The contents of its code section, in the bytes of [`Stripped`].
    pub(crate) code: Range<usize>,
    /// By name: ".debug_line" and such.
    pub(crate) debug: HashMap<&'a str, &'a [u8]>,
}

/// A module or component that is being written.
struct Open<'a> {
    bytes: Vec<u8>,
    is_module: bool,
    /// Places in `bytes` of its own code, or of that of modules within.
    modules: Vec<Module<'a>>,
    /// Its own, if it is a module.
    debug: HashMap<&'a str, &'a [u8]>,
    code: Range<usize>,
    names: Vec<(u32, String)>,
}

/// # Errors
/// When it is no component; what was validated is one.
pub(crate) fn strip(component: &[u8]) -> Result<Stripped<'_>, String> {
    let (mut open, mut names) = (Vec::<Open<'_>>::new(), Names::new());
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(|error| error.to_string())?;
        match &payload {
            Payload::Version { encoding, range, .. } => {
                open.push(Open {
                    bytes: component[range.clone()].to_vec(),
                    is_module: *encoding == Encoding::Module,
                    modules: Vec::new(),
                    debug: HashMap::new(),
                    code: 0..0,
                    names: Vec::new(),
                });
                continue;
            }
            Payload::End(_) => {
                let Some(ended) = open.pop() else { break };
                let ended = ended.whole();
                let Some(around) = open.last_mut() else {
                    return Ok(Stripped { bytes: ended.bytes, modules: ended.modules });
                };
                around.take(ended);
                continue;
            }
            // What is within comes as payloads of its own.
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => continue,
            Payload::CustomSection(section) => {
                let Some(module) = open.last_mut().filter(|open| open.is_module) else { continue };
                match section.as_known() {
                    KnownCustom::Name(section) => module.names = names.of(section),
                    _ if section.name().starts_with(".debug_") => {
                        module.debug.insert(section.name(), section.data());
                    }
                    _ => {}
                }
                continue;
            }
            _ => {}
        }
        let (Some((id, range)), Some(open)) = (payload.as_section(), open.last_mut()) else { continue };
        let content = &component[range];
        let at = open.section(id, content);
        if matches!(payload, Payload::CodeSectionStart { .. }) {
            open.code = at;
        }
    }
    Err("it ends before it is whole".to_owned())
}

impl<'a> Open<'a> {
    /// Appends a section; returns where its content lies.
    fn section(&mut self, id: u8, content: &[u8]) -> Range<usize> {
        self.bytes.push(id);
        leb(&mut self.bytes, content.len());
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(content);
        begin..self.bytes.len()
    }

    /// With its names, once all of its sections are there.
    fn whole(mut self) -> Open<'a> {
        if self.is_module {
            if !self.names.is_empty() {
                let content = name_section(&self.names);
                self.section(CUSTOM_SECTION, &content);
            }
            let (code, debug) = (self.code.clone(), std::mem::take(&mut self.debug));
            self.modules.push(Module { code, debug });
        }
        self
    }

    /// Takes in what was written within it.
    fn take(&mut self, within: Open<'a>) {
        let id = if within.is_module { MODULE_SECTION } else { COMPONENT_SECTION };
        let moved = self.section(id, &within.bytes).start;
        self.modules.extend(
            within
                .modules
                .into_iter()
                .map(|module| Module { code: module.code.start + moved..module.code.end + moved, debug: module.debug }),
        );
    }
}

/// Names of functions, as many as are kept of one component.
struct Names {
    readable: Readable,
    room: usize,
}

impl Names {
    fn new() -> Names {
        Names { readable: Readable::new(), room: bounds::FUNCTION_NAMES_BYTES_MAX }
    }

    fn of(&mut self, section: NameSectionReader<'_>) -> Vec<(u32, String)> {
        let mut names: Vec<(u32, String)> = Vec::new();
        for part in section.into_iter().map_while(Result::ok) {
            let Name::Function(functions) = part else { continue };
            for naming in functions.into_iter().map_while(Result::ok) {
                let name = self.readable.name(naming.name);
                // The number, its length and the entry that the host keeps for each.
                let Some(room) = self.room.checked_sub(name.len() + 20) else { return names };
                self.room = room;
                // In order, as the format asks for.
                if names.last().is_none_or(|(last, _)| *last < naming.index) {
                    names.push((naming.index, name));
                }
            }
        }
        names
    }
}

fn name_section(names: &[(u32, String)]) -> Vec<u8> {
    let mut functions = Vec::new();
    leb(&mut functions, names.len());
    for (index, name) in names {
        leb(&mut functions, *index as usize);
        leb(&mut functions, name.len());
        functions.extend_from_slice(name.as_bytes());
    }
    let mut content = Vec::new();
    leb(&mut content, "name".len());
    content.extend_from_slice(b"name");
    content.push(FUNCTION_NAMES);
    leb(&mut content, functions.len());
    content.extend_from_slice(&functions);
    content
}

/// An unsigned number as WebAssembly writes it.
pub(crate) fn leb(bytes: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use wasmparser::{BinaryReader, Validator, WasmFeatures};

    use super::*;

    #[test]
    fn what_is_left_is_the_same_component_without_its_custom_sections() {
        let component = wat::parse_str(
            r#"(component
                (core module $a (func $first (export "f")) (func $second call $first) (@custom ".debug_line" "lines") (@custom "x" "y"))
                (component (core module $b (@custom "before" (before first) "z") (memory 1) (func $third (drop (i32.const 1)))))
                (@custom "producers" "nobody")
                (core instance (instantiate $a)))"#,
        )
        .unwrap();
        let stripped = strip(&component).unwrap();
        Validator::new_with_features(WasmFeatures::all()).validate_all(&stripped.bytes).unwrap();
        let (mut custom, mut code, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for payload in Parser::new(0).parse_all(&stripped.bytes) {
            match payload.unwrap() {
                Payload::CustomSection(section) => {
                    custom.push(section.name().to_owned());
                    if let KnownCustom::Name(section) = section.as_known() {
                        names.extend(Names::new().of(section));
                    }
                }
                Payload::CodeSectionStart { range, .. } => code.push(range),
                _ => {}
            }
        }
        assert_eq!(custom, ["name", "name"]);
        let name = |index, name: &str| (index, name.to_owned());
        assert_eq!(names, [name(0, "first"), name(1, "second"), name(0, "third")]);
        assert_eq!(stripped.modules.iter().map(|module| module.code.clone()).collect::<Vec<_>>(), code);
        assert_eq!(stripped.modules[0].debug.get(".debug_line"), Some(&b"lines".as_slice()));
        assert!(stripped.modules[1].debug.is_empty());
    }

    /// More long names than are kept of one component.
    #[test]
    fn names_have_a_bound_together() {
        let named: Vec<(u32, String)> = (0..30_000).map(|index| (index, "n".repeat(199))).collect();
        let content = name_section(&named);
        let section = NameSectionReader::new(BinaryReader::new(&content["\u{4}name".len()..], 0));
        let kept = Names::new().of(section);
        assert!(content.len() > 2 * bounds::FUNCTION_NAMES_BYTES_MAX);
        assert!(kept.len() > 5000 && name_section(&kept).len() <= bounds::FUNCTION_NAMES_BYTES_MAX, "{}", kept.len());
    }
}
