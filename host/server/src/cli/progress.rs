//! Progress on a terminal, plain lines elsewhere; always on the standard error, so that the output stays what it is.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::harmless;
use crate::stderr::note;

const REDRAW: Duration = Duration::from_millis(100);

/// One thing that takes a while.
#[derive(Debug)]
pub(crate) struct Progress {
    /// None where nobody looks: then only `line` says something.
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(what: &str) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(what.to_owned());
            let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            bar.set_style(style);
            bar.enable_steady_tick(REDRAW);
            bar
        });
        Progress { bar }
    }

    /// What it does now. Seen on a terminal only.
    pub(crate) fn say(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(harmless(what).replace('\n', " "));
        }
    }

    /// A line that stays.
    pub(crate) fn line(&self, line: &str) {
        self.aside(|| note(harmless(line)));
    }

    /// Does something that writes, with the progress out of the way.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Nothing takes long any more.
    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}
