//! The second step: settings that the parts of the host can use, each checked, all problems at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::lease;
use wharf_engine::PluginSettings;

use super::origin::{Origin, Problems, nearest};
use super::raw::{Given, Surroundings};
use super::values::{duration_within, host_address, listen_address, number_within};

/// How the host's own log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Every setting, ready to use.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) token: Option<String>,
    pub(crate) host: String,
    pub(crate) store: String,
    pub(crate) plugins_dir: PathBuf,
    /// Nobody chose the folder: it is made where it is missing.
    pub(crate) plugins_dir_is_default: bool,
    pub(crate) plugins_rescan: Duration,
    pub(crate) cache_dir: PathBuf,
    pub(crate) attempts_at_once: u32,
    pub(crate) guest_threads: u32,
    pub(crate) broadcasts_at_once: u32,
    pub(crate) broadcast_calls: u32,
    pub(crate) cancel_grace: Duration,
    pub(crate) drain_patience: Duration,
    pub(crate) lease: Duration,
    pub(crate) lease_margin: Duration,
    pub(crate) upkeep_interval: Duration,
    pub(crate) keep_finished: Duration,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    pub(crate) plugins: BTreeMap<PluginId, PluginSettings>,
}

const DAY: Duration = Duration::from_secs(86_400);
const GUEST_THREADS_MAX: u32 = 1024;
const TOKEN_CHARS_MIN: usize = 16;

impl Settings {
    /// Checks what was given. What was worked out is written back into `given`, so that it can be shown.
    pub(crate) fn ready(given: &mut Given, around: &Surroundings) -> Result<Settings, Problems> {
        derive_the_rest(given, around);
        let plugins = given.plugins.iter().map(|section| (section.id.clone(), section.settings.clone())).collect();
        let given_host = !given.of("host").0.is_empty();
        let mut read = Reader { given, problems: Problems::default() };
        let millis = Duration::from_millis;
        let settings = Settings {
            listen: read.value("listen", listen_address).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
            token: read.value("token", token).flatten(),
            // What could not be worked out has its problem where it comes from.
            host: if given_host { read.value("host", host_address).unwrap_or_default() } else { String::new() },
            store: read.value("store", store).unwrap_or_default(),
            plugins_dir: read.value("plugins-dir", path).unwrap_or_default(),
            plugins_dir_is_default: *read.given.of("plugins-dir").1 == Origin::Default,
            plugins_rescan: read.duration("plugins-rescan", millis(100), DAY),
            cache_dir: read.value("cache-dir", path).unwrap_or_default(),
            attempts_at_once: read.number("attempts.at-once", bounds::ATTEMPTS_MAX),
            guest_threads: read.number("attempts.guest-threads", GUEST_THREADS_MAX),
            broadcasts_at_once: read.number("broadcasts.at-once", bounds::BROADCASTS_MAX),
            broadcast_calls: read.number("broadcasts.calls", bounds::BROADCAST_CALLS_MAX),
            cancel_grace: read.duration("attempts.cancel-grace", Duration::ZERO, DAY),
            drain_patience: read.duration("attempts.drain-patience", Duration::ZERO, DAY),
            lease: read.duration("lease.length", millis(1000), DAY),
            lease_margin: read.duration("lease.margin", millis(10), DAY),
            upkeep_interval: read.duration("upkeep.interval", millis(100), DAY),
            keep_finished: read.duration("upkeep.keep-finished", Duration::ZERO, 3650 * DAY),
            log_level: read.value("log.level", log_level).unwrap_or_default(),
            log_format: read.value("log.format", log_format).unwrap_or(LogFormat::Text),
            plugins,
        };
        // Values that are wrong by themselves say nothing of each other.
        if read.problems.is_empty() {
            read.relations(&settings);
        }
        read.problems.or(settings)
    }
}

struct Reader<'g> {
    given: &'g Given,
    problems: Problems,
}

impl Reader<'_> {
    fn value<T, E: Display>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let (text, _) = self.given.of(key);
        parse(text).map_err(|error| self.complain(key, error)).ok()
    }

    fn duration(&mut self, key: &'static str, low: Duration, high: Duration) -> Duration {
        self.value(key, |text| duration_within(text, low..=high)).unwrap_or(low)
    }

    fn number(&mut self, key: &'static str, high: u32) -> u32 {
        self.value(key, |text| number_within(text, 1..=high)).unwrap_or(1)
    }

    fn complain(&mut self, key: &'static str, text: impl Display) {
        self.problems.add(self.given.of(key).1, format_args!("`{key}`: {text}"));
    }

    /// What must hold between settings.
    fn relations(&mut self, settings: &Settings) {
        if !settings.listen.ip().is_loopback() && settings.token.is_none() {
            let text = format!(
                "{} can be reached from other machines, so a token is required; set `token` in wharf.toml or WHARF__TOKEN, \
                 or listen on 127.0.0.1",
                settings.listen
            );
            self.complain("listen", text);
        }
        // A renewal that failed once must be possible again before attempts are stopped.
        if !lease::is_margin_valid(settings.lease, settings.lease_margin) {
            let text = "it must be less than a third of `lease.length`, so that a renewal which failed once can be made up for";
            self.complain("lease.margin", text);
        }
    }
}

fn token(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        short if short.len() < TOKEN_CHARS_MIN => {
            Err(format!("it is shorter than {TOKEN_CHARS_MIN} characters; make one with `openssl rand -hex 32`"))
        }
        odd if !odd.bytes().all(|c| c.is_ascii_graphic()) => {
            Err("it has characters that no header can carry; letters, digits and signs of ASCII are possible"
                .to_owned())
        }
        good => Ok(Some(good.to_owned())),
    }
}

fn store(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        Err("it is empty; sqlite:FILE, postgres://… or memory: is possible")
    } else {
        Ok(text.to_owned())
    }
}

fn path(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() { Err("it is empty; a folder is expected") } else { Ok(PathBuf::from(text)) }
}

fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    // To the filter, a word that is no level is a part of the program whose lines are then the only ones: silence.
    let bare = text.split(',').map(str::trim).filter(|piece| !piece.contains(['=', '[', ']', '{', '}']));
    for word in bare {
        if word.parse::<tracing::level_filters::LevelFilter>().is_err() {
            let hint = nearest(word, LEVELS);
            return Err(format!(
                "`{word}` is no log level{hint}; error, warn, info, debug or trace is possible, for one part as `{word}=debug`"
            ));
        }
    }
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("`{text}` is no log level ({error}); error, warn, info, debug or trace is possible")),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("`{other}` is no log format; text or json is possible")),
    }
}

/// Works out what was not given.
fn derive_the_rest(given: &mut Given, around: &Surroundings) {
    if given.of("host").0.is_empty()
        && let Ok(listen) = listen_address(given.of("listen").0)
    {
        let mut reachable = listen;
        if listen.ip().is_unspecified() {
            reachable.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        given.derive("host", format!("http://{reachable}"), "`listen`");
    }
    if given.of("cache-dir").0.is_empty() {
        let (folder, from) = cache_dir(around);
        given.derive("cache-dir", folder.display().to_string(), from);
    }
    if given.of("attempts.guest-threads").0.is_empty() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        given.derive("attempts.guest-threads", cores.to_string(), "the number of cores");
    }
}

/// Where compiled plugins are kept: out of the way, and shared by all hosts of one user. Entries are named by content.
fn cache_dir(around: &Surroundings) -> (PathBuf, &'static str) {
    // A setting is text: of a name that is none, only another one could be made.
    let absolute =
        |name| around.variable(name).map(Path::new).filter(|path| path.is_absolute() && path.to_str().is_some());
    match (absolute("XDG_CACHE_HOME"), absolute("HOME")) {
        (Some(cache), _) => (cache.join("wharf"), "$XDG_CACHE_HOME"),
        (None, Some(home)) => (home.join(".cache/wharf"), "$HOME"),
        (None, None) => (PathBuf::from(".wharf/cache"), "the working directory, as $HOME names no folder"),
    }
}
