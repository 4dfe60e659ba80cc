//! Every setting on one page: its key in `wharf.toml`, its default, its purpose.

/// One setting. Its environment variable is derived from its key: `WHARF__ATTEMPTS__AT_ONCE` sets `attempts.at-once`.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    /// The default as a user would write it; empty if it is derived from other settings or from the machine.
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
    /// The value is a secret, which is never shown.
    pub(crate) secret: bool,
    /// A host takes a new value while it runs. Other settings take effect when it is started again.
    pub(crate) live: bool,
    /// All hosts of a store should have the same value. Others say what one host has, or where.
    pub(crate) shared: bool,
}

const fn setting(key: &'static str, default: &'static str, about: &'static str) -> Setting {
    Setting { key, default, about, secret: false, live: false, shared: false }
}

impl Setting {
    const fn secret(self) -> Setting {
        Setting { secret: true, ..self }
    }

    const fn live(self) -> Setting {
        Setting { live: true, ..self }
    }

    const fn shared(self) -> Setting {
        Setting { shared: true, ..self }
    }
}

pub(crate) const SETTINGS: &[Setting] = &[
    setting("listen", "127.0.0.1:7070", "address and port of the HTTP API; off loopback a token is required"),
    setting("token", "", "requests must send it as `Authorization: Bearer TOKEN`; none by default").secret().live(),
    setting(
        "public-url",
        "",
        "address under which clients reach the host through a proxy, such as https://jobs.example.com/wharf; its name is accepted in `Host`, and /openapi.json names it",
    ),
    setting(
        "proxy-authenticates",
        "false",
        "true if a proxy lets in only whom it knows: without a token, requests that came through a proxy are refused otherwise",
    ),
    setting("host", "", "address of the running host for commands that talk to one; derived from `listen` by default").live(),
    setting(
        "store",
        "sqlite:wharf.db",
        "job store: sqlite:FILE, postgres://… for several machines, or memory: to keep nothing after the host stops",
    ),
    setting("plugins-dir", "plugins", "folder whose .wasm files are the plugins"),
    setting("plugins-rescan", "10s", "interval at which that folder is scanned, in case a change was not reported"),
    setting("cache-dir", "", "folder for compiled plugins; by default wharf in $XDG_CACHE_HOME or ~/.cache"),
    setting("cache-max", "4GiB", "size of that folder; what was not used for the longest time is deleted first"),
    setting(
        "memory.budget",
        "",
        "bytes that plugins, and those who talk to them, may make the host hold, with the processes that compile; by default 60 % of \
         what the machine or the control group has",
    ),
    setting("attempts.at-once", "256", "sandboxes that run at the same time"),
    setting("attempts.guest-threads", "", "threads that run plugin code; by default one for each core"),
    setting("attempts.cancel-grace", "5s", "time from the request to cancel until the sandbox is stopped").shared(),
    setting("attempts.drain-timeout", "20s", "time that running attempts may continue after the host is asked to stop"),
    setting("broadcasts.at-once", "64", "live broadcasts that may be open at the same time; another one is refused"),
    setting(
        "broadcasts.calls",
        "1024",
        "subscribers that live broadcasts call at the same time, in addition to the jobs",
    ),
    setting(
        "http.extra-ca",
        "",
        "PEM file of certificate authorities that HTTPS requests of plugins trust besides those that browsers trust",
    ),
    setting(
        "jobs.waiting-max",
        "1000000",
        "jobs of one plugin that may wait; more are refused. `waiting-max` under [plugins.NAME] sets another number for a plugin",
    ).live().shared(),
    setting(
        "jobs.generations-max",
        "100000",
        "how many jobs may enqueue one another in a row; a single job that starts at least a second later does not count. \
         `generations-max` under [plugins.NAME] sets another number for a plugin",
    ).live().shared(),
    setting(
        "lease.length",
        "30s",
        "time after which another host may take over the jobs of a host that no longer renews its leases; leases are renewed after a third of it",
    ).shared(),
    setting(
        "lease.margin",
        "3s",
        "time before its leases expire at which a host that cannot renew them stops its attempts",
    ).shared(),
    setting("upkeep.interval", "5m", "interval at which expired leases are freed and old jobs deleted").shared(),
    setting("upkeep.keep-finished", "7d", "time that finished jobs are kept, with result, chunks and log").live().shared(),
    setting(
        "upkeep.keep-succeeded",
        "",
        "time that jobs are kept that succeeded, in place of `keep-finished`; under [plugins.NAME.tasks.TASK], those of one task, as \
         the next two",
    ).live().shared(),
    setting("upkeep.keep-failed", "", "time that jobs are kept that failed, in place of `keep-finished`").live().shared(),
    setting("upkeep.keep-cancelled", "", "time that cancelled jobs are kept, in place of `keep-finished`").live().shared(),
    setting(
        "log.level",
        "info",
        "error, warn, info, debug or trace; also for one part of the program, as in `info,wharf_engine=debug`",
    ).live(),
    setting("log.format", "text", "format of the log on the standard error: text or json"),
];

/// Finds the setting with this key.
pub(crate) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// Returns the name of the environment variable that sets `key`.
pub(crate) fn variable(key: &str) -> String {
    format!("WHARF__{}", key.to_ascii_uppercase().replace('.', "__").replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_settings_share_a_variable() {
        let mut names: Vec<String> = SETTINGS.iter().map(|s| variable(s.key)).collect();
        assert_eq!(variable("attempts.at-once"), "WHARF__ATTEMPTS__AT_ONCE");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), SETTINGS.len());
    }
}
