//! How a command ends: the exit code for scripts, the text for people.

use std::fmt;

use crate::stderr::note;

/// What went wrong, by what a script would do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// What was asked for did not come about: the job failed, the file did not pass.
    NotDone = 1,
    /// The command line, the settings or the input are wrong.
    KvUsage = 2,
    Unreachable = 3,
    Refused = 4,
    CannotStart = 5,
    /// Something of this machine failed: a full disk, a closed pipe.
    Machine = 6,
}

/// Shown by `wharf --help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the job failed or was not taken; the file did not pass its check
  2  the command line, the settings or the input are wrong
  3  the host could not be reached
  4  the host refused the request; its text ends with the code of the problem
  5  the host could not start
  6  something else of this machine failed";

/// An error that says how the command ends. Any other error ends as `Exit::Machine`.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) exit: Exit,
    /// The host said that the same may succeed soon.
    pub(crate) passing: bool,
    /// It said that a plugin is still being made ready.
    pub(crate) loading: bool,
    text: String,
}

impl Ending {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Ending {
        Ending { exit, passing: false, loading: false, text: text.into() }
    }

    pub(crate) fn is_loading(error: &anyhow::Error) -> bool {
        error.downcast_ref::<Ending>().is_some_and(|ending| ending.loading)
    }

    pub(crate) fn usage(text: impl Into<String>) -> Ending {
        Ending::new(Exit::KvUsage, text)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Ending {}

/// Tells a person how the command ended, and answers with the exit code.
pub(crate) fn tell(result: anyhow::Result<Exit>) -> Exit {
    let (exit, text) = explained(result);
    if let Some(text) = text {
        note(text);
    }
    exit
}

/// The exit code, and what a person is to be told.
pub(crate) fn explained(result: anyhow::Result<Exit>) -> (Exit, Option<String>) {
    let error = match result {
        Ok(exit) => return (exit, None),
        Err(error) => error,
    };
    // Whoever reads our output has seen enough: that is no error.
    let closed = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(closed)) {
        return (Exit::Done, None);
    }
    let exit = error.downcast_ref::<Ending>().map_or(Exit::Machine, |ending| ending.exit);
    (exit, Some(format!("wharf: {error:#}")))
}
