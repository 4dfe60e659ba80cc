//! Checks which grants a plugin's imports need. Depends on the settings, so it runs in the host and not where the file
//! is read.

use crate::inspect::core_module::PREVIEW_1;
use crate::inspect::host_interfaces::InterfaceName;
use crate::spec::grants::PluginSettings;
use crate::spec::problem::Problem;

/// A plugin's imports, and the operator's settings for it.
pub(crate) struct GrantsCheck<'a> {
    /// The plugin's id, for the settings to paste.
    pub(crate) id: &'a str,
    pub(crate) imports: &'a [String],
    pub(crate) settings: &'a PluginSettings,
}

impl GrantsCheck<'_> {
    fn uses(&self, path: &str) -> bool {
        self.imports.iter().any(|name| InterfaceName::parse(name).path == path)
    }

    /// Returns a problem for each missing grant without which the plugin cannot work.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let name = self.imports.iter().find(|name| InterfaceName::parse(name).path == "wharf:plugin/kv");
        let missing = name.filter(|_| self.settings.kv_bytes_max().is_none());
        let problem = missing.map(|name| {
            Problem::new(format!("it imports `{name}`, but keeping values (`kv`) is not granted"))
                .hint(format!("to grant it, in wharf.toml:\n[plugins.{}]\nkv = true", self.id))
        });
        problem.into_iter().collect()
    }

    /// Returns a note for each import that works only with a grant, with the settings that grant it.
    pub(crate) fn notes(&self) -> Vec<Problem> {
        let table = format!("[plugins.{}]", self.id);
        let mut notes = Vec::new();
        if self.uses("wasi:http/outgoing-handler") && self.settings.http.is_empty() {
            notes.push(
                Problem::new("it can send HTTP requests, but none are granted: each is refused")
                    .hint(format!("to grant some, in wharf.toml:\n{table}\nhttp = [\"https://api.example.com\"]")),
            );
        }
        let sends = self.uses("wasi:http/outgoing-handler");
        if !sends && !self.settings.secrets.is_empty() {
            let hint = if self.uses(PREVIEW_1) {
                "programs for WASI preview 1 cannot; build it for WASI 0.2, such as for Rust's target wasm32-wasip2"
            } else {
                "a secret goes only into headers of requests by wasi:http; to let the plugin read the value, set it under `env`"
            };
            notes.push(Problem::new("it has secrets, but sends no HTTP requests: it can use none of them").hint(hint));
        }
        for grant in self.settings.secrets.iter().filter(|_| sends) {
            let name = &grant.name;
            let hosts = grant.secret.as_ref().map(|secret| secret.hosts.as_slice()).unwrap_or_default();
            if !hosts.is_empty() && !hosts.iter().any(|host| host.is_within(&self.settings.http)) {
                notes.push(
                    Problem::new(format!(
                        "it has the secret `{name}`, but no request is granted to a host that the secret may be sent to"
                    ))
                    .hint(format!("to grant one, in wharf.toml:\n{table}\nhttp = [\"{}\"]", hosts[0])),
                );
            }
        }
        if self.uses("wasi:config/store") && self.settings.config.is_empty() {
            notes.push(
                Problem::new("it reads values of `wasi:config`, but none are set")
                    .hint(format!("to set some, in wharf.toml:\n{table}\nconfig = {{ name = \"value\" }}")),
            );
        }
        let reads_files = self.uses("wasi:filesystem/preopens") || self.uses(PREVIEW_1);
        if reads_files && self.settings.dirs.is_empty() {
            notes.push(
                Problem::new("it can read files, as most standard libraries can, but no folder is granted").hint(
                    format!(
                        "if it needs one, in wharf.toml:\n{table}\ndirs = [{{ host = \"./data\", guest = \"/data\" }}]"
                    ),
                ),
            );
        }
        if self.uses("wharf:plugin/holds") && self.settings.hold_key_max().is_none() {
            notes.push(
                Problem::new("it can hold the keys of its jobs, but that is not granted: each such call is refused")
                    .hint(format!("to grant it, in wharf.toml:\n{table}\nhold-key = \"1h\"")),
            );
        }
        if self.uses("wasi:sockets/tcp-create-socket") || self.uses("wasi:sockets/udp-create-socket") {
            notes.push(
                Problem::new("it can open sockets, but these are always refused")
                    .hint("use wasi:http to reach the network"),
            );
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_plugin_that_sends_no_requests_are_noted() {
        let settings: PluginSettings =
            crate::spec::toml_diagnostics::read("secrets = ['stripe']\nhttp = ['https://a.example']").unwrap();
        let notes = |import: &str| {
            let imports = [import.to_owned()];
            let notes = GrantsCheck { id: "charge", imports: &imports, settings: &settings }.notes();
            notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let (plain, program) = (notes("wasi:cli/environment@0.2.0"), notes(PREVIEW_1));
        for text in [&plain, &program] {
            assert!(text.contains("it has secrets, but sends no HTTP requests"), "{text}");
        }
        assert!(plain.contains("under `env`") && program.contains("build it for WASI 0.2"), "{plain}\n{program}");
        let sends = notes("wasi:http/outgoing-handler@0.2.0");
        assert!(!sends.contains("it has secrets"), "{sends}");
    }
}
