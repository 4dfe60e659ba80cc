//! The host's own log, on the standard error: as text for people, or one JSON document a line.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::progress::Progress;
use crate::config::{LogFormat, Settings};

/// Starts the log. Lines go around `progress`, which may be on the same terminal.
pub(crate) fn start(settings: &Settings, progress: Arc<Progress>) {
    // The settings were checked: this filter was read once before.
    let filter = EnvFilter::new(&settings.log_level);
    // A file or a pipe gets plain text, also where the environment asks for colours everywhere.
    let colours = io::stderr().is_terminal() && console::colors_enabled_stderr();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Aside(progress))
        .with_target(false)
        .with_ansi(colours);
    match settings.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Writes with the progress out of the way.
struct Aside(Arc<Progress>);

impl<'a> MakeWriter<'a> for Aside {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a Progress);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.aside(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
