//! The mark of a database file: whose it is and of which version, as its first bytes say. It is read before SQLite opens the
//! file, so that a file of somebody else is left as it was.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::Connection;

use crate::store::OpenError;

/// Marks the file as a store of Wharf: "Whrf".
pub(super) const APPLICATION_ID: i64 = 0x5768_7266;

/// How every SQLite database begins.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The header of the database, and that of its first page, which is where its tables are listed.
const HEAD_BYTES: usize = 100 + 8;
const VERSION_AT: usize = 60;
const APPLICATION_AT: usize = 68;
const PAGE_KIND_AT: usize = 100;
const ENTRIES_AT: usize = 103;
/// A page with entries and nothing below it.
const LEAF: u8 = 0x0d;

/// What a database says that it is. One without a byte says nothing, as one without a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    application: i64,
    /// How many migrations it has seen.
    pub(super) version: i64,
    has_tables: bool,
}

impl Mark {
    /// As the file itself says, without its log. `None` where it is not SQLite's.
    pub(super) fn of_file(file: &File) -> io::Result<Option<Mark>> {
        let mut head = [0; HEAD_BYTES];
        let mut read = 0;
        while read < HEAD_BYTES {
            match file.read_at(&mut head[read..], read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match read {
            0 => Ok(Some(Mark::default())),
            HEAD_BYTES if head.starts_with(MAGIC) => {
                let is_empty = head[PAGE_KIND_AT] == LEAF && head[ENTRIES_AT..ENTRIES_AT + 2] == [0, 0];
                let (application, version) = (number(&head, APPLICATION_AT), number(&head, VERSION_AT));
                Ok(Some(Mark { application, version, has_tables: !is_empty }))
            }
            _ => Ok(None),
        }
    }

    /// As the file and its log say together.
    pub(super) fn of_database(conn: &Connection) -> rusqlite::Result<Mark> {
        let number = |question: &str| conn.query_row(question, [], |row| row.get::<_, i64>(0));
        Ok(Mark {
            application: number("PRAGMA application_id")?,
            version: number("PRAGMA user_version")?,
            has_tables: number("SELECT count(*) FROM sqlite_schema")? > 0,
        })
    }

    pub(super) fn is_wharfs(&self) -> bool {
        self.application == APPLICATION_ID
    }

    /// Whether this version may have the file, which it may if there is nothing in it.
    ///
    /// # Errors
    /// When it is somebody else's, or of a version above `known`.
    pub(super) fn judge(&self, path: &Path, known: i64) -> Result<(), OpenError> {
        match *self {
            Mark { application: APPLICATION_ID, version, .. } if version > known => {
                Err(OpenError::TakeNewerHost { file: path.display().to_string(), found: version, known })
            }
            Mark { application: APPLICATION_ID, version, .. } if version < 1 => Err(mend(
                path,
                format!(
                    "it bears the mark of Wharf with version {version}, which none has written (1 to {known} are expected): it is \
                     damaged; restore it from a backup or move it away"
                ),
            )),
            Mark { application: APPLICATION_ID, .. } | Mark { application: 0, version: 0, has_tables: false } => Ok(()),
            Mark { application, version, .. } => Err(mend(
                path,
                format!(
                    "it is a database of another program (its application_id is {application:#010x} where Wharf's is \
                     {APPLICATION_ID:#010x}, its user_version {version}); give the host a file of its own"
                ),
            )),
        }
    }
}

fn number(head: &[u8; HEAD_BYTES], at: usize) -> i64 {
    i64::from(i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]))
}

pub(super) fn mend(path: &Path, reason: impl Into<String>) -> OpenError {
    OpenError::MendFile { file: path.display().to_string(), reason: reason.into() }
}
