//! The time for which a changed file must stay as it is before it counts as complete. A part of a settings file may be a
//! valid file that grants less, so a file is not taken while somebody writes it.

use std::time::Duration;

/// State of the last program that wrote in a file, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Nobody was heard to write. A writer on another machine never is.
    Unheard,
    /// A program wrote in the file and has not closed it.
    Open,
    /// The program that wrote last has closed the file.
    Closed,
}

/// Difference of a file from the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The path leads to another file, by a rename or a link.
    pub(super) is_replaced: bool,
    /// The file is empty, as it is between the two steps of a program that truncates and then writes.
    pub(super) is_empty: bool,
    pub(super) writer: Writer,
}

/// For a file whose writer is done, as far as can be known. Programs may open a file several times in a row.
pub(super) const AFTER_CLOSE: Duration = Duration::from_secs(1);
/// For a file that looks half done, or of which nobody tells whether its writer is done.
const IN_DOUBT: Duration = Duration::from_secs(5);
/// For a file that its writer has not closed. Some never do, and what they wrote must be read at last.
pub(super) const WHILE_OPEN: Duration = Duration::from_secs(60);

/// Returns the time for which a file must stay as it is.
pub(super) fn stillness(change: Change) -> Duration {
    match change.writer {
        Writer::Open => WHILE_OPEN,
        _ if change.is_empty => IN_DOUBT,
        Writer::Unheard if !change.is_replaced => IN_DOUBT,
        // Who replaces a file has written the new one before.
        Writer::Unheard | Writer::Closed => AFTER_CLOSE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_later_the_less_is_known_of_its_writer() {
        let of = |is_replaced, is_empty, writer| stillness(Change { is_replaced, is_empty, writer });
        for is_replaced in [false, true] {
            assert_eq!(of(is_replaced, false, Writer::Closed), AFTER_CLOSE, "an editor that saved");
            assert_eq!(of(is_replaced, true, Writer::Closed), IN_DOUBT, "`: > file`, and then `cat >> file`");
            for is_empty in [false, true] {
                assert_eq!(of(is_replaced, is_empty, Writer::Open), WHILE_OPEN, "half of the file may be missing");
            }
        }
        assert_eq!(of(true, false, Writer::Unheard), AFTER_CLOSE, "`mv`, or a link that leads elsewhere");
        assert_eq!(of(true, true, Writer::Unheard), IN_DOUBT, "removed, and created again under its name");
        assert_eq!(of(false, false, Writer::Unheard), IN_DOUBT, "written on another machine");
        assert!(AFTER_CLOSE < IN_DOUBT && IN_DOUBT < WHILE_OPEN);
    }
}
