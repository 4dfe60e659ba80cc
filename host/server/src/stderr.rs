//! Messages of commands to their users, on the standard error.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line to the standard error. If its reader is gone, the command goes on all the same and ends with the exit code of
/// its own result.
pub(crate) fn note(line: impl Display) {
    // In one piece, so that lines of several processes on one terminal stay whole.
    let _unwritten = io::stderr().write_all(format!("{line}\n").as_bytes());
}
