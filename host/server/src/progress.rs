//! Progress of something that takes a while, always on the standard error, so that it never mixes with the output.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use wharf_engine::Progress as LoadingStep;

use crate::output::escape_line;
use crate::stderr::note;

const REDRAW: Duration = Duration::from_millis(100);

/// A progress display: a spinner on a terminal, plain lines elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    /// `None` if the standard error is not a terminal; then only `line` prints anything.
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(message: &str) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(escape_line(message).into_owned());
            let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            bar.set_style(style);
            bar.enable_steady_tick(REDRAW);
            bar
        });
        Progress { bar }
    }

    /// Shows what is happening now. It is visible on a terminal only.
    pub(crate) fn set_message(&self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(escape_line(message).into_owned());
        }
    }

    /// Prints a line that stays.
    pub(crate) fn line(&self, line: &str) {
        self.suspend(|| note(line));
    }

    /// Runs something that writes, with the spinner out of the way.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Removes the spinner for good.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Describes how far the loading of a plugin is.
pub(crate) fn loading_step_text(step: LoadingStep) -> &'static str {
    match step {
        LoadingStep::Checking => "checking",
        LoadingStep::WaitingToCompile => "waiting to be compiled",
        LoadingStep::Compiling => "compiling; this happens once for each version",
        LoadingStep::Cached => "compiled before",
        LoadingStep::Describing => "reading its manifest",
    }
}
