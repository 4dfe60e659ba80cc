//! The disk of a store: its file system, and the latency of a durable write.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// The size of a SQLite page, in bytes.
const PAGE_BYTES: usize = 4096;

/// Returns the name of the file system of a folder.
pub(super) fn file_system(folder: &Path) -> String {
    let Ok(about) = rustix::fs::statfs(folder) else { return "unknown".to_owned() };
    // From linux/magic.h: not every libc has all of these constants.
    match about.f_type as u32 {
        0x0000_ef53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x0102_1994 => "tmpfs: nothing is durable here".to_owned(),
        0x794c_7630 => "overlayfs".to_owned(),
        0x2fc1_2fc1 => "zfs".to_owned(),
        0x6969 => "nfs".to_owned(),
        other => format!("{other:#x}"),
    }
}

/// A file that grows by a page at a time and waits for the disk each time, as the log of a store does.
#[derive(Debug)]
pub(super) struct SyncedFile(File);

impl SyncedFile {
    pub(super) fn new(folder: &Path) -> anyhow::Result<SyncedFile> {
        let path = folder.join("fsync");
        Ok(SyncedFile(File::create(&path).with_context(|| format!("could not create {}", path.display()))?))
    }

    /// Appends a page, waits until it is on the disk, and returns how long that took.
    pub(super) fn append_page(&mut self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.0.write_all(&[7; PAGE_BYTES]).and_then(|()| self.0.sync_data()).context("could not write to the disk")?;
        Ok(started.elapsed())
    }
}
