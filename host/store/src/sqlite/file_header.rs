//! The header of a database file: which program it belongs to, and the version of its schema.
//!
//! It is read before SQLite opens the file, so that a file of another program is left unchanged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::Connection;

use crate::store::OpenError;

/// The `application_id` of a store: "Whf2".
pub(super) const APPLICATION_ID: i64 = 0x5768_6632;
/// The `application_id` of a store that Wharf 0.1 wrote: "Whrf". Its tables differ, and this version can't read them.
const APPLICATION_ID_0_1: i64 = 0x5768_7266;

/// The first bytes of every SQLite database.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The database's header and that of its first page, which lists its tables, in bytes.
const HEADERS_BYTES: usize = 100 + 8;
const USER_VERSION_AT: usize = 60;
const APPLICATION_ID_AT: usize = 68;
const PAGE_KIND_AT: usize = 100;
const CELL_COUNT_AT: usize = 103;
/// The kind of a page that has cells and no pages below it.
const LEAF: u8 = 0x0d;

/// Application ID and versions in a database's header. The default is the header of a file without a byte, and of a database without a
/// table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FileHeader {
    application_id: i64,
    /// SQLite's `user_version`: the number of migrations that were applied to the file.
    pub(super) schema_version: i64,
    has_tables: bool,
}

impl FileHeader {
    /// Reads the header from the file alone, without its log. Returns `None` if the file is not a SQLite database.
    pub(super) fn read(file: &File) -> io::Result<Option<FileHeader>> {
        let mut bytes = [0; HEADERS_BYTES];
        let mut read = 0;
        while read < HEADERS_BYTES {
            match file.read_at(&mut bytes[read..], read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match read {
            0 => Ok(Some(FileHeader::default())),
            HEADERS_BYTES if bytes.starts_with(MAGIC) => Ok(Some(FileHeader {
                application_id: number_at(&bytes, APPLICATION_ID_AT),
                schema_version: number_at(&bytes, USER_VERSION_AT),
                has_tables: bytes[PAGE_KIND_AT] != LEAF || bytes[CELL_COUNT_AT..CELL_COUNT_AT + 2] != [0, 0],
            })),
            _ => Ok(None),
        }
    }

    /// Reads the header through SQLite, from the file and its log together.
    pub(super) fn query(conn: &Connection) -> rusqlite::Result<FileHeader> {
        let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
        Ok(FileHeader {
            application_id: number("PRAGMA application_id")?,
            schema_version: number("PRAGMA user_version")?,
            has_tables: number("SELECT count(*) FROM sqlite_schema")? > 0,
        })
    }

    /// Returns true if Wharf wrote the file, in this version or another one.
    pub(super) fn is_of_wharf(&self) -> bool {
        [APPLICATION_ID, APPLICATION_ID_0_1].contains(&self.application_id)
    }

    /// Checks that this version may use the file: it is a store of a known schema version, or there is nothing in it.
    /// `known` is the highest schema version that this version knows.
    ///
    /// # Errors
    /// If Wharf 0.1, a newer Wharf or another program wrote the file, or its schema version is impossible. A store of Wharf 0.1
    /// has an `application_id` of its own, and is refused by that alone: the numbers of its migrations mean nothing here.
    pub(super) fn check(&self, path: &Path, known: i64) -> Result<(), OpenError> {
        match *self {
            FileHeader { application_id: APPLICATION_ID_0_1, .. } => Err(unusable(
                path,
                "it was written by Wharf 0.1, whose stores this version can't read; finish its jobs with Wharf 0.1, or set \
                 `store` to a new file",
            )),
            FileHeader { application_id: APPLICATION_ID, schema_version, .. } if schema_version > known => {
                Err(OpenError::TakeNewerHost { file: path.display().to_string(), found: schema_version, known })
            }
            FileHeader { application_id: APPLICATION_ID, schema_version, .. } if schema_version < 1 => Err(unusable(
                path,
                format!(
                    "its schema version is {schema_version}, expected 1 to {known}: the file is damaged; restore it from a \
                     backup or move it away"
                ),
            )),
            FileHeader { application_id: APPLICATION_ID, .. }
            | FileHeader { application_id: 0, schema_version: 0, has_tables: false } => Ok(()),
            FileHeader { application_id, schema_version, .. } => Err(unusable(
                path,
                format!(
                    "it is the database of another program: its application_id is {application_id:#010x}, expected \
                     {APPLICATION_ID:#010x}, and its user_version is {schema_version}; set `store` to a file that no other \
                     program uses"
                ),
            )),
        }
    }
}

fn number_at(bytes: &[u8; HEADERS_BYTES], at: usize) -> i64 {
    i64::from(i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
}

/// Returns the error for a file that can't be used; `reason` says why, and what to do.
pub(super) fn unusable(path: &Path, reason: impl Into<String>) -> OpenError {
    OpenError::MendFile { file: path.display().to_string(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wharf 0.1 had four migrations. Their count must not matter: one day this version's own count passes it.
    #[test]
    fn a_store_of_wharf_0_1_is_refused_whatever_the_versions_are() {
        let path = Path::new("wharf.db");
        for schema_version in [-1, 0, 1, 3, 4, 5, 1000] {
            for known in [1, 3, 4, 5, 1000] {
                let header = FileHeader { application_id: APPLICATION_ID_0_1, schema_version, has_tables: true };
                let error = header.check(path, known).unwrap_err().to_string();
                assert!(error.contains("written by Wharf 0.1"), "{schema_version} of {known}: {error}");
                let header = FileHeader { application_id: APPLICATION_ID, ..header };
                assert_eq!(header.check(path, known).is_ok(), (1..=known).contains(&schema_version));
            }
        }
    }
}
