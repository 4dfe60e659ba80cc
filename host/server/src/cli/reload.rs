//! Reads the settings again while the host runs. Tokens take effect at once, all of the file or none; every other setting
//! takes effect at the next start.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::access::{TokenChanges, TokenTable, Tokens};
use crate::config::{Environment, Flags, RawSettings, Settings};
use crate::metrics::Metrics;

/// The interval at which the files are looked at. A change is read once it has lasted for one.
const INTERVAL: Duration = Duration::from_secs(1);
/// The most names that one line of the log has.
const NAMES_MAX: usize = 20;

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Returns the stamp of the file that a path leads to; `None` if there is no file. Links are followed, so that a link
    /// which leads elsewhere counts as a change.
    fn of(path: &Path) -> Option<Stamp> {
        let data = path.metadata().ok().filter(Metadata::is_file)?;
        Some(Stamp {
            file: (data.dev(), data.ino()),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// The files that settings are read from, and their state at one moment: the settings file is the first, those of tokens
/// follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files(Vec<(PathBuf, Option<Stamp>)>);

impl Files {
    fn of(paths: impl IntoIterator<Item = PathBuf>) -> Files {
        let stamped = paths.into_iter().map(|path| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        });
        Files(stamped.collect())
    }

    /// Returns the settings file as it is now.
    pub(crate) fn of_settings(flags: &Flags, environment: &Environment) -> Files {
        Files::of([RawSettings::path(flags, environment)])
    }

    /// Returns the settings file as it was, and the files of these tokens as they are now.
    pub(crate) fn with_tokens(mut self, raw: &RawSettings, environment: &Environment) -> Files {
        self.0.truncate(1);
        self.0.extend(Files::of(raw.tokens.iter().filter_map(|token| token.file(environment))).0);
        self
    }

    fn now(&self) -> Files {
        Files::of(self.0.iter().map(|(path, _)| path.clone()))
    }

    /// Returns the first of them that is a pipe or a device: it cannot be read twice, and reading it may never end.
    fn unreadable(&self) -> Option<&Path> {
        let is_other = |path: &Path| path.metadata().is_ok_and(|data| !data.is_file() && !data.is_dir());
        self.0.iter().map(|(path, _)| path.as_path()).find(|path| is_other(path))
    }

    fn settings(&self) -> String {
        self.0.first().map(|(path, _)| path.display().to_string()).unwrap_or_default()
    }
}

/// Reads settings again as the host itself read them.
pub(crate) struct Reload {
    flags: Flags,
    environment: Environment,
    /// The settings that the host started with.
    started: RawSettings,
    /// True if a host without a token would be open to those whom it was closed to at its start.
    needs_tokens: bool,
    /// The files as they were read last.
    read: Files,
    /// The files at the last look.
    seen: Files,
    /// True if the files changed while they were read, so that what they said does not count.
    is_torn: bool,
    /// The settings that were last reported to need a restart.
    reported: Vec<String>,
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
        let (read, seen) = (files.clone(), files);
        Reload { flags, environment, started, needs_tokens, read, seen, is_torn: false, reported: Vec::new() }
    }

    /// Replaces `tokens` whenever the files have changed, and reads them at once when `asked` is notified. It never returns.
    pub(crate) async fn run(mut self, asked: Arc<Notify>, tokens: Tokens, metrics: Arc<Metrics>) {
        loop {
            let is_asked = tokio::select! {
                () = asked.notified() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            let (tokens, metrics) = (tokens.clone(), Arc::clone(&metrics));
            // Off this thread: the folder may be one of a slow network.
            let looked = spawn_blocking(move || {
                self.look(is_asked, &tokens, &metrics);
                self
            });
            match looked.await {
                Ok(again) => self = again,
                // The host is gone, or a panic has been logged.
                Err(_) => return,
            }
        }
    }

    fn look(&mut self, is_asked: bool, tokens: &Tokens, metrics: &Metrics) {
        let now = self.read.now();
        let is_still = now == self.seen;
        self.seen = now.clone();
        let is_due = now != self.read || self.is_torn;
        if !is_asked && (!is_due || !is_still) {
            return;
        }
        let (files, result) = self.read_again(now);
        let after = files.now();
        self.is_torn = after != files;
        (self.read, self.seen) = (files, after);
        if self.is_torn {
            // Somebody writes at this moment. A later look reads what became of it.
            return;
        }
        let file = self.read.settings();
        match result {
            Ok((table, raw)) => {
                metrics.settings_reloaded("applied");
                info!("read {file} again: {}", described(&tokens.replace(table)));
                self.report_others(&raw, is_asked);
            }
            Err(why) => {
                metrics.settings_reloaded("refused");
                error!("refused {file}, and everything stays as it was: {why}");
            }
        }
    }

    /// Reads all settings. Returns the files that were read, as they were before, and what they say.
    fn read_again(&self, mut files: Files) -> (Files, Result<(TokenTable, RawSettings), String>) {
        let result = self.tokens(&mut files);
        (files, result)
    }

    fn tokens(&self, files: &mut Files) -> Result<(TokenTable, RawSettings), String> {
        let readable = |files: &Files| match files.unreadable() {
            Some(path) => Err(format!("{} is not a file, so it cannot be read again", path.display())),
            None => Ok(()),
        };
        readable(files)?;
        let mut raw = RawSettings::read(&self.flags, &self.environment).map_err(|problems| problems.to_string())?;
        *files = files.clone().with_tokens(&raw, &self.environment);
        readable(files)?;
        let settings = Settings::check(&mut raw, &self.environment).map_err(|problems| problems.to_string())?;
        let table = settings.token_table(&raw, &self.environment).map_err(|problems| problems.to_string())?;
        if self.needs_tokens && table.is_empty() {
            let why = "no token is left, so the host would be open to everyone who reaches it; \
                       leave a token, or stop the host and start it without one";
            return Err(why.to_owned());
        }
        Ok((table, raw))
    }

    /// Says once which other settings differ from those that hold; when asked, says so again.
    fn report_others(&mut self, raw: &RawSettings, is_asked: bool) {
        let keys = self.started.keys_that_differ(raw);
        if !keys.is_empty() && (is_asked || keys != self.reported) {
            warn!("changed settings take effect when the host is started again: {}", listed(&keys));
        }
        self.reported = keys;
    }
}

/// Returns what changed, in words.
fn described(changes: &TokenChanges) -> String {
    let groups = [("added", &changes.added), ("removed", &changes.removed), ("changed", &changes.changed)];
    let texts = groups.into_iter().filter(|(_, names)| !names.is_empty());
    let texts: Vec<String> = texts.map(|(what, names)| format!("{what} {}", listed(names))).collect();
    if texts.is_empty() { "no token changed".to_owned() } else { format!("tokens {}", texts.join("; ")) }
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let first: Vec<String> = names.iter().take(NAMES_MAX).map(|name| format!("`{name}`")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    first.join(", ") + &more
}
