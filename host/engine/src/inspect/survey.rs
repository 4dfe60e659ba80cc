//! A first look at a component, whose cost grows with its size and with nothing else: how deep it nests, how much it lists,
//! who made it. What is past a bound is refused here, before anything that recurses or compares reads the file.

use wasmparser::{CustomSectionReader, Instance, KnownCustom, Parser, Payload};
use wharf_core::bounds;

use crate::spec::problem::Problem;

/// More would be a list that nobody reads.
const MAKERS_MAX: usize = 8;
/// A name and a version that are longer were not meant for people.
const MAKER_CHARS_MAX: usize = 60;

/// What the first look found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// How many core instances a sandbox of it has. Components within may be instantiated more than once: with instances
    /// of their own they count as all that a sandbox may have.
    pub(crate) core_instances: u32,
    /// The languages, SDKs and tools of its producers sections, each once with its version, in the file's order: what a
    /// component is mostly made of stands first.
    pub(crate) makers: Vec<String>,
}

/// # Errors
/// When it nests deeper, or lists more, than a plugin may.
pub(crate) fn survey(bytes: &[u8]) -> Result<Survey, Problem> {
    let mut found = Survey::default();
    let (mut depth, mut items) = (0_usize, 0_u64);
    // What cannot be parsed ends the look; the validator says why.
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) => found.made_by(section),
            Payload::InstanceSection(section) => {
                let instances = section.clone().into_iter();
                let made = instances.filter(|instance| matches!(instance, Ok(Instance::Instantiate { .. }))).count();
                found.core_instances = if depth > 1 && made > 0 {
                    found.core_instances.max(bounds::INSTANCES_MAX as u32)
                } else {
                    found.core_instances.saturating_add(u32::try_from(made).unwrap_or(u32::MAX))
                };
            }
            _ => {}
        }
        items = items.saturating_add(u64::from(listed(&payload)));
        if depth > bounds::COMPONENT_DEPTH_MAX {
            let what = format!("its modules and components nest more than {} deep", bounds::COMPONENT_DEPTH_MAX);
            return Err(Problem::new(what).hint("compose it of fewer components, one within the other"));
        }
        if items > bounds::COMPONENT_ITEMS_MAX {
            let what = format!(
                "its sections list more than {} types, functions, imports, exports and other things",
                bounds::COMPONENT_ITEMS_MAX
            );
            return Err(Problem::new(what).hint("make it smaller, or of more than one plugin"));
        }
    }
    Ok(found)
}

/// As many as the section says that it has: what it really has may be less, and then it is not valid.
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
    fn made_by(&mut self, section: &CustomSectionReader<'_>) {
        // Looked at before the section is read: there may be any number of them.
        if self.makers.len() >= MAKERS_MAX {
            return;
        }
        let KnownCustom::Producers(fields) = section.as_known() else { return };
        for value in fields.into_iter().flatten().flat_map(|field| field.values).flatten() {
            // Behind a bracket stand commits and addresses.
            let version = value.version.split(" (").next().unwrap_or_default();
            let text = value.name.chars().chain([' ']).chain(version.chars());
            let maker: String = text.filter(|c| !c.is_control()).take(MAKER_CHARS_MAX).collect();
            let maker = maker.trim().to_owned();
            if !maker.is_empty() && !self.makers.contains(&maker) && self.makers.len() < MAKERS_MAX {
                self.makers.push(maker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![id];
        crate::inspect::strip::leb(&mut bytes, content.len());
        bytes.extend_from_slice(content);
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
            let told = survey(&nested(depth)).unwrap_err().what;
            assert_eq!(told, "its modules and components nest more than 32 deep");
        }
    }

    #[test]
    fn what_lists_too_much_is_refused_before_it_is_read() {
        // A section of types that says how many it has, and has none.
        let claims = |count: usize| {
            let mut content = Vec::new();
            crate::inspect::strip::leb(&mut content, count);
            [b"\0asm\x0d\0\x01\0".as_slice(), &section(7, &content)].concat()
        };
        let max = bounds::COMPONENT_ITEMS_MAX as usize;
        assert!(survey(&claims(max)).is_ok());
        assert!(survey(&claims(max + 1)).unwrap_err().what.contains("more than 500000 types"));
    }
}
