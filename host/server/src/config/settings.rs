//! The second step: checks every setting and reports all problems at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::ids::NodeId;
use wharf_core::ids::PluginId;
use wharf_core::keep::Keep;
use wharf_core::schedule::FileSchedules;
use wharf_core::time::Timestamp;
use wharf_engine::{CacheSettings, Compile, PluginSettings};
use wharf_runner::LiveSettings;

use super::digest::digest;
use super::environment::Environment;
use super::machine_memory::{MachineMemory, machine_memory};
use super::origin::{Origin, Problems, nearest};
use super::raw::RawSettings;
use super::tokens;
use super::values::{
    PublicUrl, bytes_from, duration_within, host_address, listen_address, number_within, public_url, yes_or_no,
};
use crate::access::{Access, TokenHash, TokenTable};

/// The format of the host's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Every setting, checked and parsed.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// The token that commands send, and that means admin on a host.
    pub(crate) token: Option<String>,
    pub(crate) public_url: Option<PublicUrl>,
    pub(crate) proxy_authenticates: bool,
    pub(crate) host: String,
    pub(crate) store: String,
    pub(crate) plugins_dir: PathBuf,
    /// The folder was not set by the user, so the host creates it if it is missing.
    pub(crate) plugins_dir_is_default: bool,
    pub(crate) plugins_rescan: Duration,
    pub(crate) cache: CacheSettings,
    pub(crate) extra_ca: Option<PathBuf>,
    pub(crate) memory_budget: u64,
    pub(crate) attempts_at_once: u32,
    pub(crate) guest_threads: u32,
    pub(crate) broadcasts_at_once: u32,
    pub(crate) broadcast_calls: u32,
    pub(crate) waiting_max: u32,
    pub(crate) generations_max: u32,
    pub(crate) cancel_grace: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) lease_margin: Duration,
    pub(crate) upkeep_interval: Duration,
    pub(crate) keep: Keep,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    pub(crate) plugins: BTreeMap<PluginId, PluginSettings>,
    pub(crate) schedules: FileSchedules,
}

const DAY: Duration = Duration::from_secs(86_400);
/// The longest time for which finished jobs may be kept.
const KEEP_MAX: Duration = Duration::from_secs(3650 * 86_400);
const GUEST_THREADS_MAX: u32 = 1024;

impl Settings {
    /// Checks and parses the settings. Values that are derived from others are written back into `raw`, which `wharf
    /// config` shows.
    ///
    /// # Errors
    /// When a value is invalid, or two values contradict each other; the error lists every problem.
    pub(crate) fn check(raw: &mut RawSettings, environment: &Environment) -> Result<Settings, Problems> {
        derive_missing(raw, environment);
        let plugins = raw.plugins.iter().map(|section| (section.id.clone(), section.settings.clone())).collect();
        let schedules: BTreeMap<_, _> =
            raw.schedules.iter().map(|section| (section.id.clone(), section.spec.clone())).collect();
        // A file without schedules is one like any other.
        let revision = if schedules.is_empty() { Timestamp::ZERO } else { raw.written_at };
        let schedules = FileSchedules { revision, schedules };
        let host_is_known = !raw.of("host").0.is_empty();
        let mut read = Reader { raw, problems: Problems::default() };
        read.no_empty_token();
        let millis = Duration::from_millis;
        let settings = Settings {
            listen: read.value("listen", listen_address).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
            token: read.value("token", token).flatten(),
            public_url: read.value("public-url", public_url).flatten(),
            proxy_authenticates: read.value("proxy-authenticates", yes_or_no).unwrap_or(false),
            // A host that could not be derived has its problem reported at `listen`.
            host: if host_is_known { read.value("host", host_address).unwrap_or_default() } else { String::new() },
            store: read.value("store", store).unwrap_or_default(),
            plugins_dir: read.value("plugins-dir", path).unwrap_or_default(),
            plugins_dir_is_default: *read.raw.of("plugins-dir").1 == Origin::Default,
            plugins_rescan: read.duration("plugins-rescan", millis(100), DAY),
            cache: CacheSettings {
                dir: read.value("cache-dir", path).unwrap_or_default(),
                dir_is_default: matches!(read.raw.of("cache-dir").1, Origin::Derived(_)),
                bytes_max: read.value("cache-max", cache_max).unwrap_or(bounds::CACHE_BYTES_DEFAULT),
            },
            extra_ca: Some(read.raw.of("http.extra-ca").0).filter(|file| !file.is_empty()).map(PathBuf::from),
            memory_budget: read.value("memory.budget", memory_budget).unwrap_or(bounds::MEMORY_BUDGET_MIN),
            attempts_at_once: read.number("attempts.at-once", bounds::ATTEMPTS_MAX),
            guest_threads: read.number("attempts.guest-threads", GUEST_THREADS_MAX),
            broadcasts_at_once: read.number("broadcasts.at-once", bounds::BROADCASTS_MAX),
            broadcast_calls: read.number("broadcasts.calls", bounds::BROADCAST_CALLS_MAX),
            waiting_max: read.number("jobs.waiting-max", bounds::JOBS_WAITING_MAX),
            generations_max: read.number("jobs.generations-max", bounds::GENERATIONS_MAX),
            cancel_grace: read.duration("attempts.cancel-grace", Duration::ZERO, DAY),
            drain_timeout: read.duration("attempts.drain-timeout", Duration::ZERO, DAY),
            lease: read.duration("lease.length", millis(1000), DAY),
            lease_margin: read.duration("lease.margin", millis(10), DAY),
            upkeep_interval: read.duration("upkeep.interval", millis(100), DAY),
            keep: read.keep(),
            log_level: read.value("log.level", log_level).unwrap_or_default(),
            log_format: read.value("log.format", log_format).unwrap_or(LogFormat::Text),
            plugins,
            schedules,
        };
        // Relations are checked only between valid values.
        if read.problems.is_empty() {
            read.relations(&settings);
        }
        read.problems.or(settings)
    }

    /// Returns the tokens that requests may send: those of `[[tokens]]`, and `token`, which means admin.
    ///
    /// # Errors
    /// When a token cannot be read; the error lists every problem.
    pub(crate) fn token_table(&self, raw: &RawSettings, environment: &Environment) -> Result<TokenTable, Problems> {
        let mut tokens = tokens::resolve(&raw.tokens, environment)?;
        if let Some(token) = &self.token {
            let hash = TokenHash::of(token);
            let mut problems = Problems::default();
            if tokens.iter().any(|(known, _)| *known == hash) {
                problems.add(raw.of("token").1, "`token`: it stands in `tokens`, too; leave one out");
            }
            tokens = problems.or(tokens)?;
            tokens.push((hash, Access::everything("token")));
        }
        Ok(TokenTable::new(tokens))
    }

    /// Returns the settings of one plugin: empty ones if it has no section or `id` is not a plugin ID.
    pub(crate) fn plugin(&self, id: &str) -> PluginSettings {
        id.parse().ok().and_then(|id| self.plugins.get(&id).cloned()).unwrap_or_default()
    }

    /// Returns the settings of a host's engine, which compiles plugins as `compile` says.
    pub(crate) fn engine_settings(&self, compile: Compile) -> wharf_engine::Settings {
        wharf_engine::Settings {
            attempts: self.attempts_at_once,
            broadcast_calls: self.broadcast_calls,
            guest_threads: self.guest_threads as usize,
            cache: self.cache.clone(),
            compile,
            memory_budget: self.memory_budget,
            extra_ca: self.extra_ca.clone(),
        }
    }

    /// Returns the settings of a host that may change while it runs. `raw` is what these settings were read from.
    pub(crate) fn live_settings(&self, raw: &RawSettings) -> LiveSettings {
        LiveSettings { digest: digest(raw), ..self.undigested() }
    }

    fn undigested(&self) -> LiveSettings {
        LiveSettings {
            waiting_max: self.waiting_max,
            generations_max: self.generations_max,
            keep: self.keep,
            plugins: self.plugins.clone(),
            schedules: self.schedules.clone(),
            ..LiveSettings::default()
        }
    }

    /// Returns the settings of a host that other hosts know as `name`, with a new random node ID, and without a digest.
    pub(crate) fn host_settings(&self, name: String, plugins_dir: PathBuf) -> wharf_runner::Settings {
        wharf_runner::Settings {
            node: NodeId(fastrand::u64(1..)),
            name,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plugins_dir,
            attempts: self.attempts_at_once,
            broadcasts: self.broadcasts_at_once,
            lease: self.lease,
            lease_margin: self.lease_margin,
            write_timeout: bounds::WRITE_TIMEOUT,
            cancel_grace: self.cancel_grace,
            upkeep_interval: self.upkeep_interval,
            rescan: self.plugins_rescan,
            live: self.undigested(),
        }
    }
}

/// Parses raw values one by one and collects their problems.
struct Reader<'r> {
    raw: &'r RawSettings,
    problems: Problems,
}

impl Reader<'_> {
    /// Reads how long finished jobs are kept: how they ended says more than that they ended.
    fn keep(&mut self) -> Keep {
        let all = self.duration("upkeep.keep-finished", Duration::ZERO, KEEP_MAX);
        let mut of = |key: &'static str| {
            // Of a mistake in what it is derived from, the error is about that.
            let is_derived = matches!(self.raw.of(key).1, Origin::Derived(_));
            if is_derived { all } else { self.duration(key, Duration::ZERO, KEEP_MAX) }
        };
        let (succeeded, failed) = (of("upkeep.keep-succeeded"), of("upkeep.keep-failed"));
        Keep { succeeded, failed, cancelled: of("upkeep.keep-cancelled") }
    }

    fn value<T, E: Display>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let (text, _) = self.raw.of(key);
        parse(text).map_err(|error| self.complain(key, error)).ok()
    }

    fn duration(&mut self, key: &'static str, low: Duration, high: Duration) -> Duration {
        self.value(key, |text| duration_within(text, low..=high)).unwrap_or(low)
    }

    fn number(&mut self, key: &'static str, high: u32) -> u32 {
        self.value(key, |text| number_within(text, 1..=high)).unwrap_or(1)
    }

    fn complain(&mut self, key: &'static str, text: impl Display) {
        self.problems.add(self.raw.of(key).1, format_args!("`{key}`: {text}"));
    }

    /// Refuses a token that was set to nothing. It is a variable of another program that was not set, most likely: whoever
    /// wrote it wants a token, and a host without one is open.
    fn no_empty_token(&mut self) {
        let (text, origin) = self.raw.of("token");
        if text.is_empty() && *origin != Origin::Default {
            self.complain(
                "token",
                "it is empty; set one, such as that of `openssl rand -hex 32`, or leave the setting out",
            );
        }
    }

    /// Checks settings against each other.
    fn relations(&mut self, settings: &Settings) {
        if !settings.listen.ip().is_loopback() && settings.token.is_none() && self.raw.tokens.is_empty() {
            let text = format!(
                "{} is reachable from other machines, which requires a token; set `token` in wharf.toml or WHARF__TOKEN, add \
                 `[[tokens]]` to wharf.toml, or listen on 127.0.0.1",
                settings.listen
            );
            self.complain("listen", text);
        }
        if settings.public_url.as_ref().is_some_and(|url| !url.is_loopback())
            && settings.token.is_none()
            && self.raw.tokens.is_empty()
            && !settings.proxy_authenticates
        {
            let text = "others reach the host there, which requires a token; set `token` in wharf.toml or WHARF__TOKEN, add \
                        `[[tokens]]` to wharf.toml, or, if the proxy lets in only whom it knows, set \
                        `proxy-authenticates = true`";
            self.complain("public-url", text);
        }
        // After a failed renewal there must be time for a second one before attempts are stopped.
        if settings.lease_margin * bounds::LEASE_RENEWALS >= settings.lease {
            let text = "it must be less than a third of `lease.length`, to leave time for a second renewal if the first one fails";
            self.complain("lease.margin", text);
        }
    }
}

fn token(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    tokens::check_token(text).map(|()| Some(text.to_owned()))
}

fn store(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("it is empty; use sqlite:FILE, postgres://… or memory:") } else { Ok(text.to_owned()) }
}

fn path(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() { Err("it is empty; name a folder") } else { Ok(PathBuf::from(text)) }
}

fn cache_max(text: &str) -> Result<u64, String> {
    bytes_from(text, bounds::CACHE_BYTES_MIN)
}

fn memory_budget(text: &str) -> Result<u64, String> {
    bytes_from(text, bounds::MEMORY_BUDGET_MIN)
}

fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    // The filter would take a word that is not a level for a part of the program and log only its lines, so almost none.
    let bare = text.split(',').map(str::trim).filter(|piece| !piece.contains(['=', '[', ']', '{', '}']));
    for word in bare {
        if word.parse::<tracing::level_filters::LevelFilter>().is_err() {
            let hint = nearest(word, LEVELS);
            return Err(format!(
                "unknown log level `{word}`{hint}; use error, warn, info, debug or trace, or `{word}=debug` for one part of the program"
            ));
        }
    }
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("invalid log level `{text}`: {error}; use error, warn, info, debug or trace")),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("unknown log format `{other}`; use text or json")),
    }
}

/// Derives the settings that were not set from other settings and from the machine.
fn derive_missing(raw: &mut RawSettings, environment: &Environment) {
    if raw.of("host").0.is_empty()
        && let Ok(listen) = listen_address(raw.of("listen").0)
    {
        let mut reachable = listen;
        if listen.ip().is_unspecified() {
            reachable.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        raw.derive("host", format!("http://{reachable}"), "`listen`");
    }
    if raw.of("cache-dir").0.is_empty() {
        let (folder, from) = cache_dir(environment);
        raw.derive("cache-dir", folder.display().to_string(), from);
    }
    for key in ["upkeep.keep-succeeded", "upkeep.keep-failed", "upkeep.keep-cancelled"] {
        if raw.of(key).0.is_empty() {
            let all = raw.of("upkeep.keep-finished").0.to_owned();
            raw.derive(key, all, "`upkeep.keep-finished`");
        }
    }
    if raw.of("attempts.guest-threads").0.is_empty() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        raw.derive("attempts.guest-threads", cores.to_string(), "the number of cores");
    }
    if raw.of("memory.budget").0.is_empty() {
        let unknown = MachineMemory { bytes: bounds::COMPILE_MEMORY_BYTES_MAX, from: "60 % of 4 GiB" };
        let MachineMemory { bytes, from } = machine_memory().unwrap_or(unknown);
        let mebibytes = (bytes / 10 * 6).max(bounds::MEMORY_BUDGET_MIN) / bounds::MIB;
        raw.derive("memory.budget", format!("{mebibytes}MiB"), from);
    }
}

/// Returns the folder for compiled plugins, and where it was derived from. It is out of the way and shared by all hosts
/// of one user, which is safe because entries are named by their content.
fn cache_dir(environment: &Environment) -> (PathBuf, &'static str) {
    // A setting is text, so a path that is not UTF-8 cannot be used: converting it would name another folder.
    let absolute =
        |name| environment.variable(name).map(Path::new).filter(|path| path.is_absolute() && path.to_str().is_some());
    match (absolute("XDG_CACHE_HOME"), absolute("HOME")) {
        (Some(cache), _) => (cache.join("wharf"), "$XDG_CACHE_HOME"),
        (None, Some(home)) => (home.join(".cache/wharf"), "$HOME"),
        (None, None) => (PathBuf::from(".wharf/cache"), "the working directory, because $HOME is not an absolute path"),
    }
}
