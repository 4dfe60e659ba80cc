//! The files that settings are read from, and how a change of them is seen: a file that was edited in place, one that was
//! replaced by rename, and a link that leads elsewhere.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Environment, Flags, RawSettings};

/// The time for which files must stay as they are before they are read because somebody asked.
const SETTLED_FOR: Duration = Duration::from_millis(100);
/// The most times that files are looked at until they stay as they are.
const TRIES_MAX: u32 = 20;

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

/// The files that settings are read from, and their state at one moment: the settings file is the first, those of tokens
/// follow.
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

    /// Returns the settings file as it was, and the files of these tokens as they are now.
    pub(crate) fn with_tokens(mut self, raw: &RawSettings, environment: &Environment) -> Files {
        self.0.truncate(1);
        self.0.extend(Files::of(raw.tokens.iter().filter_map(|token| token.file(environment))).0);
        self
    }

    /// Returns these files as they are now.
    pub(super) fn now(&self) -> Files {
        Files::of(self.0.iter().map(|(path, _)| path.clone()))
    }

    /// Returns these files as they are once nobody has changed them for a moment, or after two seconds.
    pub(super) fn settled(&self) -> Files {
        let mut before = self.now();
        for _ in 0..TRIES_MAX {
            std::thread::sleep(SETTLED_FOR);
            let now = self.now();
            if now == before {
                break;
            }
            before = now;
        }
        before
    }

    /// Returns the first of them that is a pipe or a device: it cannot be read twice, and reading it may never end.
    pub(super) fn unreadable(&self) -> Option<&Path> {
        let is_other = |path: &Path| path.metadata().is_ok_and(|data| !data.is_file() && !data.is_dir());
        self.0.iter().map(|(path, _)| path.as_path()).find(|path| is_other(path))
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
