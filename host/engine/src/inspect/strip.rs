//! Strips a component to what is compiled: its code, and short names of its functions. Debug information and all other
//! custom sections are left out, so that reading a trap later never reads untrusted debug data.

use std::collections::HashMap;
use std::ops::Range;

use wasm_encoder::{NameMap, NameSection, RawSection, Section};
use wasmparser::{Encoding, KnownCustom, Name, NameSectionReader, Parser, Payload};
use wharf_core::bounds;

use crate::inspect::symbol_names::Demangler;

const MODULE_SECTION: u8 = 1;
const COMPONENT_SECTION: u8 = 4;

/// A component without what is not compiled, and what was left out of its modules.
pub(crate) struct Stripped<'a> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) modules: Vec<Module<'a>>,
}

/// A core module's debug sections, and the position of its code.
#[derive(Default)]
pub(crate) struct Module<'a> {
    /// The contents of its code section, as a range of [`Stripped::bytes`].
    pub(crate) code: Range<usize>,
    /// Debug sections by name, such as ".debug_line".
    pub(crate) debug: HashMap<&'a str, &'a [u8]>,
}

/// A module or component that is being written.
struct Open<'a> {
    bytes: Vec<u8>,
    is_module: bool,
    /// Positions in `bytes` of its own code, and of that of modules within.
    modules: Vec<Module<'a>>,
    /// Its own debug sections, if it is a module.
    debug: HashMap<&'a str, &'a [u8]>,
    code: Range<usize>,
    names: Vec<(u32, String)>,
}

/// Strips a component.
///
/// # Errors
/// A reason, if it is not a component; one that was validated is.
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
            // Modules and components within come as payloads of their own.
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
    /// Appends a section. Returns the range of its content.
    fn section(&mut self, id: u8, content: &[u8]) -> Range<usize> {
        RawSection { id, data: content }.append_to(&mut self.bytes);
        self.bytes.len() - content.len()..self.bytes.len()
    }

    /// Finishes it, once all of its sections are written: appends its names.
    fn whole(mut self) -> Open<'a> {
        if self.is_module {
            if !self.names.is_empty() {
                name_section(&self.names).append_to(&mut self.bytes);
            }
            let (code, debug) = (self.code.clone(), std::mem::take(&mut self.debug));
            self.modules.push(Module { code, debug });
        }
        self
    }

    /// Appends a finished module or component that is within this one.
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

/// Collects names of functions, within the limit of one component.
struct Names {
    demangler: Demangler,
    bytes_left: usize,
}

impl Names {
    fn new() -> Names {
        Names { demangler: Demangler::new(), bytes_left: bounds::FUNCTION_NAMES_BYTES_MAX }
    }

    fn of(&mut self, section: NameSectionReader<'_>) -> Vec<(u32, String)> {
        let mut names: Vec<(u32, String)> = Vec::new();
        for part in section.into_iter().map_while(Result::ok) {
            let Name::Function(functions) = part else { continue };
            for naming in functions.into_iter().map_while(Result::ok) {
                let name = self.demangler.name(naming.name);
                // The index, the length and the entry that the host keeps for each.
                let Some(bytes_left) = self.bytes_left.checked_sub(name.len() + 20) else { return names };
                self.bytes_left = bytes_left;
                // In ascending order, as the format requires.
                if names.last().is_none_or(|(last, _)| *last < naming.index) {
                    names.push((naming.index, name));
                }
            }
        }
        names
    }
}

fn name_section(names: &[(u32, String)]) -> NameSection {
    let mut functions = NameMap::new();
    for (index, name) in names {
        functions.append(*index, name);
    }
    let mut section = NameSection::new();
    section.functions(&functions);
    section
}

#[cfg(test)]
mod tests {
    use wasmparser::{Validator, WasmFeatures};

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
        let module = |names: &[(u32, String)]| {
            let mut bytes = b"\0asm\x01\0\0\0".to_vec();
            name_section(names).append_to(&mut bytes);
            bytes
        };
        let bytes = module(&named);
        assert!(bytes.len() > 2 * bounds::FUNCTION_NAMES_BYTES_MAX);
        let section = Parser::new(0).parse_all(&bytes).find_map(|payload| match payload.unwrap() {
            Payload::CustomSection(section) => match section.as_known() {
                KnownCustom::Name(names) => Some(names),
                _ => None,
            },
            _ => None,
        });
        let kept = Names::new().of(section.unwrap());
        assert!(kept.len() > 5000 && module(&kept).len() <= bounds::FUNCTION_NAMES_BYTES_MAX, "{}", kept.len());
    }
}
