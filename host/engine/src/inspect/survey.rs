//! A first pass over a component, whose cost depends on its size only: how deep it nests, how much it lists, what
//! produced it. A component beyond a limit is refused here, before anything that recurses or compares reads it.

use wasmparser::{CustomSectionReader, Instance, KnownCustom, Parser, Payload};
use wharf_core::bounds;

use crate::spec::problem::Problem;

/// A longer list would not be read.
const PRODUCERS_MAX: usize = 8;
/// A longer name and version were not meant to be read.
const PRODUCER_CHARS_MAX: usize = 60;

/// Findings of the first pass.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Number of core instances that the component itself makes. Those of components within it are counted when it is
    /// first instantiated: they may be made any number of times.
    pub(crate) core_instances: u32,
    /// The languages, SDKs and tools of its producers sections with their versions, each once, in the file's order: the
    /// main one is first.
    pub(crate) producers: Vec<String>,
    /// The manifest in the component's own custom section.
    pub(crate) manifest: Option<String>,
    /// A module made by Go has its client of HTTP.
    pub(crate) has_go_http: bool,
    /// Why the section with the manifest cannot be read.
    pub(crate) bad_manifest: Option<Problem>,
}

/// The custom section in which a component has a manifest.
const MANIFEST_SECTION: &str = "wharf-manifest";

/// A function of Go's client of HTTP, as the names of functions have it.
const GO_HTTP: &[u8] = b"net/http.(*Transport).RoundTrip";

/// Makes the first pass over a component.
///
/// # Errors
/// A problem, if it nests deeper, or lists more, than a plugin may.
pub(crate) fn survey(bytes: &[u8]) -> Result<Survey, Problem> {
    let mut found = Survey::default();
    let (mut depth, mut items) = (0_usize, 0_u64);
    // Bytes that cannot be parsed end the pass; the validator reports why.
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 1 && section.name() == MANIFEST_SECTION => {
                found.add_manifest(section.data());
            }
            Payload::CustomSection(section) if section.name() == "name" => {
                found.has_go_http |= section.data().windows(GO_HTTP.len()).any(|part| part == GO_HTTP);
            }
            Payload::CustomSection(section) => found.add_producers(section),
            Payload::InstanceSection(section) => {
                let instances = section.clone().into_iter();
                let instantiated =
                    instances.filter(|instance| matches!(instance, Ok(Instance::Instantiate { .. }))).count();
                if depth == 1 {
                    let own = u32::try_from(instantiated).unwrap_or(u32::MAX);
                    found.core_instances = found.core_instances.saturating_add(own);
                }
            }
            _ => {}
        }
        items = items.saturating_add(u64::from(listed(&payload)));
        if depth > bounds::COMPONENT_DEPTH_MAX {
            let what = format!(
                "its modules and components nest too deep; the limit is {} levels",
                bounds::COMPONENT_DEPTH_MAX
            );
            return Err(Problem::new(what).hint("compose it of fewer components within one another"));
        }
        if items > bounds::COMPONENT_ITEMS_MAX {
            let what = format!(
                "its sections list too many types, functions, imports, exports and other items; the limit is {} in all",
                bounds::COMPONENT_ITEMS_MAX
            );
            return Err(Problem::new(what).hint("make it smaller, or split it into several plugins"));
        }
    }
    Ok(found)
}

/// Returns how many items the section claims to have. It may have fewer, and is invalid then.
fn listed(payload: &Payload<'_>) -> u32 {
    match payload {
        Payload::TypeSection(section) => section.count(),
        Payload::ImportSection(section) => section.count(),
        Payload::FunctionSection(section) => section.count(),
        Payload::TableSection(section) => section.count(),
        Payload::MemorySection(section) => section.count(),
        Payload::TagSection(section) => section.count(),
        Payload::GlobalSection(section) => section.count(),
        Payload::ExportSection(section) => section.count(),
        Payload::ElementSection(section) => section.count(),
        Payload::DataSection(section) => section.count(),
        Payload::InstanceSection(section) => section.count(),
        Payload::CoreTypeSection(section) => section.count(),
        Payload::ComponentInstanceSection(section) => section.count(),
        Payload::ComponentAliasSection(section) => section.count(),
        Payload::ComponentTypeSection(section) => section.count(),
        Payload::ComponentCanonicalSection(section) => section.count(),
        Payload::ComponentImportSection(section) => section.count(),
        Payload::ComponentExportSection(section) => section.count(),
        Payload::CustomSection(_) | Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => 1,
        _ => 0,
    }
}

impl Survey {
    fn add_manifest(&mut self, data: &[u8]) {
        let refused = |what: String| {
            Some(
                Problem::new(format!("its section `{MANIFEST_SECTION}` {what}"))
                    .hint("write it with `wharf pack --manifest`"),
            )
        };
        if self.manifest.is_some() {
            self.bad_manifest = refused("is there twice".to_owned());
        } else if data.len() as u64 > bounds::MANIFEST_BYTES_MAX {
            let max = bounds::MANIFEST_BYTES_MAX / bounds::KIB;
            self.bad_manifest = refused(format!("has {} bytes; the limit is {max} KiB", data.len()));
        } else {
            match std::str::from_utf8(data) {
                Ok(text) => self.manifest = Some(text.to_owned()),
                Err(_) => self.bad_manifest = refused("is not UTF-8".to_owned()),
            }
        }
    }

    fn add_producers(&mut self, section: &CustomSectionReader<'_>) {
        // Checked before the section is read: there may be any number of them.
        if self.producers.len() >= PRODUCERS_MAX {
            return;
        }
        let KnownCustom::Producers(fields) = section.as_known() else { return };
        for value in fields.into_iter().flatten().flat_map(|field| field.values).flatten() {
            // Commits and addresses follow in parentheses.
            let version = value.version.split(" (").next().unwrap_or_default();
            let text = value.name.chars().chain([' ']).chain(version.chars());
            let producer: String = text.filter(|c| !c.is_control()).take(PRODUCER_CHARS_MAX).collect();
            let producer = producer.trim().to_owned();
            if !producer.is_empty() && !self.producers.contains(&producer) && self.producers.len() < PRODUCERS_MAX {
                self.producers.push(producer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{Encode, RawSection, Section};

    use super::*;

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        RawSection { id, data: content }.append_to(&mut bytes);
        bytes
    }

    fn nested(depth: usize) -> Vec<u8> {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        for _ in 1..depth {
            let within = section(4, &bytes);
            bytes = [b"\0asm\x0d\0\x01\0".as_slice(), &within].concat();
        }
        bytes
    }

    #[test]
    fn what_nests_too_deep_is_refused_at_once_however_deep_it_is() {
        assert!(survey(&nested(bounds::COMPONENT_DEPTH_MAX)).is_ok());
        for depth in [bounds::COMPONENT_DEPTH_MAX + 1, 5000] {
            let message = survey(&nested(depth)).unwrap_err().what;
            assert_eq!(message, "its modules and components nest too deep; the limit is 32 levels");
        }
    }

    #[test]
    fn go_s_client_of_http_is_found_by_its_name() {
        let named = |name: &str| {
            let text = format!("(module (func $a (@name {name:?})))");
            survey(&wat::parse_str(text).unwrap()).unwrap().has_go_http
        };
        assert!(named("net/http.(*Transport).RoundTrip"));
        assert!(!named("net/http.StatusText"));
    }

    #[test]
    fn what_lists_too_much_is_refused_before_it_is_read() {
        // A section of types that claims a count, and has none.
        let claims = |count: usize| {
            let mut content = Vec::new();
            count.encode(&mut content);
            [b"\0asm\x0d\0\x01\0".as_slice(), &section(7, &content)].concat()
        };
        let max = bounds::COMPONENT_ITEMS_MAX as usize;
        assert!(survey(&claims(max)).is_ok());
        assert!(survey(&claims(max + 1)).unwrap_err().what.contains("the limit is 500000 in all"));
    }
}
