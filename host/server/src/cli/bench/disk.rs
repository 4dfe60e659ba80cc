//! The disk beneath a store: what it is, and what it takes to have something on it for certain.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// As large as a page of SQLite's.
const PAGE_BYTES: usize = 4096;

/// What the folder's file system is called.
pub(super) fn file_system(folder: &Path) -> String {
    let Ok(about) = rustix::fs::statfs(folder) else { return "unknown".to_owned() };
    // Not all of these constants are known to every libc: linux/magic.h has them.
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

/// A file that grows by a page and waits for the disk each time, as the log of a store does.
#[derive(Debug)]
pub(super) struct Synced(File);

impl Synced {
    pub(super) fn new(folder: &Path) -> anyhow::Result<Synced> {
        let path = folder.join("fsync");
        Ok(Synced(File::create(&path).with_context(|| format!("could not make {}", path.display()))?))
    }

    pub(super) fn page(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.0.write_all(&[7; PAGE_BYTES]).and_then(|()| self.0.sync_data()).context("could not write to the disk")?;
        Ok(began.elapsed())
    }
}
