//! Keeps the cache within its bound: what was not used for the longest time goes first, what a running host uses stays.
//!
//! A host holds a shared lock on the code that it has loaded, for as long as it is loaded; the kernel gives the lock up with
//! the process, however that ends. A file's time of modification is that of its last use: the files themselves never change.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::time::{Duration, SystemTime};

use crate::compile::cache_folder::CacheFolder;

/// Uses within this time of the last noted one are not noted.
const NOTED_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Length of a digest in hex, with which the names of an entry's files begin.
const DIGEST_CHARS: usize = 64;
const CODE_END: &str = ".cwasm";

/// Files made of the same component.
#[derive(Default)]
struct Entry {
    bytes: u64,
    used: Option<SystemTime>,
    names: Vec<String>,
}

/// Marks a file as used now. Where that cannot be written, it only counts as older than it is.
pub(crate) fn note_use(file: &File) {
    let age = file.metadata().and_then(|about| about.modified()).ok().and_then(|at| at.elapsed().ok());
    // A use that a clock noted ahead of its time is noted anew.
    if age.is_none_or(|age| age > NOTED_EVERY) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Marks code as used for as long as `file` is open. Where the file system has no locks, it may be deleted when it was not
/// used for long: who has loaded it keeps it, and the next start compiles it again.
pub(crate) fn hold(file: &File) {
    let _ = file.try_lock_shared();
}

/// Deletes files until the rest takes at most `bytes_max`, never those of the component `keep`. Returns the size of the rest
/// in bytes. Nothing depends on it, so errors are ignored: the next trim tries again.
pub(crate) fn trim(folder: &CacheFolder, bytes_max: u64, keep: &str) -> u64 {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for (name, about) in folder.files() {
        // Whatever else is in the folder is not the cache's.
        let Some(digest) = digest_in(&name) else { continue };
        let entry = entries.entry(digest.to_owned()).or_default();
        entry.bytes += about.len();
        entry.used = entry.used.max(about.modified().ok());
        entry.names.push(name);
    }
    let mut bytes = entries.values().map(|entry| entry.bytes).sum();
    let mut oldest: Vec<_> = entries.into_iter().filter(|(digest, _)| digest != keep).collect();
    oldest.sort_by_key(|(_, entry)| entry.used);
    for (_, entry) in oldest {
        if bytes <= bytes_max {
            break;
        }
        if entry.delete(folder) {
            bytes -= entry.bytes;
        }
    }
    bytes
}

impl Entry {
    /// Deletes the files unless a host uses them. Returns true if it does not.
    fn delete(&self, folder: &CacheFolder) -> bool {
        let mut locked = Vec::new();
        for name in self.names.iter().filter(|name| name.ends_with(CODE_END)) {
            let Ok(file) = folder.file(name) else { continue };
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                // Its next start comes soon after its end.
                note_use(&file);
                return false;
            }
            locked.push(file);
        }
        self.names.iter().for_each(|name| _ = fs::remove_file(folder.path(name)));
        true
    }
}

/// Returns the digest with which the name of a cached file begins.
fn digest_in(name: &str) -> Option<&str> {
    let (digest, rest) = name.split_at_checked(DIGEST_CHARS)?;
    let is_digest = digest.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    (is_digest && (rest.ends_with(CODE_END) || rest.ends_with(".description"))).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::cache_folder::CacheSettings;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    struct Ground {
        _outer: tempfile::TempDir,
        folder: CacheFolder,
    }

    impl Ground {
        fn new() -> Ground {
            let outer = tempfile::tempdir().unwrap();
            let folder = CacheFolder::open(&CacheSettings::in_folder(outer.path().join("cache"))).unwrap();
            Ground { _outer: outer, folder }
        }

        /// Writes code of 1000 bytes and a description of 10, last used so many days ago.
        fn entry(&self, digit: char, days: u32) -> String {
            let digest = digit.to_string().repeat(DIGEST_CHARS);
            for (name, bytes) in [(format!("{digest}-sync-1.cwasm"), 1000), (format!("{digest}-1.description"), 10)] {
                let path = self.folder.path(name);
                fs::write(&path, vec![0; bytes]).unwrap();
                File::open(&path).unwrap().set_modified(SystemTime::now() - days * DAY).unwrap();
            }
            digest
        }

        fn left(&self) -> Vec<char> {
            let mut left: Vec<char> = self.folder.files().filter_map(|(name, _)| name.chars().next()).collect();
            left.sort_unstable();
            left
        }
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let ground = Ground::new();
        for (digit, days) in [('a', 2), ('b', 9), ('c', 1), ('d', 5)] {
            ground.entry(digit, days);
        }
        fs::write(ground.folder.path("notes.txt"), vec![0; 5000]).unwrap();
        assert_eq!(trim(&ground.folder, 4040, ""), 4040, "it fits");
        assert_eq!(trim(&ground.folder, 2500, ""), 2020);
        assert_eq!(ground.left(), ['a', 'a', 'c', 'c', 'n'], "both files of each, and nothing of others");
        assert_eq!(trim(&ground.folder, 0, &"c".repeat(DIGEST_CHARS)), 1010);
        assert_eq!(ground.left(), ['c', 'c', 'n'], "what was made just now stays");
    }

    #[test]
    fn what_a_host_uses_stays_and_counts_as_used() {
        let ground = Ground::new();
        let digest = ground.entry('a', 30);
        ground.entry('b', 1);
        let used = ground.folder.file(&format!("{digest}-sync-1.cwasm")).unwrap();
        hold(&used);
        assert_eq!(trim(&ground.folder, 1500, ""), 1010);
        assert_eq!(ground.left(), ['a', 'a']);
        assert!(used.metadata().unwrap().modified().unwrap().elapsed().unwrap() < DAY);
        drop(used);
        assert_eq!(trim(&ground.folder, 0, ""), 0, "its host has ended");
    }
}
