//! One scan of the plugin folder: which files may be plugins, and as which each is known.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_engine::Problem;
use wharf_engine::spec::file_name::plugin_id;

/// A file that did not change for this long is complete.
pub(crate) const QUIET: Duration = Duration::from_millis(100);

/// A file that may be meant as a plugin.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) stamp: Stamp,
    /// The file was last written so long ago that one scan is enough: it was renamed into place, or was there before.
    pub(crate) old: bool,
}

/// Kind of a file, by its name.
#[derive(Clone)]
pub(crate) enum Kind {
    /// The component of this plugin.
    Component(PluginId),
    /// A file that will never be loaded under this name, and why.
    Refused(Problem),
}

/// Metadata that distinguishes a changed file from what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The size in bytes.
    pub(crate) bytes: u64,
    modified: Option<SystemTime>,
    /// The device and inode of the file, and the time of its last change of any kind: they differ after a rename over it, or
    /// if its modification time was set back.
    identity: (u64, u64, i64, i64),
}

impl Stamp {
    /// Makes the stamp of a file that cannot be looked at: it is another one once it can be, and another for each error.
    fn unread(error: &io::Error) -> Stamp {
        Stamp { bytes: 0, modified: None, identity: (0, 0, error.raw_os_error().unwrap_or(-1).into(), 0) }
    }

    fn of(metadata: &Metadata) -> Stamp {
        Stamp { bytes: metadata.len(), modified: metadata.modified().ok(), identity: identity(metadata) }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64, i64, i64) {
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

/// Returns every file in `dir` that may be meant as a plugin.
///
/// # Errors
///
/// Returns the system's error if the folder cannot be read.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(kind) = kind(&path) else { continue };
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            // A file that is gone since it was listed, or a link to nothing, does not count.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            // Whatever else fails says nothing of the file: the attempt to load it says why.
            Err(error) => {
                found.push(Found { kind, stamp: Stamp::unread(&error), old: false, path });
                continue;
            }
        };
        if !metadata.is_file() {
            continue;
        }
        let old = metadata.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= QUIET);
        found.push(Found { kind, stamp: Stamp::of(&metadata), old, path });
    }
    Ok(found)
}

/// Returns what a file is by its name; `None` if it is not meant as a plugin: hidden and temporary files, and everything else.
fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_string_lossy();
    if name.starts_with(['.', '#', '~']) || name.ends_with('~') {
        return None;
    }
    let (stem, extension) = name.rsplit_once('.')?;
    if extension.eq_ignore_ascii_case("cwasm") {
        let problem =
            Problem::new("compiled code is never loaded from the plugin folder, since it runs without a sandbox");
        return Some(Kind::Refused(
            problem.hint("put the component itself there; the host compiles it and keeps the result"),
        ));
    }
    if !extension.eq_ignore_ascii_case("wasm") {
        return None;
    }
    if extension != "wasm" {
        return Some(Kind::Refused(
            Problem::new(format!("invalid file extension `.{extension}`: expected `.wasm` in lower case"))
                .hint("rename the file"),
        ));
    }
    Some(plugin_id(stem).map_or_else(Kind::Refused, Kind::Component))
}

/// Returns the content of a file, and its stamp after it was read.
///
/// # Errors
///
/// Returns the system's error if the file cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
    let file = File::open(path)?;
    let mut content = Vec::new();
    // One byte more than the bound: a file that grew beyond it has another stamp by then.
    (&file).take(bounds::COMPONENT_BYTES_MAX + 1).read_to_end(&mut content)?;
    // By its path, so that a file that was renamed over it is noticed.
    Ok((content, Stamp::of(&fs::metadata(path)?)))
}
