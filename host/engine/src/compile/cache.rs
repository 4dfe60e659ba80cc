//! The cache of read files, kept between starts by their digests: a description of each, and the compiled code of those
//! that are plugins.
//!
//! The code is native, so the folder must be writable for the host's user only. A file's name has the digest of the
//! bytes that it was made from and a hash of what it was made for. The description has the digest of the code, which is
//! checked before the code is loaded.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;
use wharf_core::bounds;

use crate::inspect::description::Description;
use crate::inspect::host_interfaces;
use crate::wasmtime_config::EngineKind;

/// The cache folder.
pub(crate) struct Cache {
    folder: PathBuf,
    /// Distinguishes this cache's temporary files from those of other processes: in containers each may have the
    /// process id 1.
    random: u64,
    /// Distinguishes the temporary files of this cache.
    temporary: AtomicU64,
}

impl Cache {
    /// Opens the cache in a folder, which is made if it does not exist.
    ///
    /// # Errors
    /// A reason, if the folder cannot be made, or if users other than the host's may write in it.
    pub(crate) fn open(folder: &Path) -> Result<Cache, String> {
        let shown = folder.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| format!("could not create the cache folder {shown}: {error}"))?;
        let about =
            fs::metadata(folder).map_err(|error| format!("could not read the cache folder {shown}: {error}"))?;
        let own = rustix::process::geteuid().as_raw();
        // Another owner could put native code there, and root runs with more rights than that owner has.
        if about.mode() & 0o022 != 0 || about.uid() != own {
            return Err(format!(
                "the cache folder {shown} is writable for other users, and its files are run as native code; chown it to the host's user and chmod 700"
            ));
        }
        sweep(folder);
        Ok(Cache {
            folder: folder.to_owned(),
            random: RandomState::new().build_hasher().finish(),
            temporary: AtomicU64::new(0),
        })
    }

    /// Returns the path for the compiled code of a component with this digest.
    pub(crate) fn place(&self, digest: &str, kind: EngineKind, engine: &Engine) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.folder.join(format!("{digest}-{}-{:016x}.cwasm", kind.as_str(), hasher.finish()))
    }

    /// Returns the path of a new temporary file, which is removed when dropped.
    pub(crate) fn temporary(&self, purpose: &str) -> Temporary {
        loop {
            let number = self.temporary.fetch_add(1, Ordering::Relaxed);
            let path = self.folder.join(format!(".{purpose}-{:016x}-{number}", self.random));
            // Each name is used once; a file that exists was left by a process that died.
            if !path.exists() {
                return Temporary(path);
            }
        }
    }

    /// Returns the path for the description of a file with this digest.
    pub(crate) fn description_place(&self, digest: &str, engine: &Engine) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        (engine.precompile_compatibility_hash(), READERS, host_interfaces::FILES).hash(&mut hasher);
        self.folder.join(format!("{digest}-{:016x}.description", hasher.finish()))
    }

    /// Reads the description of a file, if it was read before.
    pub(crate) fn description(&self, place: &Path) -> Option<Description> {
        let mut bytes = Vec::new();
        File::open(place).ok()?.take(bounds::DESCRIPTION_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let description = Description::from_bytes(&bytes);
        if description.is_none() {
            tracing::warn!(file = %place.display(), "a plugin's description in the cache is damaged; the plugin is read again");
        }
        description
    }

    /// Loads the compiled code at `place`, if it exists and its digest is right.
    pub(crate) fn load(&self, place: &Path, digest: &str, engine: &Engine) -> Option<Component> {
        match digest_of_file(place) {
            Ok(found) if found == digest => {}
            Ok(_) => {
                tracing::warn!(file = %place.display(), "a compiled plugin in the cache is damaged; it is compiled again");
                return None;
            }
            Err(_) => return None,
        }
        #[expect(
            unsafe_code,
            reason = "native code from disk: the folder is the host's alone, and the file is what the host wrote"
        )]
        // SAFETY: only the host's user can write in the folder, files are put in place by rename and never changed
        // after, and the digest shows that this one is what a compiler of this host made.
        let component = unsafe { Component::deserialize_file(engine, place) };
        component.inspect_err(|error| tracing::warn!(file = %place.display(), "a compiled plugin in the cache is not compatible; it is compiled again: {error:#}")).ok()
    }

    /// Moves new files into place by rename: the code first, so that the code that a description names exists.
    ///
    /// # Errors
    /// If the files cannot be synced or renamed.
    pub(crate) fn publish(
        &self,
        code: Option<(&Temporary, &Path)>,
        description: (&Temporary, &Path),
    ) -> io::Result<()> {
        for (file, place) in code.into_iter().chain([description]) {
            File::open(&file.0)?.sync_all()?;
            fs::rename(&file.0, place)?;
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Writes the description of a file that its reader did not survive.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn store_refusal(&self, description: &Description, place: &Path) -> io::Result<()> {
        let file = self.temporary("description");
        file.write(&description.to_bytes().map_err(io::Error::other)?)?;
        self.publish(None, (&file, place))
    }
}

/// The sources of the code that reads components: a description is valid as long as they do not change.
const READERS: [&str; 11] = [
    include_str!("../inspect/contract_check.rs"),
    include_str!("../inspect/description.rs"),
    include_str!("examine.rs"),
    include_str!("../inspect/line_table.rs"),
    include_str!("../inspect/symbol_names.rs"),
    include_str!("../inspect/host_interfaces.rs"),
    include_str!("../spec/problem.rs"),
    include_str!("../inspect/strip.rs"),
    include_str!("../inspect/survey.rs"),
    include_str!("../inspect/wit_signature.rs"),
    include_str!("../../../core/src/bounds.rs"),
];

/// Removes temporary files of hosts that died while they compiled. Nothing depends on it, so errors are ignored.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_temporary =
            name.to_str().is_some_and(|name| TEMPORARIES.iter().any(|purpose| name.starts_with(purpose)));
        let age = entry.metadata().and_then(|about| about.modified()).ok().and_then(|modified| modified.elapsed().ok());
        // A younger file may belong to a host that is compiling right now.
        if is_temporary && age.is_some_and(|age| age > bounds::COMPILE_TIMEOUT) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

const TEMPORARIES: [&str; 3] = [".component-", ".compiled-", ".description-"];

/// A temporary file, removed when dropped: see [`Cache::temporary`].
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0)?.write_all(bytes)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns the SHA-256 digest in hex, as `sha256sum` prints it.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn digest_of_file(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &tempfile::TempDir) -> Cache {
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Cache::open(folder.path()).unwrap()
    }

    #[test]
    fn a_leftover_file_is_never_reused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder);
        let next = cache.temporary("compiled").path().to_owned();
        cache.temporary.store(0, Ordering::Relaxed);
        fs::write(&next, "left").unwrap();
        for purpose in ["component", "compiled", "description"] {
            cache.temporary.store(0, Ordering::Relaxed);
            let file = cache.temporary(purpose);
            assert_ne!(file.path(), next);
            file.write(b"mine").unwrap();
        }
        assert_eq!(fs::read(&next).unwrap(), b"left");
    }

    #[test]
    fn old_leftovers_are_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - 2 * bounds::COMPILE_TIMEOUT;
        for (name, is_old) in [
            (".component-1", true),
            (".compiled-1", true),
            (".description-1", true),
            (".description-2", false),
            ("a-sync-1.cwasm", true),
        ] {
            let file = File::create(folder.path().join(name)).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
        }
        cache(&folder);
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".description-2", "a-sync-1.cwasm"]);
    }
}
