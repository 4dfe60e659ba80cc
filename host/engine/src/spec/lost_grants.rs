//! What new settings take away from a plugin.

use crate::spec::grants::{DirGrant, PluginSettings};

impl PluginSettings {
    /// Returns the keys under `[plugins.NAME]` of which `new` grants less than these settings do. A value that is only
    /// replaced by another is not among them.
    pub fn lost_with(&self, new: &PluginSettings) -> Vec<&'static str> {
        let keeps_dir = |old: &DirGrant| {
            let is_enough = |new: &DirGrant| new.writable || !old.writable;
            new.dirs.iter().any(|new| new.host == old.host && new.guest == old.guest && is_enough(new))
        };
        let lost = [
            ("http", !self.http.iter().all(|old| new.http.iter().any(|new| new.covers(old)))),
            ("addresses", !self.addresses.iter().all(|old| new.addresses.iter().any(|new| new.covers(old)))),
            ("env", !self.env.keys().all(|name| new.env.contains_key(name))),
            ("dirs", !self.dirs.iter().all(keeps_dir)),
            ("config", !self.config.keys().all(|name| new.config.contains_key(name))),
            ("secrets", self.secrets.has_more_than(&new.secrets)),
            // Nothing is less than any number.
            ("kv", self.kv_bytes_max() > new.kv_bytes_max()),
            ("hold-key", self.hold_key_max() > new.hold_key_max()),
        ];
        lost.into_iter().filter(|(_, is_lost)| *is_lost).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(old: &str, new: &str) -> Vec<&'static str> {
        let settings = |text: &str| crate::spec::toml_diagnostics::read::<PluginSettings>(text).unwrap();
        settings(old).lost_with(&settings(new))
    }

    #[test]
    fn what_is_granted_still_or_more_widely_is_not_lost() {
        let all = "http = ['https://api.example.com', 'http://10.1.2.3:80']\naddresses = ['10.1.0.0/16', '::1']\n\
                   env = { A = '1' }\ndirs = [{ host = '/a', guest = '/b' }]\nconfig = { a = '1' }\nkv = '1MiB'\nhold-key = '1h'\nsecrets = ['stripe']";
        assert_eq!(lost("", all), [""; 0]);
        assert_eq!(lost(all, all), [""; 0]);
        let wider = "http = ['http://10.1.2.3', 'https://*.example.com', 'https://b.example']\naddresses = ['::/0', '10.0.0.0/8']\n\
                     env = { A = '2', B = '1' }\ndirs = [{ host = '/a', guest = '/b', writable = true }]\n\
                     config = { a = '2' }\nkv = '2MiB'\nhold-key = '2h'\nsecrets = ['a', 'stripe']";
        assert_eq!(lost(all, wider), [""; 0]);
        assert_eq!(lost(all, ""), ["http", "addresses", "env", "dirs", "config", "secrets", "kv", "hold-key"]);
        assert_eq!(lost("[tasks.t]\ntimeout = '1s'", ""), [""; 0], "a task's settings are no grant");
    }

    #[test]
    fn what_is_granted_more_narrowly_is_lost() {
        for (old, new, key) in [
            ("http = ['https://*.example.com']", "http = ['https://a.example.com']", "http"),
            ("http = ['https://*.example.com']", "http = ['https://*.a.example.com']", "http"),
            ("http = ['https://a.example']", "http = ['http://a.example', 'https://a.example:8443']", "http"),
            ("http = ['https://example.com']", "http = ['https://*.example.com']", "http"),
            ("addresses = ['10.0.0.0/8']", "addresses = ['10.0.0.0/9', '10.128.0.0/9']", "addresses"),
            ("env = { A = '' }", "env = { a = '' }", "env"),
            (
                "dirs = [{ host = '/a', guest = '/b', writable = true }]",
                "dirs = [{ host = '/a', guest = '/b' }]",
                "dirs",
            ),
            ("dirs = [{ host = '/a', guest = '/b' }]", "dirs = [{ host = '/a', guest = '/c' }]", "dirs"),
            ("config = { a = '', b = '' }", "config = { b = '' }", "config"),
            ("kv = '2MiB'", "kv = '1MiB'", "kv"),
            ("hold-key = '2h'", "hold-key = '1h'", "hold-key"),
            ("secrets = ['a', 'b']", "secrets = ['b']", "secrets"),
        ] {
            assert_eq!(lost(old, new), [key], "{old} → {new}");
        }
    }
}
