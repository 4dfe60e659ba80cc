//! The place in the settings file of a problem that a plugin has with its settings.

use wharf_core::ids::PluginId;
use wharf_engine::Problem;

use super::origin::{Origin, Problems};
use super::raw::RawSettings;

impl RawSettings {
    /// Returns the problems that plugins have with these settings, each with its place.
    pub(crate) fn problems_of_plugins(&self, found: &[(PluginId, Vec<Problem>)]) -> Problems {
        let mut all = Problems::default();
        for (plugin, problems) in found {
            for problem in problems {
                let text = problem.to_string();
                let text = format!("plugin `{plugin}` cannot have these settings: {text}");
                match self.place_of(plugin, &problem.what) {
                    Some(origin) => all.add(origin, text),
                    None => all.add_text(text),
                }
            }
        }
        all
    }

    /// Returns the place of the value that a problem names, or of the section; `None` if the plugin has no section.
    fn place_of(&self, plugin: &PluginId, what: &str) -> Option<&Origin> {
        let section = self.plugins.iter().find(|section| section.id == *plugin)?;
        let prefix = format!("plugins.{plugin}.");
        // Problems name a table such as "tasks.count", and most a key of it.
        let named = |key: &str| {
            let mut path = key.strip_prefix(&prefix).unwrap_or(key);
            while !what.contains(path) {
                path = path.rsplit_once('.')?.0;
            }
            // A word that stands alone, such as "tasks", says nothing about the place.
            path.contains('.').then_some(path.len())
        };
        let values = section.shown.iter().filter_map(|(key, _, origin)| Some((named(key)?, origin)));
        // The first of those that are named most exactly.
        let nearest = values.fold(None, |best: Option<(usize, &Origin)>, value| match best {
            Some(best) if best.0 >= value.0 => Some(best),
            _ => Some(value),
        });
        Some(nearest.map_or(&section.at, |(_, origin)| origin))
    }
}
