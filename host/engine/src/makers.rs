//! Who made a file, as its tools wrote into it.

use wasmparser::{KnownCustom, Parser, Payload};

/// More would be a list that nobody reads.
const MAKERS_MAX: usize = 8;
/// A name and a version that are longer were not meant for people.
const MAKER_CHARS_MAX: usize = 60;

/// The languages, SDKs and tools of the producers sections, each once with its version, in the file's order: what a
/// component is mostly made of stands first.
pub(crate) fn makers(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        let Payload::CustomSection(section) = payload else { continue };
        let KnownCustom::Producers(fields) = section.as_known() else { continue };
        for value in fields.into_iter().flatten().flat_map(|field| field.values).flatten() {
            // Behind a bracket stand commits and addresses.
            let version = value.version.split(" (").next().unwrap_or_default();
            let maker = format!("{} {version}", value.name);
            let maker: String = maker.trim().chars().filter(|c| !c.is_control()).take(MAKER_CHARS_MAX).collect();
            if !found.contains(&maker) && found.len() < MAKERS_MAX {
                found.push(maker);
            }
        }
    }
    found
}
