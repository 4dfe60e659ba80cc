//! What a plugin's imports ask of its operator: judged by the settings, so in the host and not where the file is read.

use crate::inspect::host_interfaces::Name;
use crate::spec::grants::PluginSettings;
use crate::spec::problem::Problem;

/// What it imports, and what is granted to it.
pub(crate) struct Granted<'a> {
    /// The plugin's, for the lines to paste.
    pub(crate) id: &'a str,
    pub(crate) imports: &'a [String],
    pub(crate) settings: &'a PluginSettings,
}

impl Granted<'_> {
    fn uses(&self, path: &str) -> bool {
        self.imports.iter().any(|name| Name::parse(name).path == path)
    }

    /// What it cannot do without.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let name = self.imports.iter().find(|name| Name::parse(name).path == "wharf:plugin/kv");
        let missing = name.filter(|_| self.settings.kv_bytes_max().is_none());
        let problem = missing.map(|name| {
            Problem::new(format!("it imports `{name}`, to keep values in the store, which is not granted"))
                .hint(format!("to grant it, in wharf.toml:\n[plugins.{}]\nkv = true", self.id))
        });
        problem.into_iter().collect()
    }

    /// What it can use only with a grant, and the lines that grant it.
    pub(crate) fn notes(&self) -> Vec<Problem> {
        let table = format!("[plugins.{}]", self.id);
        let mut notes = Vec::new();
        if self.uses("wasi:http/outgoing-handler") && self.settings.http.is_empty() {
            notes.push(
                Problem::new("it can send HTTP requests; none is granted, so that each is refused")
                    .hint(format!("to grant some, in wharf.toml:\n{table}\nhttp = [\"https://api.example.com\"]")),
            );
        }
        if self.uses("wasi:config/store") && self.settings.config.is_empty() {
            notes.push(
                Problem::new("it reads values of `wasi:config`; none is given")
                    .hint(format!("to give some, in wharf.toml:\n{table}\nconfig = {{ name = \"value\" }}")),
            );
        }
        if self.uses("wasi:filesystem/preopens") && self.settings.dirs.is_empty() {
            notes.push(Problem::new("it may read files, as most standard libraries can; no folder is granted").hint(
                format!(
                    "if it needs one, in wharf.toml:\n{table}\ndirs = [{{ host = \"./data\", guest = \"/data\" }}]"
                ),
            ));
        }
        if self.uses("wasi:sockets/tcp-create-socket") || self.uses("wasi:sockets/udp-create-socket") {
            notes.push(
                Problem::new("it can open sockets; these are always refused")
                    .hint("use wasi:http to reach the network"),
            );
        }
        notes
    }
}
