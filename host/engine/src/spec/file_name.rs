//! The rule for names of plugin files: in the plugin folder, for `wharf check` and for a file that a command runs.

use wharf_core::ids::PluginId;

use crate::spec::problem::Problem;

/// Returns the ID of the plugin in a file; `stem` is the file's name without `.wasm`.
///
/// # Errors
/// A problem, if the name is not a valid ID. It says which name would be, as for `my_plugin`, since compilers write underscores.
pub fn plugin_id(stem: &str) -> Result<PluginId, Problem> {
    stem.parse().map_err(|bad| {
        let valid = stem.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let to = valid
            .trim_start_matches('-')
            .parse()
            .map_or_else(|_| String::new(), |id: PluginId| format!(" to {id}.wasm"));
        Problem::new(format!("file name: {bad}"))
            .hint(format!("rename the file{to}; its name without .wasm is the plugin's ID"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_id_is_refused_with_one_that_is() {
        assert_eq!(plugin_id("my-plugin").unwrap().as_str(), "my-plugin");
        for (stem, hint) in [
            ("my_plugin", "rename the file to my-plugin.wasm; its name without .wasm is the plugin's ID"),
            ("-My Plugin.2", "rename the file to my-plugin-2.wasm; its name without .wasm is the plugin's ID"),
            ("_", "rename the file; its name without .wasm is the plugin's ID"),
            ("", "rename the file; its name without .wasm is the plugin's ID"),
        ] {
            let problem = plugin_id(stem).unwrap_err();
            assert_eq!(problem.hint, hint);
            assert!(problem.what.starts_with(&format!("file name: invalid name `{stem}`: expected")), "{problem}");
        }
    }
}
