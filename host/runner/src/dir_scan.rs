//! What lies in the plugin folder, at one look.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_engine::Problem;

/// A file that did not change for this long is complete.
pub(crate) const QUIET: Duration = Duration::from_millis(100);

/// A file that may be meant as a plugin.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) stamp: Stamp,
    /// It was last written so long ago that one look is enough: it was renamed into place, or lay there before.
    pub(crate) old: bool,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Component(PluginId),
    /// It will never be loaded under this name.
    NotForUs(Problem),
}

/// By what a changed file is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) bytes: u64,
    modified: Option<SystemTime>,
    /// The file itself and its last change of any kind, where the system tells: a rename over it, a date that was set back.
    identity: (u64, u64, i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp { bytes: metadata.len(), modified: metadata.modified().ok(), identity: identity(metadata) }
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> (u64, u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> (u64, u64, i64, i64) {
    (0, 0, 0, 0)
}

/// Every file in `dir` that may be meant as a plugin.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(kind) = kind(&path) else { continue };
        // Gone since it was listed, or a link to nothing: then it is not there.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !metadata.is_file() {
            continue;
        }
        let old = metadata.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= QUIET);
        found.push(Found { kind, stamp: Stamp::of(&metadata), old, path });
    }
    Ok(found)
}

/// What a file's name says of it; `None` for what is nobody's plugin: hidden and temporary files, and everything else.
fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_string_lossy();
    if name.starts_with(['.', '#', '~']) || name.ends_with('~') {
        return None;
    }
    let (stem, extension) = name.rsplit_once('.')?;
    if extension.eq_ignore_ascii_case("cwasm") {
        let problem = Problem::new("compiled code is never loaded from the plugin folder: it could do anything");
        return Some(Kind::NotForUs(
            problem.hint("put the component itself there; the host compiles it and keeps the result"),
        ));
    }
    if !extension.eq_ignore_ascii_case("wasm") {
        return None;
    }
    if extension != "wasm" {
        return Some(Kind::NotForUs(
            Problem::new(format!("its name ends in .{extension}")).hint("rename it: .wasm is expected, in lower case"),
        ));
    }
    Some(match stem.parse::<PluginId>() {
        Ok(id) => Kind::Component(id),
        Err(bad) => {
            let hint = "rename the file: its name without .wasm is the plugin's id";
            Kind::NotForUs(Problem::new(format!("the file's name: {bad}")).hint(hint))
        }
    })
}

/// The content of a file, and its stamp after it was read.
pub(crate) fn read(path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
    let file = File::open(path)?;
    let mut content = Vec::new();
    // One more than is allowed: a file that grew past its bound has another stamp by then.
    (&file).take(bounds::COMPONENT_BYTES_MAX + 1).read_to_end(&mut content)?;
    // By its path, so that one that was renamed over it shows.
    Ok((content, Stamp::of(&fs::metadata(path)?)))
}
