//! Hints that the plugin folder may have changed, from the kernel's watches.
//!
//! A watch is on a folder itself, not on its path. So the links on the way to the folder are watched, too, and the watches
//! are set anew when the path leads elsewhere, as after a release whose link was moved on.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::notice::{Listener, Notice};

/// As many links as the kernel follows on one path.
const LINKS_MAX: usize = 40;

/// The watches of the plugin folder.
pub(super) struct FolderWatch {
    hint: Arc<Notify>,
    listener: Listener,
    set: Option<WatchSet>,
    /// The failure of the last time.
    failed: Option<String>,
}

/// Watches that are set.
struct WatchSet {
    on: Targets,
    /// The folder was removed or renamed.
    stale: Arc<AtomicBool>,
    _watcher: RecommendedWatcher,
}

/// The places that are watched.
#[derive(Clone, PartialEq, Eq)]
struct Targets {
    folder: PathBuf,
    device_and_inode: (u64, u64),
    /// The links on the way to it.
    links: BTreeSet<PathBuf>,
}

impl FolderWatch {
    /// Makes watches that notify `hint`; none is set yet.
    pub(super) fn new(hint: Arc<Notify>, listener: Listener) -> FolderWatch {
        FolderWatch { hint, listener, set: None, failed: None }
    }

    /// Sets the watches unless they are where they should be. A failure is reported once, and tried again the next time: without
    /// them the rescan finds the changes. To be called before the folder is listed, so that no change is lost in between.
    pub(super) fn renew(&mut self, dir: &Path) {
        // A folder that is away is reported when it is listed.
        let Ok(on) = Targets::of(dir) else { return self.set = None };
        if self.set.as_ref().is_some_and(|set| set.on == on && !set.stale.load(Ordering::Relaxed)) {
            return;
        }
        self.set = None;
        let mut failed = None;
        match WatchSet::new(on, &self.hint, &mut failed) {
            // The path may lead elsewhere since it was followed, and watches be on what is not meant.
            Ok(set) if Targets::of(dir).is_ok_and(|now| now == set.on) => self.set = Some(set),
            Ok(_) => self.hint.notify_one(),
            Err(error) => failed = Some(format!("could not watch {}: {error}", dir.display())),
        }
        if failed.is_some() && failed != self.failed {
            let why = failed.clone().unwrap_or_default();
            self.listener.notify(&Notice::FolderUnwatched { why });
        }
        self.failed = failed;
    }
}

impl WatchSet {
    /// Sets the watches. `failed` says so if there is none on a link.
    fn new(on: Targets, hint: &Arc<Notify>, failed: &mut Option<String>) -> notify::Result<WatchSet> {
        let stale = Arc::new(AtomicBool::new(false));
        let (targets, hint, is_stale) = (on.clone(), Arc::clone(hint), Arc::clone(&stale));
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An event that failed may have been any.
            if event.as_ref().is_ok_and(|event| !targets.are_meant(event)) {
                return;
            }
            let is_folders = |event: &Event| event.paths.contains(&targets.folder);
            if event.is_ok_and(|event| is_folders(&event)) {
                is_stale.store(true, Ordering::Relaxed);
            }
            hint.notify_one();
        })?;
        watcher.watch(&on.folder, RecursiveMode::NonRecursive)?;
        let around: BTreeSet<&Path> = on.links.iter().filter_map(|link| link.parent()).collect();
        for dir in around.into_iter().filter(|dir| *dir != on.folder) {
            if let Err(error) = watcher.watch(dir, RecursiveMode::NonRecursive) {
                *failed = Some(format!("could not watch {}, where a link to the folder is: {error}", dir.display()));
            }
        }
        Ok(WatchSet { on, stale, _watcher: watcher })
    }
}

impl Targets {
    fn of(dir: &Path) -> io::Result<Targets> {
        let (folder, links) = resolve(dir)?;
        let about = fs::metadata(&folder)?;
        Ok(Targets { folder, device_and_inode: (about.dev(), about.ino()), links })
    }

    /// Returns true if an event may have changed what the folder has, or where it is.
    fn are_meant(&self, event: &Event) -> bool {
        // A scan is an access itself: it must not cause another scan.
        if matches!(event.kind, EventKind::Access(_)) {
            return false;
        }
        let is_meant =
            |path: &PathBuf| *path == self.folder || path.parent() == Some(&self.folder) || self.links.contains(path);
        event.paths.is_empty() || event.paths.iter().any(is_meant)
    }
}

/// Follows a path, and returns where it leads and every link on the way.
fn resolve(path: &Path) -> io::Result<(PathBuf, BTreeSet<PathBuf>)> {
    let mut ahead = parts(&std::path::absolute(path)?);
    let (mut at, mut links) = (PathBuf::from("/"), BTreeSet::new());
    let mut followed = 0;
    while let Some(part) = ahead.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        if !fs::symlink_metadata(&next)?.is_symlink() {
            at = next;
            continue;
        }
        followed += 1;
        if followed > LINKS_MAX {
            return Err(io::Error::other("too many links lead to each other"));
        }
        let target = fs::read_link(&next)?;
        links.insert(next);
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        ahead.extend(parts(&target));
    }
    Ok((at, links))
}

/// Returns the parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(|part| named(*part)).map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_on_the_way_is_found() {
        let outer = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(outer.path()).unwrap();
        fs::create_dir_all(root.join("releases/7/plugins")).unwrap();
        fs::create_dir(root.join("app")).unwrap();
        symlink("releases/7", root.join("current")).unwrap();
        symlink(root.join("app/../current/plugins"), root.join("app/plugins")).unwrap();
        let (folder, links) = resolve(&root.join("app/./plugins")).unwrap();
        assert_eq!(folder, root.join("releases/7/plugins"));
        assert_eq!(links, BTreeSet::from([root.join("app/plugins"), root.join("current")]));
        symlink("round", root.join("round")).unwrap();
        assert!(resolve(&root.join("round")).is_err());
    }
}
