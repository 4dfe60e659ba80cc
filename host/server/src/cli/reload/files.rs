//! The files that settings are read from, and how a change of them is seen: a file that was edited in place, one that was
//! replaced by rename, and a link that leads elsewhere.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::stillness::{AFTER_CLOSE, Change, stillness};
use super::writers::Writers;
use crate::config::{Environment, Flags, RawSettings};

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Returns the stamp of the file that a path leads to; `None` if there is no file. Links are followed, so that a link
    /// which leads elsewhere counts as a change.
    fn of(path: &Path) -> Option<Stamp> {
        let data = path.metadata().ok().filter(Metadata::is_file)?;
        Some(Stamp {
            file: (data.dev(), data.ino()),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// The files that settings are read from, and their state at one moment: the settings file is the first, those of tokens,
/// of secrets and of values of plugins follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files(Vec<(PathBuf, Option<Stamp>)>);

impl Files {
    fn of(paths: impl IntoIterator<Item = PathBuf>) -> Files {
        let stamped = paths.into_iter().map(|path| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        });
        Files(stamped.collect())
    }

    /// Returns the settings file as it is now.
    pub(crate) fn of_settings(flags: &Flags, environment: &Environment) -> Files {
        Files::of([RawSettings::path(flags, environment)])
    }

    /// Returns the settings file as it was, and the files of tokens and of values of plugins as they are now.
    pub(crate) fn with_outside(mut self, raw: &RawSettings, environment: &Environment) -> Files {
        self.0.truncate(1);
        self.0.extend(Files::of(raw.outside_files(environment)).0);
        self
    }

    /// Returns these files as they are now.
    pub(super) fn now(&self) -> Files {
        Files::of(self.0.iter().map(|(path, _)| path.clone()))
    }

    /// Returns the paths, some of which may lead nowhere.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// Returns the time for which these files must stay as they are, if `read` are the same ones as they were read, and the file
    /// for which they must.
    pub(super) fn stillness(&self, read: &Files, writers: &Writers) -> (Duration, &Path) {
        let changed = self.0.iter().zip(&read.0).filter(|(now, before)| now != before);
        let times = changed.map(|((path, now), (_, before))| {
            let Some(now) = now else { return (AFTER_CLOSE, path.as_path()) };
            let is_replaced = before.is_none_or(|before| before.file != now.file);
            let change = Change { is_replaced, is_empty: now.size == 0, writer: writers.of(path) };
            (stillness(change), path.as_path())
        });
        times.max_by_key(|(time, _)| *time).unwrap_or((AFTER_CLOSE, Path::new("")))
    }

    /// Returns the first of them that is a pipe or a device: it cannot be read twice, and reading it may never end.
    pub(super) fn unreadable(&self) -> Option<&Path> {
        let is_other = |path: &Path| path.metadata().is_ok_and(|data| !data.is_file() && !data.is_dir());
        self.0.iter().map(|(path, _)| path.as_path()).find(|path| is_other(path))
    }

    /// Returns true if they are more files than these.
    pub(super) fn has_more_than(&self, other: &Files) -> bool {
        self.paths().any(|path| !other.paths().any(|other| other == path))
    }

    /// Returns true if there is a settings file.
    pub(super) fn has_settings(&self) -> bool {
        self.0.first().is_some_and(|(_, stamp)| stamp.is_some())
    }

    /// Returns the path of the settings file.
    pub(super) fn settings(&self) -> String {
        self.0.first().map(|(path, _)| path.display().to_string()).unwrap_or_default()
    }
}
