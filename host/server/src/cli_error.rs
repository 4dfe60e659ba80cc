//! How a command ends: an exit status for scripts, a text for users.

use std::fmt;

use crate::stderr::note;

/// The exit status of a command, by what a script would do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Done = 0,
    /// The requested result was not reached: the job failed, or the file did not pass its check.
    NotDone = 1,
    /// The command line, the settings or the input are wrong.
    Usage = 2,
    Unreachable = 3,
    Refused = 4,
    CannotStart = 5,
    /// Something on this machine failed, such as a full disk.
    Machine = 6,
}

/// The exit statuses, as `wharf --help` lists them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the job failed or was discarded, or the file did not pass its check
  2  invalid command line, settings or input
  3  the host could not be reached
  4  the host refused the request; the error ends with the problem code
  5  the host could not start
  6  another failure on this machine";

/// An error that determines the exit status. Any other error ends with [`ExitStatus::Machine`].
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: ExitStatus,
    /// The host reported that the same request may succeed soon.
    pub(crate) retryable: bool,
    /// The host reported that the plugin is still loading.
    pub(crate) plugin_loading: bool,
    text: String,
}

impl CliError {
    pub(crate) fn new(exit: ExitStatus, text: impl Into<String>) -> CliError {
        CliError { exit, retryable: false, plugin_loading: false, text: text.into() }
    }

    /// Returns true if the request failed only because a plugin is still loading.
    pub(crate) fn is_plugin_loading(error: &anyhow::Error) -> bool {
        error.downcast_ref::<CliError>().is_some_and(|error| error.plugin_loading)
    }

    /// Returns true if the host could not be reached, or was too busy to answer: it may be back soon.
    pub(crate) fn is_away(error: &anyhow::Error) -> bool {
        error.downcast_ref::<CliError>().is_some_and(|error| error.retryable || error.exit == ExitStatus::Unreachable)
    }

    /// An error in the command line, the settings or the input.
    pub(crate) fn usage(text: impl Into<String>) -> CliError {
        CliError::new(ExitStatus::Usage, text)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CliError {}

/// Prints the error of a command, if it ended with one, and returns the exit status.
pub(crate) fn report(result: anyhow::Result<ExitStatus>) -> ExitStatus {
    let (exit, text) = exit_and_text(result);
    if let Some(text) = text {
        note(text);
    }
    exit
}

/// Returns the exit status, and the text to show to the user if there is any.
pub(crate) fn exit_and_text(result: anyhow::Result<ExitStatus>) -> (ExitStatus, Option<String>) {
    let error = match result {
        Ok(exit) => return (exit, None),
        Err(error) => error,
    };
    // The program that reads the output has closed it because it has read enough: not an error.
    let is_closed = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(is_closed)) {
        return (ExitStatus::Done, None);
    }
    let exit = error.downcast_ref::<CliError>().map_or(ExitStatus::Machine, |error| error.exit);
    (exit, Some(format!("wharf: {error:#}")))
}
