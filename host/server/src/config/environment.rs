//! Where settings are read from besides the command line.

use std::ffi::OsString;
use std::path::PathBuf;

/// The folder and the environment variables that settings are read from. Tests create their own.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) folder: PathBuf,
    pub(crate) variables: Vec<(OsString, OsString)>,
}

impl Environment {
    pub(crate) fn of_this_process() -> Environment {
        Environment { folder: PathBuf::new(), variables: std::env::vars_os().collect() }
    }

    /// Returns a variable that is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    }
}
