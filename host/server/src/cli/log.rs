//! The host's own log, on the standard error: as text for people, or one JSON document a line.
//!
//! No thread of the host writes there itself: a reader that is slow, gone or stopped (Ctrl-S in a terminal) holds up nothing. What
//! it does not take is dropped, counted, and told once it hears again.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::metrics::counter::Counter;
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::log_thread::{Lines, Sink};
use super::progress::Progress;
use crate::config::{LogFormat, Settings, backtrace_of_panic};

/// At the end, a reader that has stopped is waited for no longer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The log of a host.
#[derive(Clone, Debug)]
pub(crate) struct Log(Lines);

impl Log {
    /// Starts it, with a progress that is on its way to `beginning`. Lines that nobody took are added to `dropped`.
    pub(crate) fn start(settings: &Settings, beginning: &str, dropped: Counter) -> anyhow::Result<Log> {
        let stderr = io::stderr();
        // A file or a pipe gets plain text, also where the environment asks for colours everywhere.
        let colours = stderr.is_terminal() && console::colors_enabled_stderr();
        // Past Rust's own lock of the standard error: a write that hangs holds it, and whoever panics would wait for it.
        let out = stderr.as_fd().try_clone_to_owned().context("the standard error cannot be written")?;
        let standard_error = StandardError { out: out.into(), progress: Progress::new(beginning) };
        let log = Log(Lines::to(standard_error, dropped).context("the thread of the log could not be started")?);
        // The settings were checked: this filter was read once before.
        let filter = EnvFilter::new(&settings.log_level);
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(log.clone())
            // A filter by part names targets, so lines show theirs.
            .with_target(settings.log_level.contains('='))
            .with_ansi(colours);
        match settings.log_format {
            LogFormat::Text => subscriber.init(),
            LogFormat::Json => subscriber.json().flatten_event(true).init(),
        }
        panic::set_hook(Box::new(|panic| match backtrace_of_panic() {
            Some(trace) => error!("a bug of the host: {panic}\n{trace}"),
            None => error!("a bug of the host: {panic}"),
        }));
        Ok(log)
    }

    /// What the host does now, for people who look on.
    pub(crate) fn under_way(&self, what: String) {
        self.0.under_way(what);
    }

    /// Nothing takes long any more: from here on there are lines alone.
    pub(crate) fn complete(&self) {
        self.0.complete();
    }

    /// A line as it is.
    pub(crate) fn say(&self, line: &str) {
        self.0.add(format!("{line}\n").as_bytes());
    }

    /// Waits for a moment until all is written.
    pub(crate) fn close(&self) {
        self.0.close(LAST_WORDS);
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// Of one event, which is written in one piece.
pub(crate) struct Line<'a>(&'a Lines);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines go around the progress, which may be on the same terminal.
struct StandardError {
    out: File,
    progress: Progress,
}

impl Sink for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.progress.aside(|| self.out.write(bytes))
    }

    fn under_way(&mut self, what: &str) {
        if what.is_empty() {
            self.progress.done();
        } else {
            self.progress.say(what);
        }
    }

    fn dropped(&mut self, lines: u64) {
        warn!(lines, "lines of this log were dropped: whoever reads it was slower than they came, or was gone");
    }

    fn done(&mut self) {
        self.progress.done();
    }
}
