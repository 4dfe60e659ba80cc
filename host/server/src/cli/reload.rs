//! Reads the settings again while the host runs. Grants, task settings, limits, tokens and the log level take effect at once,
//! all of the file or none of it; every other setting takes effect at the next start.

mod stillness;
mod writers;
mod files;

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};
use wharf_runner::{Host, LiveSettings, SettingsChanges, SettingsRejection};

pub(crate) use files::Files;
use stillness::{AFTER_CLOSE, WHILE_OPEN};
use writers::Writers;

use super::log::LogLevel;
use crate::access::{TokenChanges, TokenTable, Tokens};
use crate::config::{Environment, Flags, RawSettings, Settings, shown};
use crate::http::HeldConfig;
use crate::metrics::Metrics;
use crate::service_manager::ServiceManager;

/// The interval at which the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The most names that one line of the log has.
const NAMES_MAX: usize = 20;
/// The text for files that say what holds already.
const NOTHING: &str = "nothing changed";

/// The parts of a host that take new settings.
pub(crate) struct Targets {
    pub(crate) tokens: Tokens,
    pub(crate) log: LogLevel,
    pub(crate) config: HeldConfig,
    pub(crate) metrics: Arc<Metrics>,
    /// The host, once it has started.
    pub(crate) host: watch::Receiver<Option<Host>>,
    pub(crate) service: ServiceManager,
}

/// Settings that were read, and have no mistake but what plugins find.
struct Checked {
    raw: RawSettings,
    settings: Settings,
    table: TokenTable,
}

/// Reads settings again as the host itself read them.
pub(crate) struct Reload {
    flags: Flags,
    environment: Environment,
    /// The settings that the host started with.
    started: RawSettings,
    /// The settings that hold, unless those of the start do.
    held: Option<RawSettings>,
    /// True if the settings that hold came from a file.
    has_file: bool,
    /// True if a host without a token would be open to those whom it was closed to at its start.
    needs_tokens: bool,
    /// The files as they were read last.
    read: Files,
    /// The files at the last look.
    seen: Files,
    /// The time since which the files are as they were seen, and nobody was heard to write.
    still_since: Instant,
    /// Those who write in the files.
    writers: Writers,
    /// True if somebody asked to read the files, and they were not read since.
    is_asked: bool,
    /// True if the files changed while they were read, so that what they said does not count.
    is_torn: bool,
    /// True if it was reported that the changed files are not read yet.
    is_delay_reported: bool,
    /// The time until the next look.
    next_look: Duration,
    /// The settings that were last reported to need a restart.
    reported: Vec<String>,
    /// Settings for a host that has not started yet.
    pending: Option<LiveSettings>,
    /// The digest of the last settings, and what changed, until the audit log has them.
    unrecorded: Option<(String, String)>,
    /// Why the files were refused, if they are.
    refused: Option<String>,
    /// The version of the catalog whose plugins refused the files. Other plugins may take them.
    refused_by: Option<u64>,
}

impl Reload {
    /// Returns what reads the settings again of a host that started with `started`, read from `files`.
    pub(crate) fn new(
        flags: Flags,
        environment: Environment,
        files: Files,
        started: RawSettings,
        needs_tokens: bool,
    ) -> Reload {
        let has_file = files.has_settings();
        let (read, seen) = (files.clone(), files);
        let (held, pending, refused, refused_by) = (None, None, None, None);
        let (is_asked, is_torn, is_delay_reported) = (false, false, false);
        let (reported, unrecorded) = (Vec::new(), None);
        // The first look begins to listen to those who write.
        let (still_since, writers, next_look) = (Instant::now(), Writers::new(), Duration::ZERO);
        Reload {
            flags,
            environment,
            started,
            held,
            has_file,
            needs_tokens,
            read,
            seen,
            still_since,
            writers,
            is_asked,
            is_torn,
            is_delay_reported,
            next_look,
            reported,
            pending,
            unrecorded,
            refused,
            refused_by,
        }
    }

    /// Gives new settings to `targets` whenever the files have changed, and whenever `asked` is notified. It never returns.
    pub(crate) async fn run(mut self, asked: Arc<Notify>, mut targets: Targets) {
        loop {
            tokio::select! {
                () = asked.notified() => {
                    self.is_asked = true;
                    targets.service.reloading();
                }
                () = tokio::time::sleep(self.next_look) => {}
                Ok(()) = targets.host.changed() => {
                    self.host_started(&targets).await;
                    continue;
                }
            }
            let host = targets.host.borrow().clone();
            let catalog = host.as_ref().map(|host| host.catalog().version());
            let is_retry = self.refused_by.is_some() && self.refused_by != catalog;
            // Off this thread: the folder may be one of a slow network.
            let looked = spawn_blocking(move || {
                let found = self.look(is_retry);
                (self, found)
            });
            let found = match looked.await {
                Ok((again, found)) => {
                    self = again;
                    found
                }
                Err(error) => {
                    targets.service.reloaded();
                    if error.is_panic() {
                        error!(
                            "a bug in Wharf ended the reading of changed settings; what holds stays, and nothing is read again: start the \
                             host again to change settings or tokens"
                        );
                    }
                    return;
                }
            };
            let Some(result) = found else { continue };
            let is_asked = mem::take(&mut self.is_asked);
            targets.service.reloading();
            match result {
                Err(why) => self.refuse(why, None, &targets),
                Ok(checked) => self.apply(checked, host, is_asked, &targets).await,
            }
            targets.service.reloaded();
        }
    }

    /// Returns what the files say, if they are to be read now. Who asks for it may be late, and somebody may write again: only
    /// files that have not changed are read at once.
    fn look(&mut self, is_retry: bool) -> Option<Result<Checked, String>> {
        // Before the files are looked at: no change is seen whose writer is not heard.
        let is_heard = self.writers.listen(self.read.paths());
        let now = self.read.now();
        if is_heard || now != self.seen {
            self.still_since = Instant::now();
        }
        self.seen = now.clone();
        self.next_look = INTERVAL;
        let is_changed = now != self.read || self.is_torn;
        if is_changed && !self.is_complete(&now) {
            return None;
        }
        if !is_changed && !self.is_asked && !is_retry {
            return None;
        }
        // It is told again.
        if self.is_asked || now != self.read {
            self.refused = None;
        }
        let mut files = now.clone();
        let result = self.check(&mut files);
        let after = files.now();
        // If somebody writes at this moment, a later look reads what became of it, as it does with files of tokens that were
        // not watched yet.
        self.is_torn = after != files || files.has_more_than(&now);
        (self.read, self.seen) = (files, after);
        if self.is_torn {
            self.still_since = Instant::now();
            return None;
        }
        self.writers.forget_closed();
        self.is_delay_reported = false;
        Some(result)
    }

    /// Returns true if changed files have stayed as they are for so long that nobody still writes them.
    fn is_complete(&mut self, now: &Files) -> bool {
        let (needed, file) = now.stillness(&self.read, &self.writers);
        let still = self.still_since.elapsed();
        self.next_look = needed.saturating_sub(still).min(INTERVAL);
        if needed == WHILE_OPEN && (AFTER_CLOSE..needed).contains(&still) && !self.is_delay_reported {
            self.is_delay_reported = true;
            info!(
                "{} changed, but the program that writes it has not closed it; it is read once it is closed, or has not changed for a minute",
                file.display()
            );
        }
        still >= needed
    }

    /// Reads all settings. `files` become those that were read, as they were before.
    fn check(&self, files: &mut Files) -> Result<Checked, String> {
        let readable = |files: &Files| match files.unreadable() {
            Some(path) => Err(format!("{} is not a file, so it cannot be read again", path.display())),
            None => Ok(()),
        };
        readable(files)?;
        if self.has_file && !files.has_settings() {
            return Err("the file is gone; put it back, or stop the host and start it without one".to_owned());
        }
        let mut raw = RawSettings::read(&self.flags, &self.environment).map_err(|problems| problems.to_string())?;
        *files = files.clone().with_outside(&raw, &self.environment);
        readable(files)?;
        raw.read_outside(None, &self.environment).map_err(|problems| problems.to_string())?;
        raw.succeed(self.held.as_ref().unwrap_or(&self.started));
        let settings = Settings::check(&mut raw, &self.environment).map_err(|problems| problems.to_string())?;
        let table = settings.token_table(&raw, &self.environment).map_err(|problems| problems.to_string())?;
        if self.needs_tokens && table.is_empty() {
            let why = "no token is left, so the host would be open to everyone who reaches it; \
                       leave a token, or stop the host and start it without one";
            return Err(why.to_owned());
        }
        Ok(Checked { raw, settings, table })
    }

    async fn apply(&mut self, checked: Checked, host: Option<Host>, is_asked: bool, targets: &Targets) {
        let Checked { raw, settings, table } = checked;
        let restart = self.started.keys_for_restart(&raw);
        let held = raw.over(&self.started);
        let live = settings.live_settings(&held);
        let (digest, recorded) = (live.digest.clone(), live.digest.clone());
        let plugins = match host {
            // The plugins go first: they alone may still refuse.
            Some(host) => match change(&host, live).await {
                Ok(changes) => changes,
                Err(SettingsRejection::Invalid(found)) => {
                    let why = held.problems_of_plugins(&found).to_string();
                    return self.refuse(why, Some(host.catalog().version()), targets);
                }
                Err(SettingsRejection::Stopping) => return,
            },
            None => {
                self.pending = Some(live);
                SettingsChanges::default()
            }
        };
        // Whoever was closed out once is not let in by a file that lost its tokens.
        self.needs_tokens |= !table.is_empty();
        let tokens = targets.tokens.replace(table);
        targets.log.set(&settings.log_level);
        targets.config.replace(shown(&held), digest, restart.clone());
        targets.metrics.settings_reloaded("applied");
        let keys = self.held.as_ref().unwrap_or(&self.started).live_keys_that_differ(&held);
        let what = described(&tokens, &plugins, &keys);
        info!("read {} again: {what}", self.read.settings());
        let asked = if is_asked { "after SIGHUP" } else { "after a change of its file" };
        if what != NOTHING {
            self.unrecorded = Some((recorded, format!("{asked}: {what}")));
            self.record_act(targets).await;
        }
        self.report_restart(restart, is_asked);
        (self.held, self.has_file) = (Some(held), self.read.has_settings());
        (self.refused, self.refused_by) = (None, None);
    }

    /// Everything stays as it was. `by` is the version of the catalog whose plugins refused the settings, if plugins did.
    fn refuse(&mut self, why: String, by: Option<u64>, targets: &Targets) {
        self.refused_by = by;
        // Other plugins may have refused the same file for the same reason.
        if by.is_some() && self.refused.as_ref() == Some(&why) {
            return;
        }
        targets.metrics.settings_reloaded("refused");
        targets.config.refuse(&why);
        error!("refused {}, and everything stays as it was: {why}", self.read.settings());
        self.refused = Some(why);
    }

    /// Adds the act of having read other settings to the audit log, if a host is there to do so.
    async fn record_act(&mut self, targets: &Targets) {
        let host = targets.host.borrow().clone();
        let Some(host) = host else { return };
        let Some((digest, detail)) = self.unrecorded.take() else { return };
        if let Err(error) = host.add_settings_act(&digest, &detail).await {
            error!("could not add to the audit log that settings were changed ({detail}): {error}");
        }
    }

    /// Gives the host the settings that were read before it had started.
    async fn host_started(&mut self, targets: &Targets) {
        self.record_act(targets).await;
        let host = targets.host.borrow().clone();
        let (Some(host), Some(live)) = (host, self.pending.take()) else { return };
        if let Err(SettingsRejection::Invalid(found)) = change(&host, live).await {
            let held = self.held.as_ref().unwrap_or(&self.started);
            let why = held.problems_of_plugins(&found).to_string();
            self.refuse(why, Some(host.catalog().version()), targets);
        }
    }

    /// Says once which changed settings need a restart; when asked, says so again.
    fn report_restart(&mut self, keys: Vec<String>, is_asked: bool) {
        if !keys.is_empty() && (is_asked || keys != self.reported) {
            warn!("changed settings take effect when the host is started again: {}", listed(&keys));
        }
        self.reported = keys;
    }
}

/// Gives a host its settings, if it has others.
async fn change(host: &Host, live: LiveSettings) -> Result<SettingsChanges, SettingsRejection> {
    if **host.catalog().settings() == live {
        return Ok(SettingsChanges::default());
    }
    host.change_settings(live).await
}

/// Returns what changed, in words.
fn described(tokens: &TokenChanges, plugins: &SettingsChanges, keys: &[String]) -> String {
    let refused = plugins.refused.iter().map(ToString::to_string).collect();
    let groups = [
        ("tokens added", tokens.added.clone()),
        ("tokens removed", tokens.removed.clone()),
        ("tokens changed", tokens.changed.clone()),
        ("settings changed", keys.to_vec()),
        ("plugins refused", refused),
    ];
    let groups = groups.into_iter().filter(|(_, names)| !names.is_empty());
    let texts: Vec<String> = groups.map(|(what, names)| format!("{what} {}", listed(&names))).collect();
    if texts.is_empty() { NOTHING.to_owned() } else { texts.join("; ") }
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let first: Vec<String> = names.iter().take(NAMES_MAX).map(|name| format!("`{name}`")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    first.join(", ") + &more
}
