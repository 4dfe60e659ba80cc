//! What a command tells people, on the standard error.

use std::fmt::Display;
use std::io::{self, Write};

/// Says a line to whoever hears it. Where nobody does, since the other end is closed, the command goes on all the same and ends
/// with an exit code of its own.
pub(crate) fn note(line: impl Display) {
    // In one piece, so that lines of several processes on one terminal stay whole.
    let _unheard = io::stderr().write_all(format!("{line}\n").as_bytes());
}
