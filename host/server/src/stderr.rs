//! Messages of commands to their users, on the standard error. They may quote anybody, so they are escaped.

use std::fmt::Display;
use std::io::{self, Write};

use crate::output::escape_text;

/// Writes a line to the standard error. If its reader is gone, the command goes on all the same and ends with the exit code of
/// its own result.
pub(crate) fn note(line: impl Display) {
    // In one piece, so that lines of several processes on one terminal stay whole.
    let _unwritten = io::stderr().write_all(format!("{}\n", escape_text(&line.to_string())).as_bytes());
}
