//! The folder of the cache: found or made, so that no other user can write in it, and reached by its descriptor.
//!
//! The code in it is native, so whoever can write there can run code as the host. A folder in which others may write is
//! still of use: in it, the host makes a folder of its own. Others may rename or remove that one, or put another in its
//! place, but never write in it. So it is opened once, without following links; its owner and mode are judged by what was
//! opened; and from then on it is reached by the open descriptor and never again by its path.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, CWD, Mode, OFlags, access, fstat, mkdirat, openat};
use wharf_core::bounds;

/// The cache of compiled plugins: its folder, and its bound.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// The folder.
    pub dir: PathBuf,
    /// Nobody named the folder: where it cannot be used, one for temporary files is used in its place.
    pub dir_is_default: bool,
    /// Maximum size in bytes of all files in the cache. What was not used for the longest time is deleted first; what a
    /// running host uses is kept.
    pub bytes_max: u64,
}

impl CacheSettings {
    /// Returns the settings of a cache in a folder that somebody named, with the usual bound.
    pub fn in_folder(dir: impl Into<PathBuf>) -> CacheSettings {
        CacheSettings { dir: dir.into(), dir_is_default: false, bytes_max: bounds::CACHE_BYTES_DEFAULT }
    }
}

/// An open folder that only the host's user can write.
pub(crate) struct CacheFolder {
    /// Keeps what `by_descriptor` names.
    descriptor: OwnedFd,
    by_descriptor: PathBuf,
    /// Path under which it was opened, for texts.
    shown: PathBuf,
}

/// Returns the folders for temporary files: the first that can be used is taken.
fn temporary_folders() -> [PathBuf; 2] {
    [std::env::temp_dir(), PathBuf::from("/dev/shm")]
}

impl CacheFolder {
    /// Opens the folder that the settings name, or another one where nobody named it and it cannot be used.
    ///
    /// # Errors
    /// A reason and what to do, if there is no folder that can be used.
    pub(crate) fn open(settings: &CacheSettings) -> Result<CacheFolder, String> {
        let opened = CacheFolder::at(&settings.dir, false);
        let why = match opened {
            Ok(folder) => match folder.writable() {
                Ok(()) => return Ok(folder),
                Err(error) if settings.dir_is_default => {
                    format!("could not write to the cache folder {}: {error}", folder.shown.display())
                }
                // What is in it can be loaded, as with a cache that is a part of an image.
                Err(error) => {
                    tracing::warn!(
                        "could not write to the cache folder {}: {error}; only what is in it already can be loaded; set `cache-dir` to a folder that the host's user may write to",
                        folder.shown.display()
                    );
                    return Ok(folder);
                }
            },
            Err(why) => why,
        };
        let others = temporary_folders().into_iter().filter(|_| settings.dir_is_default);
        let found = others.filter_map(|dir| CacheFolder::at(&dir, true).ok()).find(|other| other.writable().is_ok());
        let Some(other) = found else {
            return Err(format!("{why}; set `cache-dir` to a folder that the host's user may write to"));
        };
        tracing::warn!(
            "{why}; compiled plugins are kept in {} in its place, which a restart of the machine or the container empties; to keep them, set `cache-dir`",
            other.shown.display()
        );
        Ok(other)
    }

    /// Opens a folder, which is made if it does not exist. Unless it is the host's alone, and where `in_own`, a folder in it
    /// is opened.
    fn at(dir: &Path, in_own: bool) -> Result<CacheFolder, String> {
        let shown = dir.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| format!("could not create the cache folder {shown}: {error}"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let unread = |error: rustix::io::Errno| format!("could not read the cache folder {shown}: {error}");
        let outer = openat(CWD, dir, flags, Mode::empty()).map_err(unread)?;
        if !in_own && Owned::of(&outer).map_err(unread)?.is_private() {
            return Ok(CacheFolder::new(outer, dir.to_owned()));
        }
        let name = format!("wharf-{}", rustix::process::geteuid().as_raw());
        let path = dir.join(&name);
        match mkdirat(&outer, &name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => {
                return Err(format!(
                    "could not create {}, since the cache folder {shown} is not the host's alone: {error}",
                    path.display()
                ));
            }
        }
        let inner = openat(&outer, &name, flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|error| format!("could not read the cache folder {}: {error}", path.display()))?;
        let about = Owned::of(&inner).map_err(unread)?;
        if !about.is_private() {
            return Err(format!(
                "the cache folder {} could be written by others than the host's user {} (owner {}, mode {:04o}), and its files are run as native code; remove it",
                path.display(),
                rustix::process::geteuid().as_raw(),
                about.user,
                about.mode
            ));
        }
        Ok(CacheFolder::new(inner, path))
    }

    fn new(descriptor: OwnedFd, shown: PathBuf) -> CacheFolder {
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        CacheFolder { descriptor, by_descriptor, shown }
    }

    fn writable(&self) -> io::Result<()> {
        Ok(access(&self.by_descriptor, Access::WRITE_OK | Access::EXEC_OK)?)
    }

    /// Returns true if the folder was removed: nothing can be made in it any more.
    pub(crate) fn is_gone(&self) -> bool {
        fstat(&self.descriptor).is_ok_and(|about| about.st_nlink == 0)
    }

    /// Returns the folder itself, for as long as this value lives: in this process, and in one that it starts until that
    /// executes its program.
    pub(crate) fn by_descriptor(&self) -> &Path {
        &self.by_descriptor
    }

    /// Returns the path of a file in the folder, for as long as this value lives.
    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.by_descriptor.join(name.as_ref())
    }

    /// Returns the path of a file for texts.
    pub(crate) fn shown(&self, name: &str) -> PathBuf {
        self.shown.join(name)
    }

    /// Opens a file in the folder that the host's user made. Whatever else is there was made before the folder was the
    /// host's alone.
    ///
    /// # Errors
    /// If the file does not exist, is none but a link or a pipe, cannot be read, or belongs to somebody else.
    pub(crate) fn file(&self, name: &str) -> io::Result<File> {
        // A link may lead to the code of another component, and a pipe would never open.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.descriptor, name, flags, Mode::empty())?);
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("not a file"));
        }
        if about.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("the file belongs to another user"));
        }
        Ok(file)
    }

    /// Returns the names of the files in the folder, each with what is known of it.
    pub(crate) fn files(&self) -> impl Iterator<Item = (String, fs::Metadata)> {
        let entries = fs::read_dir(&self.by_descriptor).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?)))
    }
}

/// The owner and the mode of a folder.
struct Owned {
    user: u32,
    mode: u32,
}

impl Owned {
    fn of(descriptor: &OwnedFd) -> rustix::io::Result<Owned> {
        let about = fstat(descriptor)?;
        Ok(Owned { user: about.st_uid, mode: about.st_mode & 0o7777 })
    }

    /// Returns true if only the host's user can write. Root, too, takes no code of others: it has more rights than they have.
    /// An access list grants at most the middle digit of the mode.
    fn is_private(&self) -> bool {
        self.user == rustix::process::geteuid().as_raw() && self.mode & 0o022 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    fn own_name() -> String {
        format!("wharf-{}", rustix::process::geteuid().as_raw())
    }

    #[test]
    fn in_a_folder_that_others_may_write_the_host_makes_its_own() {
        for mode in [0o777, 0o1777, 0o2777, 0o770] {
            let shared = folder(mode);
            let opened = CacheFolder::open(&CacheSettings::in_folder(shared.path())).unwrap();
            fs::write(opened.path("a"), "mine").unwrap();
            let own = shared.path().join(own_name());
            assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700);
            assert_eq!(fs::read_to_string(own.join("a")).unwrap(), "mine");
        }
        let private = folder(0o755);
        let opened = CacheFolder::open(&CacheSettings::in_folder(private.path())).unwrap();
        fs::write(opened.path("a"), "mine").unwrap();
        assert!(private.path().join("a").exists());
    }

    #[test]
    fn only_files_are_read_no_links_and_no_pipes() {
        let private = folder(0o700);
        let opened = CacheFolder::open(&CacheSettings::in_folder(private.path())).unwrap();
        fs::write(opened.path("code"), "of one component").unwrap();
        std::os::unix::fs::symlink("code", private.path().join("link")).unwrap();
        rustix::fs::mkfifoat(CWD, private.path().join("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        assert!(opened.file("code").is_ok());
        assert!(opened.file("link").is_err() && opened.file("pipe").is_err() && opened.file(".").is_err());
    }

    #[test]
    fn a_folder_put_in_its_place_is_never_used() {
        let shared = folder(0o777);
        let own = shared.path().join(own_name());
        let settings = CacheSettings::in_folder(shared.path());
        let opened = CacheFolder::open(&settings).unwrap();
        fs::rename(&own, shared.path().join("away")).unwrap();
        fs::create_dir(&own).unwrap();
        fs::write(own.join("a"), "theirs").unwrap();
        assert!(opened.file("a").is_err(), "the one that was opened is used");
        fs::write(opened.path("a"), "mine").unwrap();
        assert_eq!(fs::read_to_string(shared.path().join("away/a")).unwrap(), "mine");
        // Whoever opens it now refuses what others may write, and a link.
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        let why = CacheFolder::open(&settings).err().unwrap();
        assert!(why.contains("could be written by others") && why.contains("`cache-dir`"), "{why}");
        fs::remove_dir_all(&own).unwrap();
        std::os::unix::fs::symlink(shared.path().join("away"), &own).unwrap();
        assert!(CacheFolder::open(&settings).is_err());
    }

    #[test]
    fn only_a_folder_that_nobody_named_is_replaced() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let named = CacheSettings::in_folder(file.path().join("cache"));
        let why = CacheFolder::open(&named).err().unwrap();
        assert!(why.starts_with("could not create the cache folder") && why.contains("set `cache-dir`"), "{why}");
        let other = CacheFolder::open(&CacheSettings { dir_is_default: true, ..named }).unwrap();
        assert_eq!(other.shown("x"), std::env::temp_dir().join(own_name()).join("x"));
    }

    #[test]
    fn a_folder_that_was_removed_is_known_to_be_gone() {
        let folder = folder(0o700);
        let opened = CacheFolder::open(&CacheSettings::in_folder(folder.path())).unwrap();
        assert!(!opened.is_gone());
        fs::remove_dir(folder.path()).unwrap();
        assert!(opened.is_gone());
    }
}
