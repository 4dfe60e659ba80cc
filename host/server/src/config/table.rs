//! Every setting on one page: its key in `wharf.toml`, its default, what it is for.

/// One setting. In the environment, `attempts.at-once` is `WHARF__ATTEMPTS__AT_ONCE`.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    /// As it would be written; empty where it is worked out when it is not given.
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
    /// Never shown.
    pub(crate) secret: bool,
}

const fn setting(key: &'static str, default: &'static str, about: &'static str) -> Setting {
    Setting { key, default, about, secret: false }
}

pub(crate) const SETTINGS: &[Setting] = &[
    setting("listen", "127.0.0.1:7070", "address and port of the HTTP API; off loopback a token is required"),
    Setting {
        secret: true,
        ..setting("token", "", "what requests must bring as `Authorization: Bearer TOKEN`; none by default")
    },
    setting("host", "", "where the commands that speak to a running host find it; by default where `listen` says"),
    setting(
        "store",
        "sqlite:wharf.db",
        "where jobs are kept: sqlite:FILE, postgres://… for several machines, or memory: to forget them at the end",
    ),
    setting("plugins-dir", "plugins", "the folder whose .wasm files are the plugins"),
    setting("plugins-rescan", "10s", "how often that folder is looked through, also when nobody said that it changed"),
    setting("cache-dir", "", "compiled plugins; by default wharf in $XDG_CACHE_HOME or ~/.cache"),
    setting("attempts.at-once", "256", "sandboxes that run at the same time"),
    setting("attempts.guest-threads", "", "threads that run plugins' code; by default one for each core"),
    setting("attempts.cancel-grace", "5s", "from the request to cancel until the sandbox is stopped"),
    setting("attempts.drain-patience", "20s", "how long running attempts may go on when the host is asked to stop"),
    setting("broadcasts.at-once", "64", "live broadcasts that may be open; the next one is refused"),
    setting("broadcasts.calls", "1024", "subscribers that live broadcasts call at the same time, besides the jobs"),
    setting(
        "lease.length",
        "30s",
        "how long a job stays with a host that is not heard of; it is renewed at a third of that",
    ),
    setting("lease.margin", "3s", "how much earlier a host stops its own attempts when it cannot renew"),
    setting("upkeep.interval", "5m", "how often expired leases are freed and old jobs forgotten"),
    setting("upkeep.keep-finished", "7d", "how long finished jobs are kept, with result, chunks and log"),
    setting("log.level", "info", "error, warn, info, debug or trace; also per part, as in `info,wharf_engine=debug`"),
    setting("log.format", "text", "text or json, on stderr"),
];

/// The setting with this key.
pub(crate) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The variable that carries a setting in the environment.
pub(crate) fn variable(key: &str) -> String {
    format!("WHARF__{}", key.to_ascii_uppercase().replace('.', "__").replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_unlike_each_other() {
        let mut names: Vec<String> = SETTINGS.iter().map(|s| variable(s.key)).collect();
        assert_eq!(variable("attempts.at-once"), "WHARF__ATTEMPTS__AT_ONCE");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), SETTINGS.len());
    }
}
