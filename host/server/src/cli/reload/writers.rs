//! Tells whether a program that writes a file in place has closed it. The kernel tells it of local files; of a file that
//! another machine writes, nothing is heard.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};

use super::stillness::Writer;

/// Room for several events, each with the name of a file.
const BUFFER_BYTES: usize = 4096;

/// Listens to those who write files.
pub(super) struct Writers {
    /// `None` if the system has no more of these; then nothing is heard.
    inotify: Option<OwnedFd>,
    watched: Vec<Watched>,
}

/// A path, and the file that it leads to.
struct Watched {
    path: PathBuf,
    /// The watch of the file, if there is one.
    file: Option<i32>,
    /// The watch of the folder that has the file, where another file may get its name.
    folder: Option<i32>,
    name: OsString,
    /// The last writer that was heard since the file was read.
    writer: Writer,
}

impl Watched {
    /// Watches the file that a path leads to now. One that is watched already keeps its number.
    fn new(inotify: &OwnedFd, path: &Path) -> Watched {
        // Without a file, it may come under the path's own name.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let watch = |path: &Path, of: WatchFlags| inotify::add_watch(inotify, path, of).ok();
        // What is written in other files of the folder is not asked for: it may be much.
        let in_folder = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
        Watched {
            path: path.to_owned(),
            folder: real.parent().and_then(|folder| watch(folder, in_folder)),
            file: watch(&real, WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE),
            name: real.file_name().unwrap_or_default().to_owned(),
            writer: Writer::Unheard,
        }
    }

    fn numbers(&self) -> impl Iterator<Item = i32> {
        self.file.into_iter().chain(self.folder)
    }

    /// Notes an event. Returns true if it is one of this file.
    fn hear(&mut self, event: &Event<'_>) -> bool {
        let has_name = event.file_name().is_some_and(|name| name.to_bytes() == self.name.as_bytes());
        let is_own = match event.file_name() {
            None => self.file == Some(event.wd()),
            Some(_) => self.folder == Some(event.wd()) && has_name,
        };
        if is_own {
            self.writer = match event.events() {
                events if events.contains(ReadFlags::CLOSE_WRITE) => Writer::Closed,
                // It came complete, or else its writer is heard when it goes on.
                events if events.contains(ReadFlags::MOVED_TO) => Writer::Unheard,
                _ => Writer::Open,
            };
        }
        is_own
    }
}

impl Writers {
    pub(super) fn new() -> Writers {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        Writers { inotify, watched: Vec::new() }
    }

    /// Listens to the files that these paths lead to now, and to no others. Returns true if something was heard of them.
    pub(super) fn listen<'p>(&mut self, paths: impl Iterator<Item = &'p Path>) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut watched: Vec<Watched> = paths.map(|path| Watched::new(inotify, path)).collect();
        for new in &mut watched {
            let is_the_file = |old: &&Watched| old.path == new.path && old.file == new.file;
            if let Some(old) = self.watched.iter().find(is_the_file) {
                new.writer = old.writer;
            }
        }
        let is_needed = |number: i32| watched.iter().flat_map(Watched::numbers).any(|needed| needed == number);
        for number in self.watched.iter().flat_map(Watched::numbers).filter(|number| !is_needed(*number)) {
            // It fails for a file that is gone, whose watch went with it.
            let _ = inotify::remove_watch(inotify, number);
        }
        self.watched = watched;
        let mut is_heard = false;
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut events = Reader::new(inotify, &mut buffer);
        while let Ok(event) = events.next() {
            for watched in &mut self.watched {
                is_heard |= watched.hear(&event);
            }
        }
        is_heard
    }

    /// Returns what was heard of the file that a path led to when this last listened.
    pub(super) fn of(&self, path: &Path) -> Writer {
        let watched = self.watched.iter().find(|watched| watched.path == path);
        watched.map_or(Writer::Unheard, |watched| watched.writer)
    }

    /// Forgets those who are done, once what they wrote was read.
    pub(super) fn forget_closed(&mut self) {
        for watched in self.watched.iter_mut().filter(|watched| watched.writer == Writer::Closed) {
            watched.writer = Writer::Unheard;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Returns whether something is heard of a file now, and what is known of its writer.
    fn heard(writers: &mut Writers, path: &Path) -> (bool, Writer) {
        (writers.listen([path].into_iter()), writers.of(path))
    }

    #[test]
    fn who_writes_in_place_is_open_until_the_file_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let [path, link] = ["file", "link"].map(|name| folder.path().join(name));
        fs::write(&path, "first").unwrap();
        symlink("file", &link).unwrap();
        let mut writers = Writers::new();
        assert_eq!(heard(&mut writers, &link), (false, Writer::Unheard));
        let mut file = File::create(&path).unwrap();
        assert_eq!(heard(&mut writers, &link), (true, Writer::Open), "it is empty by now");
        file.write_all(b"half\n").unwrap();
        assert_eq!(heard(&mut writers, &link), (true, Writer::Open));
        assert_eq!(heard(&mut writers, &link), (false, Writer::Open), "who is silent has not closed it");
        drop(file);
        assert_eq!(heard(&mut writers, &link), (true, Writer::Closed));
        let _ = File::open(&path).unwrap();
        assert_eq!(heard(&mut writers, &link), (false, Writer::Closed), "who reads is no writer");
        writers.forget_closed();
        assert_eq!(writers.of(&link), Writer::Unheard);
        fs::write(folder.path().join("another"), "file").unwrap();
        assert_eq!(heard(&mut writers, &link), (false, Writer::Unheard));
    }

    #[test]
    fn who_creates_a_file_under_its_name_is_open_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut writers = Writers::new();
        assert_eq!(heard(&mut writers, &path), (false, Writer::Unheard), "there is none yet");
        for _ in 0..2 {
            let mut file = File::create(&path).unwrap();
            file.write_all(b"half\n").unwrap();
            assert_eq!(heard(&mut writers, &path), (true, Writer::Open), "before it was watched itself");
            drop(file);
            assert_eq!(heard(&mut writers, &path), (true, Writer::Closed));
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, "whole").unwrap();
        assert_eq!(heard(&mut writers, &path), (true, Writer::Closed), "closed before it was watched itself");
    }

    #[test]
    fn a_file_that_is_renamed_or_linked_has_writers_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let [path, new, link] = ["file", "file.new", "link"].map(|name| folder.path().join(name));
        fs::write(&path, "first").unwrap();
        let mut writers = Writers::new();
        heard(&mut writers, &path);
        let _open = File::create(&path).unwrap();
        assert_eq!(heard(&mut writers, &path).1, Writer::Open);
        fs::write(&new, "second").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(heard(&mut writers, &path).1, Writer::Unheard);
        fs::write(&path, "third").unwrap();
        assert_eq!(heard(&mut writers, &path), (true, Writer::Closed));

        fs::create_dir(folder.path().join("v2")).unwrap();
        fs::write(folder.path().join("v2/file"), "fourth").unwrap();
        symlink("v2/file", &link).unwrap();
        fs::rename(&link, &path).unwrap();
        assert_eq!(heard(&mut writers, &path).1, Writer::Unheard);
        let _open = File::create(folder.path().join("v2/file")).unwrap();
        assert_eq!(heard(&mut writers, &path), (true, Writer::Open));
    }
}
