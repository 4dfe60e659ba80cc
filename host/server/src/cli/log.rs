//! The host's own log on the standard error, as text or as one JSON document a line.
//!
//! No thread of the host writes there itself, so a reader that is slow, gone or stopped (Ctrl-S in a terminal) delays nothing.
//! Lines that it does not take are dropped and counted, and the count is logged once it reads again.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::metrics::counter::Counter;
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::fmt::{MakeWriter, format};

use super::log_fields::EscapedFields;
use super::log_targets::WithTargets;
use super::log_thread::{LineQueue, Sink};
use crate::config::{LogFormat, Settings, backtrace_of_panic};
use crate::output::{escape_json, escape_text};
use crate::progress::Progress;

/// Replaces the filter of the log.
type ReplaceFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// The time for which the end of the process waits for a reader that has stopped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A handle to the log of a host.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    queue: LineQueue,
    format: LogFormat,
}

impl Log {
    /// Starts the log, together with a progress display that shows `message`. Dropped lines are added to `dropped`.
    pub(crate) fn start(settings: &Settings, message: &str, dropped: Counter) -> anyhow::Result<(Log, LogLevel)> {
        let stderr = io::stderr();
        // A file or a pipe gets plain text, even if the environment requests colours everywhere.
        let colours = stderr.is_terminal() && console::colors_enabled_stderr();
        // Bypasses Rust's lock of the standard error: a write that hangs would keep it, and a panicking thread would wait for it.
        let out = stderr.as_fd().try_clone_to_owned().context("could not open the standard error")?;
        let standard_error = StandardError { out: out.into(), progress: Progress::new(message) };
        let queue = LineQueue::start(standard_error, dropped).context("could not start the thread of the log")?;
        let log = Log { queue, format: settings.log_format };
        let shows_targets = Arc::new(AtomicBool::new(shows_targets(&settings.log_level)));
        // The settings were checked, so this filter is valid.
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(&settings.log_level))
            .with_writer(log.clone())
            .with_ansi(colours);
        let targets = Arc::clone(&shows_targets);
        let replace: ReplaceFilter = match settings.log_format {
            LogFormat::Text => {
                let lines = WithTargets::new(targets, |shown| format().with_target(shown));
                let subscriber = subscriber.event_format(lines).fmt_fields(EscapedFields).with_filter_reloading();
                let handle = subscriber.reload_handle();
                subscriber.init();
                Box::new(move |filter| _ = handle.reload(filter))
            }
            LogFormat::Json => {
                let lines = WithTargets::new(targets, |shown| format().json().flatten_event(true).with_target(shown));
                let subscriber = subscriber.event_format(lines).fmt_fields(JsonFields::new()).with_filter_reloading();
                let handle = subscriber.reload_handle();
                subscriber.init();
                Box::new(move |filter| _ = handle.reload(filter))
            }
        };
        let level = LogLevel { current: Mutex::new(settings.log_level.clone()), replace, shows_targets };
        panic::set_hook(Box::new(|panic| match backtrace_of_panic() {
            Some(trace) => error!("a bug in the host: {panic}\n{trace}"),
            None => error!("a bug in the host: {panic}"),
        }));
        Ok((log, level))
    }

    /// Shows on a terminal what the host is doing now.
    pub(crate) fn show_progress(&self, message: String) {
        self.queue.show_progress(message);
    }

    /// Removes the progress display; from here on the log consists of lines only.
    pub(crate) fn end_progress(&self) {
        self.queue.end_progress();
    }

    /// Logs a line without time and level.
    pub(crate) fn line(&self, line: &str) {
        self.queue.add(format!("{}\n", escape_text(line)).as_bytes());
    }

    /// Waits until everything is written, for a second at most.
    pub(crate) fn close(&self) {
        self.queue.close(CLOSE_TIMEOUT);
    }
}

/// The level of the log, which may change while the host runs.
pub(crate) struct LogLevel {
    /// Locked for one comparison.
    current: Mutex<String>,
    replace: ReplaceFilter,
    shows_targets: Arc<AtomicBool>,
}

impl LogLevel {
    /// Logs by this level from now on. It was checked.
    pub(crate) fn set(&self, level: &str) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != level {
            level.clone_into(&mut current);
            self.shows_targets.store(shows_targets(level), Ordering::Relaxed);
            (self.replace)(EnvFilter::new(level));
        }
    }
}

/// Returns true if lines show the part of the program that they come from: a filter by part names it.
fn shows_targets(level: &str) -> bool {
    level.contains('=')
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = EventWriter<'a>;
    fn make_writer(&'a self) -> EventWriter<'a> {
        EventWriter(self)
    }
}

/// A writer for one event, whose bytes come in one piece.
pub(crate) struct EventWriter<'a>(&'a Log);

impl Write for EventWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.format {
            LogFormat::Text => self.0.queue.add(bytes),
            // JSON need not escape all that a terminal obeys or does not show.
            LogFormat::Json => self.0.queue.add(escape_json(&String::from_utf8_lossy(bytes)).as_bytes()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The standard error, shared by lines and a progress display on the same terminal.
struct StandardError {
    out: File,
    progress: Progress,
}

impl Sink for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.progress.suspend(|| self.out.write(bytes))
    }

    fn show_progress(&mut self, message: &str) {
        if message.is_empty() {
            self.progress.finish();
        } else {
            self.progress.set_message(message);
        }
    }

    fn dropped(&mut self, lines: u64) {
        warn!(lines, "lines of this log were dropped: its reader was too slow, or gone");
    }

    fn done(&mut self) {
        self.progress.finish();
    }
}
