//! One scan of the plugin folder: which files may be plugins, and as which each is known.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_engine::spec::file_name::plugin_id;
use wharf_engine::{PluginFile, Problem};

/// A file that did not change for this long is complete.
pub(crate) const QUIET: Duration = Duration::from_millis(100);

/// A file that may be meant as a plugin.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) stamp: Stamp,
    /// The file was last written so long ago that one scan is enough: it was renamed into place, or was there before.
    pub(crate) old: bool,
    /// It came here so long ago, whatever its content's age, that its manifest would be here, too.
    pub(crate) settled: bool,
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
    /// The size and the identity of the manifest beside it, if there is one: the two are one version.
    manifest: Option<(u64, (u64, u64, i64, i64))>,
}

impl Stamp {
    /// Returns true if there is a manifest beside the component.
    pub(crate) fn has_manifest(&self) -> bool {
        self.manifest.is_some()
    }

    /// Makes the stamp of a file that cannot be looked at: it is another one once it can be, and another for each error.
    fn unread(error: &io::Error) -> Stamp {
        Stamp {
            bytes: 0,
            modified: None,
            identity: (0, 0, error.raw_os_error().unwrap_or(-1).into(), 0),
            manifest: None,
        }
    }

    fn of(metadata: &Metadata, manifest: Option<&Metadata>) -> Stamp {
        Stamp {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            identity: identity(metadata),
            manifest: manifest.map(|manifest| (manifest.len(), identity(manifest))),
        }
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
                found.push(Found { kind, stamp: Stamp::unread(&error), old: false, settled: false, path });
                continue;
            }
        };
        if !metadata.is_file() {
            continue;
        }
        let manifest = manifest_beside(&path);
        let halves = [Some(&metadata), manifest.as_ref()];
        let old = halves.iter().flatten().all(|half| half.modified().is_ok_and(is_past));
        let settled = halves.iter().flatten().all(|half| is_past(came_at(half)));
        found.push(Found { kind, stamp: Stamp::of(&metadata, manifest.as_ref()), old, settled, path });
    }
    Ok(found)
}

/// Returns the path of the manifest that belongs to a component.
fn manifest_path(component: &Path) -> PathBuf {
    component.with_extension("toml")
}

/// Returns the metadata of the manifest beside a component, if there is one.
fn manifest_beside(component: &Path) -> Option<Metadata> {
    fs::metadata(manifest_path(component)).ok().filter(Metadata::is_file)
}

/// Returns when a file came to where it is, or was changed in any way since.
fn came_at(metadata: &Metadata) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
    UNIX_EPOCH + seconds + Duration::from_nanos(u64::try_from(metadata.ctime_nsec()).unwrap_or(0))
}

/// Returns true if a moment is long enough ago for a file to be complete.
fn is_past(at: SystemTime) -> bool {
    at.elapsed().is_ok_and(|age| age >= QUIET)
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

/// Returns the content of a component's file and of the manifest beside it, and their stamp after they were read.
///
/// # Errors
///
/// Returns the system's error if one of them cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<(PluginFile, Stamp)> {
    // One byte more than the bound: a file that grew beyond it has another stamp by then.
    let component = content(path, bounds::COMPONENT_BYTES_MAX + 1)?;
    let manifest = match content(&manifest_path(path), bounds::MANIFEST_BYTES_MAX + 1) {
        Ok(manifest) => Some(manifest),
        // A folder or a FIFO of this name is no manifest.
        Err(_) if manifest_beside(path).is_none() => None,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", manifest_path(path).display()))),
    };
    // By their paths, so that a file that was renamed over one of them is noticed.
    let stamp = Stamp::of(&fs::metadata(path)?, manifest_beside(path).as_ref());
    Ok((PluginFile { component: component.into(), manifest: manifest.map(Into::into) }, stamp))
}

fn content(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // A file that was replaced by a FIFO since it was listed must not be waited for.
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut content = Vec::new();
    (&file).take(bytes_max).read_to_end(&mut content)?;
    Ok(content)
}
