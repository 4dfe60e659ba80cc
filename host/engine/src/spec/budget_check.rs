//! Compares the memory that tasks may use with the host's budget.

use bytesize::ByteSize;
use wharf_core::bounds;
use wharf_core::budget::{attempt_memory_max, manifest_memory_max};
use wharf_core::ids::PluginId;

use crate::spec::grants::PluginSettings;
use crate::spec::manifest::{Manifest, RECEIVE};
use crate::spec::problem::Problem;
use crate::spec::task::Task;

/// Fits a manifest into a budget of memory of `total` bytes, and returns notes for the operator. A manifest may ask for an eighth of
/// the budget, and a task that asks for more has that. More only an operator grants. A task that is granted more than one attempt can
/// ever have keeps it, and this host runs no job of it.
pub(crate) fn within_budget(
    manifest: &mut Manifest,
    plugin: &PluginId,
    settings: &PluginSettings,
    total: u64,
) -> Vec<Problem> {
    let receive = manifest.receive.iter_mut().map(|receive| {
        let is_granted = settings.receive.as_ref().is_some_and(|over| over.memory.is_some());
        (&mut receive.task, RECEIVE.to_owned(), is_granted)
    });
    let tasks = manifest.tasks.iter_mut().map(|(name, task)| {
        let is_granted = settings.tasks.get(name).is_some_and(|over| over.memory.is_some());
        (task, format!("tasks.{name}"), is_granted)
    });
    let notes = tasks.chain(receive).filter_map(|(task, table, is_granted)| {
        let check = Check { plugin, table: &table, total };
        if is_granted { check.granted(task) } else { check.declared(task) }
    });
    notes.collect()
}

/// The check of one task.
struct Check<'a> {
    plugin: &'a PluginId,
    table: &'a str,
    total: u64,
}

impl Check<'_> {
    fn granted(&self, task: &Task) -> Option<Problem> {
        let Check { plugin, table, total } = *self;
        let (wanted, most) = (task.memory_bytes, attempt_memory_max(total));
        (wanted > most).then(|| {
            Problem::new(format!(
                "{table}.memory: {} is more than one attempt can have of this host's budget: {} of {}",
                size(wanted),
                size(most),
                size(total)
            ))
            .hint(format!(
                "this host runs no job of it, and jobs wait as `too-large` where no other host can; raise `memory.budget` in \
                 wharf.toml, or lower memory under [plugins.{plugin}.{table}]"
            ))
        })
    }

    fn declared(&self, task: &mut Task) -> Option<Problem> {
        let Check { plugin, table, total } = *self;
        let (wanted, max) = (task.memory_bytes, manifest_memory_max(total));
        if wanted <= max {
            return None;
        }
        task.memory_bytes = max;
        // Nobody asked for the default.
        (wanted != bounds::MEMORY_BYTES_DEFAULT).then(|| {
            let note = format!(
                "{table}.memory: it has {}, an eighth of this host's budget of {}, and not the {} that the manifest asks for",
                size(max),
                size(total),
                size(wanted)
            );
            Problem::new(note).hint(format!(
                "to grant it, set memory = \"{}MiB\" under [plugins.{plugin}.{table}] in wharf.toml, or raise `memory.budget`",
                wanted.div_ceil(bounds::MIB)
            ))
        })
    }
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::toml_diagnostics;

    const TOTAL: u64 = 256 << 20;

    /// Returns the memory of the task in MiB, and the notes.
    fn memory(task: &str, settings: &str) -> (u64, String) {
        let plugin = "p".parse().unwrap();
        let text = format!("name = 'p'\nversion = '1'\n[tasks.t]\n{task}");
        let settings: PluginSettings = toml_diagnostics::read(settings).unwrap();
        let mut manifest = Manifest::read(&plugin, &text, &settings).unwrap();
        let notes = within_budget(&mut manifest, &plugin, &settings, TOTAL);
        (manifest.tasks["t"].memory_bytes >> 20, notes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_manifest_has_an_eighth_and_the_operator_grants_more() {
        assert_eq!(memory("", ""), (32, String::new()), "the default is what there is for all");
        assert_eq!(memory("memory = '32MiB'", ""), (32, String::new()));
        let (memory_mib, note) = memory("memory = '200MiB'", "");
        assert_eq!(memory_mib, 32);
        assert!(note.contains("it has 32.0 MiB, an eighth of this host's budget of 256.0 MiB"), "{note}");
        assert!(note.contains("memory = \"200MiB\" under [plugins.p.tasks.t]"), "{note}");
        assert_eq!(memory("memory = '200MiB'", "[tasks.t]\nmemory = '200MiB'"), (200, String::new()));
        let (memory_mib, never) = memory("", "[tasks.t]\nmemory = '300MiB'");
        assert_eq!(memory_mib, 300, "other hosts are told what it needs");
        assert!(never.contains("tasks.t.memory: 300.0 MiB is more than one attempt can have"), "{never}");
        assert!(never.contains("this host runs no job of it"), "{never}");
    }
}
