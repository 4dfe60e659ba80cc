//! Watch: whether the files that SQLite has open are still those that a restart would find.
//!
//! What is written to a file that was removed, replaced or moved away is gone with this process, and nothing fails until then.
//! So the writer looks at the log before each group, and at the file after each commit that is to last and before it answers:
//! what is acknowledged was in the file that has the name. All of them are looked at once a second as well.
//! Once one is lost nothing is read or written any more, also if it comes back: nobody knows what became of it meanwhile.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};
use tracing::warn;

use super::file::{self, DatabaseFile};
use super::file_header::mend;
use super::lock::beside;
use crate::store::{OpenError, StoreError};

/// Before the first page of the log, and before each of them.
const LOG_HEAD_BYTES: u64 = 32;
const PAGE_HEAD_BYTES: u64 = 24;

/// The files of one store, as its threads know them.
#[derive(Debug)]
pub(super) struct Watch {
    /// How the store is called in errors.
    name: String,
    /// The file, by the name that it was opened by and, where that leads over a link, by its own.
    database: Vec<Place>,
    log: Place,
    /// SQLite's index of the log, which other programs share with this one. Where they do not, each thinks itself alone.
    index: Place,
    /// How large the file was at most.
    size: AtomicU64,
    /// Changes for the writer's connection with what others commit.
    others: i64,
    page_bytes: u64,
    /// How long the last commit has left the log, in pages.
    pub(super) pages: AtomicU32,
    /// Somebody reads the file as it was, so that the log cannot be carried into it whole.
    pub(super) held: AtomicBool,
    lost: OnceLock<Lost>,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

#[derive(Debug)]
struct Lost {
    how: Loss,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// The file has not its name any more.
    File,
    /// The log or its index: what they hold can still be carried into the file.
    Log,
    /// The file or its log is shorter than what was written to it.
    Cut,
}

impl Place {
    fn of(path: PathBuf) -> std::io::Result<Place> {
        let found = std::fs::metadata(&path)?;
        Ok(Place { path, device: found.dev(), inode: found.ino() })
    }

    /// What has the name now. One that cannot be looked at says nothing.
    fn look(&self) -> Result<Option<Metadata>, &'static str> {
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => Ok(Some(found)),
            Ok(_) => Err("is another file now"),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err("is gone"),
            Err(_) => Ok(None),
        }
    }
}

impl Watch {
    /// Of a file that `writer` has open, with its log.
    pub(super) fn over(file: &DatabaseFile, writer: &Connection) -> Result<Watch, OpenError> {
        let cannot = |error: &dyn std::fmt::Display| mend(file.path(), format!("it cannot be watched: {error}"));
        let ask = |question: &str| writer.query_row(question, [], |row| row.get(0)).map_err(|error| cannot(&error));
        let place = |path: PathBuf| Place::of(path).map_err(|error| cannot(&error));
        let real = file.real();
        let (page_bytes, others): (i64, i64) = (ask("PRAGMA page_size")?, ask("PRAGMA data_version")?);
        let pages = log_pages(writer).map_err(|error| cannot(&error))?;
        let given = std::path::absolute(file.path()).map_err(|error| cannot(&error))?;
        let mut names = vec![real.to_owned()];
        names.extend((given != real).then_some(given));
        let watch = Watch {
            name: file.path().display().to_string(),
            database: names.into_iter().map(place).collect::<Result<_, _>>()?,
            log: place(beside(real, "-wal"))?,
            index: place(beside(real, "-shm"))?,
            size: AtomicU64::new(0),
            others,
            page_bytes: page_bytes.unsigned_abs(),
            pages: AtomicU32::new(pages),
            held: AtomicBool::new(false),
            lost: OnceLock::new(),
        };
        let opened = file.locked().map_err(|error| cannot(&error))?;
        if watch.database.iter().any(|place| (place.device, place.inode) != (opened.dev(), opened.ino())) {
            return Err(mend(file.path(), "it was replaced while it was being opened; try again"));
        }
        Ok(watch)
    }

    /// # Errors
    /// When a file of the store is lost, always the same.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.lost.get().map_or(Ok(()), |lost| Err(StoreError::Broken(lost.why.clone())))
    }

    /// Before anything is written: whether the log holds what was written to it, or writing would hide that it does not.
    pub(super) fn before(&self, conn: &Connection) -> Result<(), StoreError> {
        if self.lost.get().is_none() {
            self.look_at_log(conn);
        }
        self.check()
    }

    /// After a commit that is to last: whether a restart finds it.
    pub(super) fn after(&self, writer: &Connection) -> Result<(), StoreError> {
        self.look_at_file(Some(writer));
        self.check()
    }

    /// Whether the name of the file still leads to it.
    pub(super) fn names(&self) -> Result<(), StoreError> {
        self.look_at_file(None);
        self.check()
    }

    /// All of it, from beside the writer.
    pub(super) fn look(&self, copier: &Connection) -> Result<(), StoreError> {
        if self.lost.get().is_none() {
            self.look_at_file(None);
            self.look_at_log(copier);
            if let Err(what) = self.index.look() {
                self.lose_log(copier, &self.index, what);
            }
        }
        self.check()
    }

    /// What SQLite does by itself when the last connection is closed, to carry the log in and delete it, is not done to files
    /// that are not whole or not where they were: whoever mends them needs them as they are.
    pub(super) fn closing(&self, conn: &Connection) {
        if self.lost.get().is_some_and(|lost| lost.how != Loss::Log) {
            _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }

    pub(super) fn log_name(&self) -> String {
        self.log.path.display().to_string()
    }

    /// What a failed statement means to whoever asked for it.
    pub(super) fn failure(&self, error: &rusqlite::Error) -> StoreError {
        file::failure(Path::new(&self.name), error)
    }

    /// How many bytes the log has with so many pages.
    pub(super) fn log_bytes(&self, pages: u32) -> u64 {
        let head = if pages > 0 { LOG_HEAD_BYTES } else { 0 };
        head + u64::from(pages) * (PAGE_HEAD_BYTES + self.page_bytes)
    }

    fn look_at_file(&self, writer: Option<&Connection>) {
        for place in &self.database {
            match place.look() {
                Ok(Some(found)) => self.look_at_size(place, found.len(), writer),
                Ok(None) => {}
                Err(what) => _ = self.lose(Loss::File, place, what, &rescue()),
            }
        }
    }

    /// Only another program makes the file smaller: by VACUUM, of which SQLite knows, or by cutting it off.
    fn look_at_size(&self, place: &Place, size: u64, writer: Option<&Connection>) {
        let max = self.size.fetch_max(size, Ordering::Relaxed);
        if size >= max {
            return;
        }
        let is_cut = size == 0
            || writer.is_some_and(|writer| {
                let others = writer.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
                !others.is_ok_and(|others| others != self.others)
            });
        if is_cut {
            let what = format!("was cut from {max} to {size} bytes");
            self.lose(Loss::Cut, place, &what, "Restore it from a backup, then start the host again");
        } else if writer.is_some() {
            self.size.store(size, Ordering::Relaxed);
        }
    }

    fn look_at_log(&self, conn: &Connection) {
        match self.log.look() {
            Ok(Some(found)) if found.len() < self.log_bytes(self.pages.load(Ordering::Relaxed)) => {
                self.look_at_length(conn)
            }
            Ok(_) => {}
            Err(what) => self.lose_log(conn, &self.log, what),
        }
    }

    /// It is shorter than the writer left it: another program has carried it in, of which SQLite knows, or has cut it off.
    fn look_at_length(&self, conn: &Connection) {
        let Ok(pages) = log_pages(conn) else { return };
        let Ok(Some(found)) = self.log.look() else { return };
        // The writer may go on meanwhile, and begin it anew.
        let is_the_same = log_pages(conn).is_ok_and(|now| now == pages);
        if is_the_same && found.len() < self.log_bytes(pages) {
            let what = format!("was cut from {} to {} bytes", self.log_bytes(pages), found.len());
            let mend = "What was acknowledged last may be missing: restore the file and its log from a backup, or go on with what \
                        the file has, and start the host again";
            self.lose(Loss::Cut, &self.log, &what, mend);
        }
    }

    /// What is in a log without a name can still be carried into the file: then a restart finds it there.
    fn lose_log(&self, conn: &Connection, place: &Place, what: &str) {
        // Where all of it is gone there is nothing to carry into.
        if self.names().is_err() {
            return;
        }
        let mend = format!(
            "What it held is carried into the file: move away what may be at {} by now, and start the host again",
            place.path.display()
        );
        if self.lose(Loss::Log, place, what, &mend) {
            let carried = conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE);
            if !carried.is_ok_and(|(pages, carried_in)| pages == carried_in) {
                warn!(
                    "{}: not all of the lost log is in the file yet; stop the host with SIGTERM to try again",
                    self.name
                );
            }
        }
    }

    /// True if it is the first that is lost.
    fn lose(&self, how: Loss, place: &Place, what: &str, mend: &str) -> bool {
        let Watch { name, .. } = self;
        let path = place.path.display();
        let why = format!(
            "{name}: {path} {what} while this host has it open, and a restart would not find what is written from here on, so that \
             nothing is. {mend}"
        );
        self.lost.set(Lost { how, why }).is_ok()
    }
}

fn rescue() -> String {
    format!(
        "What was acknowledged is still in the files that this process has open: put the file and its log (-wal) back in their \
         place, or copy both from /proc/{}/fd before you stop the host; then start it again",
        std::process::id()
    )
}

/// How many pages the log has by what SQLite knows.
fn log_pages(conn: &Connection) -> rusqlite::Result<u32> {
    // It checkpoints nothing, and answers all the same.
    conn.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok(u32::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
}
