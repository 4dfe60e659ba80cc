//! Compares the memory that tasks may use with the host's budget.

use bytesize::ByteSize;
use wharf_core::bounds;
use wharf_core::budget::{attempt_memory_max, manifest_memory_max};
use wharf_core::ids::PluginId;

use crate::spec::grants::PluginSettings;
use crate::spec::manifest::{Manifest, RECEIVE};
use crate::spec::problem::Problem;
use crate::spec::task::Task;

/// Fits a manifest into a budget of memory of `total` bytes. A task that asks for nothing special may use an eighth of the budget
/// at most; more than that only an operator allows, and more than an attempt can have nobody.
///
/// # Errors
/// A problem for each task that asks for more.
pub(crate) fn within_budget(
    mut manifest: Manifest,
    plugin: &PluginId,
    settings: &PluginSettings,
    total: u64,
) -> Result<Manifest, Vec<Problem>> {
    let receive = manifest.receive.iter_mut().map(|receive| {
        let by_operator = settings.receive.as_ref().is_some_and(|over| over.memory.is_some());
        (&mut receive.task, RECEIVE.to_owned(), by_operator)
    });
    let tasks = manifest.tasks.iter_mut().map(|(name, task)| {
        let by_operator = settings.tasks.get(name).is_some_and(|over| over.memory.is_some());
        (task, format!("tasks.{name}"), by_operator)
    });
    let problems: Vec<Problem> =
        tasks.chain(receive).filter_map(|(task, table, by_operator)| check(task, (plugin, &table), by_operator, total)).collect();
    if problems.is_empty() { Ok(manifest) } else { Err(problems) }
}

fn check(task: &mut Task, (plugin, table): (&PluginId, &str), by_operator: bool, total: u64) -> Option<Problem> {
    let size = |bytes: u64| ByteSize(bytes).display().iec();
    let (manifest_max, most) = (manifest_memory_max(total), attempt_memory_max(total));
    let wanted = task.memory_bytes;
    if by_operator {
        return (wanted > most).then(|| {
            Problem::new(format!(
                "settings: [plugins.{plugin}.{table}] memory: {} is more than one attempt can have of this host's budget: {} of {}",
                size(wanted),
                size(most),
                size(total)
            ))
            .hint("no job of it could ever run here; raise `memory.budget` in wharf.toml, or lower its memory")
        });
    }
    if wanted == bounds::MEMORY_BYTES_DEFAULT {
        task.memory_bytes = wanted.min(manifest_max);
        return None;
    }
    (wanted > manifest_max).then(|| {
        Problem::new(format!(
            "{table}.memory: {} is more than an eighth of this host's budget of memory, {} of {}, which a manifest may ask for",
            size(wanted),
            size(manifest_max),
            size(total)
        ))
        .hint(if wanted > most {
            format!("no job of it could ever run here: one attempt can have {}; raise `memory.budget` in wharf.toml", size(most))
        } else {
            format!(
                "an operator can allow it: memory = \"{}MiB\" under [plugins.{plugin}.{table}] in wharf.toml, or raises `memory.budget`",
                wanted.div_ceil(bounds::MIB)
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::toml_diagnostics;

    const TOTAL: u64 = 256 << 20;

    fn memory(task: &str, settings: &str) -> Result<u64, String> {
        let plugin = "p".parse().unwrap();
        let text = format!("name = 'p'\nversion = '1'\n[tasks.t]\n{task}");
        let settings: PluginSettings = toml_diagnostics::read(settings).unwrap();
        let manifest = Manifest::read(&plugin, &text, &settings).unwrap();
        match within_budget(manifest, &plugin, &settings, TOTAL) {
            Ok(manifest) => Ok(manifest.tasks["t"].memory_bytes >> 20),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn a_manifest_has_an_eighth_and_the_operator_what_there_is() {
        assert_eq!(memory("", ""), Ok(32), "the default is what there is for all");
        assert_eq!(memory("memory = '32MiB'", ""), Ok(32));
        let refused = memory("memory = '200MiB'", "").unwrap_err();
        assert!(refused.contains("tasks.t.memory: 200.0 MiB is more than an eighth"), "{refused}");
        assert!(refused.contains("memory = \"200MiB\" under [plugins.p.tasks.t]"), "{refused}");
        assert_eq!(memory("memory = '200MiB'", "[tasks.t]\nmemory = '200MiB'"), Ok(200));
        let never = memory("memory = '300MiB'", "").unwrap_err();
        assert!(never.contains("no job of it could ever run here"), "{never}");
        let never = memory("", "[tasks.t]\nmemory = '300MiB'").unwrap_err();
        assert!(never.contains("no job of it could ever run here") && never.contains("256.0 MiB"), "{never}");
    }
}
