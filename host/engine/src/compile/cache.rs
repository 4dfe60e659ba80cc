//! The cache of read files, kept between starts by their digests: a description of each, and the compiled code of those
//! that are plugins.
//!
//! The code is native: see [`crate::compile::cache_folder`] for who may write in the folder. A file's name has the digest
//! of the bytes that it was made from and a hash of what it was made for. The description has the digest of the code, which
//! is checked before the code is loaded.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};
use wharf_core::bounds;

use crate::compile::cache_folder::{CacheFolder, CacheSettings};
use crate::compile::cache_trim;
use crate::inspect::description::{CodeForm, Description};
use crate::inspect::host_interfaces;
use crate::wasmtime_config::EngineKind;

/// The cache.
pub(crate) struct Cache {
    settings: CacheSettings,
    /// Replaced if somebody removes it. Locked for a look at it, and while another is opened.
    folder: Mutex<Arc<CacheFolder>>,
    /// Distinguishes this cache's temporary files from those of other processes: in containers each may have the
    /// process id 1.
    random: u64,
    /// Distinguishes the temporary files of this cache.
    temporary: AtomicU64,
    /// It was said that code cannot be run from the folder.
    said_in_memory: AtomicBool,
    /// It was said that what is in use is more than the bound.
    said_too_large: AtomicBool,
}

/// Code from the cache. The file is locked as used until this is dropped.
pub(crate) struct CachedCode {
    pub(crate) code: Code,
    pub(crate) in_use: File,
}

/// Compiled code.
pub(crate) enum Code {
    Component(Component),
    Module(Module),
}

impl Code {
    /// Makes the image of its memories, which the first instance would make otherwise.
    pub(crate) fn prepare(&self) -> wasmtime::Result<()> {
        match self {
            Code::Component(component) => component.initialize_copy_on_write_image(),
            Code::Module(module) => module.initialize_copy_on_write_image(),
        }
    }
}

impl Cache {
    /// Opens the cache.
    ///
    /// # Errors
    /// A reason, if no folder can be used for it.
    pub(crate) fn open(settings: CacheSettings) -> Result<Cache, String> {
        let folder = CacheFolder::open(&settings)?;
        sweep(&folder);
        Ok(Cache {
            settings,
            folder: Mutex::new(Arc::new(folder)),
            random: RandomState::new().build_hasher().finish(),
            temporary: AtomicU64::new(0),
            said_in_memory: AtomicBool::new(false),
            said_too_large: AtomicBool::new(false),
        })
    }

    /// Returns the open folder. One that was removed is made again.
    pub(crate) fn folder(&self) -> Arc<CacheFolder> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if folder.is_gone() {
            match CacheFolder::open(&self.settings) {
                Ok(again) => *folder = Arc::new(again),
                Err(why) => tracing::warn!("the cache folder was removed; {why}"),
            }
        }
        Arc::clone(&folder)
    }

    /// Returns the name of the compiled code of a component with this digest.
    pub(crate) fn code_name(&self, digest: &str, kind: EngineKind, engine: &Engine) -> String {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{digest}-{}-{:016x}.cwasm", kind.as_str(), hasher.finish())
    }

    /// Returns a new temporary file in `folder`, which is removed when dropped.
    pub(crate) fn temporary(&self, folder: &Arc<CacheFolder>, purpose: &str) -> Temporary {
        loop {
            let number = self.temporary.fetch_add(1, Ordering::Relaxed);
            let name = format!(".{purpose}-{:016x}-{number}", self.random);
            // Each name is used once; a file that exists was left by a process that died.
            if !folder.path(&name).exists() {
                return Temporary { folder: Arc::clone(folder), name };
            }
        }
    }

    /// Returns the name of the description of a file with this digest.
    pub(crate) fn description_name(&self, digest: &str, engine: &Engine) -> String {
        let mut hasher = DefaultHasher::new();
        (engine.precompile_compatibility_hash(), READERS, host_interfaces::FILES).hash(&mut hasher);
        format!("{digest}-{:016x}.description", hasher.finish())
    }

    /// Reads the description of a file, if it was read before.
    pub(crate) fn description(&self, name: &str) -> Option<Description> {
        let folder = self.folder();
        let mut bytes = Vec::new();
        let file = folder.file(name).ok()?;
        cache_trim::note_use(&file);
        file.take(bounds::DESCRIPTION_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let description = Description::from_bytes(&bytes);
        if description.is_none() {
            tracing::warn!(file = %folder.shown(name).display(), "a plugin's description in the cache is damaged; the plugin is read again");
        }
        description
    }

    /// Loads the compiled code in the file `name`, if it exists and its digest is right.
    pub(crate) fn load(&self, name: &str, form: CodeForm, digest: &str, engine: &Engine) -> Option<CachedCode> {
        let folder = self.folder();
        let shown = folder.shown(name);
        let mut file = folder.file(name).ok()?;
        // Before it is read, so that it is not deleted meanwhile.
        cache_trim::hold(&file);
        cache_trim::note_use(&file);
        match digest_of_file(&mut file) {
            Ok(found) if found == digest => {}
            Ok(_) => {
                tracing::warn!(file = %shown.display(), "a compiled plugin in the cache is damaged; it is compiled again");
                return None;
            }
            Err(_) => return None,
        }
        let code = self.map(&file, form, engine).or_else(|not_mapped| {
            let code = in_memory(&mut file, form, digest, engine)?;
            if !self.said_in_memory.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "code cannot be run from the cache folder, perhaps since it is mounted with noexec; each plugin's code is read into memory: {not_mapped:#}"
                );
            }
            Ok::<_, wasmtime::Error>(code)
        });
        let code = code.inspect_err(|error| tracing::warn!(file = %shown.display(), "a compiled plugin in the cache is not compatible; it is compiled again: {error:#}")).ok()?;
        Some(CachedCode { code, in_use: file })
    }

    /// Maps the code of an open file, whose digest was checked.
    fn map(&self, file: &File, form: CodeForm, engine: &Engine) -> wasmtime::Result<Code> {
        // The file that was checked, whatever has its name by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        #[expect(
            unsafe_code,
            reason = "native code from disk: the folder is the host's alone, and the file is what the host wrote"
        )]
        // SAFETY: only the host's user can write in the folder, files are put in place by rename and never changed
        // after, and the digest shows that this one is what a compiler of this host made.
        unsafe {
            match form {
                CodeForm::Component => Component::deserialize_file(engine, path).map(Code::Component),
                CodeForm::Module => Module::deserialize_file(engine, path).map(Code::Module),
            }
        }
    }

    /// Moves new files into place by rename: the code first, so that the code that a description names exists.
    ///
    /// # Errors
    /// If the files cannot be synced or renamed.
    pub(crate) fn publish(&self, code: Option<(&Temporary, &str)>, description: (&Temporary, &str)) -> io::Result<()> {
        for (file, name) in code.into_iter().chain([description]) {
            File::open(file.path())?.sync_all()?;
            fs::rename(file.path(), file.folder.path(name))?;
        }
        File::open(description.0.folder.by_descriptor())?.sync_all()
    }

    /// Deletes what was not used for the longest time, down to the bound; not what was made of the component `keep`.
    pub(crate) fn trim(&self, keep: &str) {
        let bytes = cache_trim::trim(&self.folder(), self.settings.bytes_max, keep);
        if bytes > self.settings.bytes_max && !self.said_too_large.swap(true, Ordering::Relaxed) {
            let [bytes, max] = [bytes, self.settings.bytes_max].map(|bytes| bytesize::ByteSize(bytes).display().iec());
            tracing::warn!("the compiled plugins that are in use take {bytes}, more than `cache-max`, which is {max}");
        }
    }

    /// Writes the description of a file that its reader did not survive.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn store_refusal(&self, description: &Description, name: &str) -> io::Result<()> {
        let file = self.temporary(&self.folder(), "description");
        file.write(&description.to_bytes().map_err(io::Error::other)?)?;
        self.publish(None, (&file, name))
    }
}

/// Reads code into memory, where it cannot be mapped: on a file system that is mounted with `noexec`.
fn in_memory(file: &mut File, form: CodeForm, digest: &str, engine: &Engine) -> wasmtime::Result<Code> {
    let mut code = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut code)?;
    if digest_of(&code) != digest {
        return Err(wasmtime::Error::msg("its digest is another than before"));
    }
    #[expect(unsafe_code, reason = "native code from disk, as in `Cache::map`")]
    // SAFETY: as for a file that is mapped; the digest is that of the very bytes that are loaded.
    unsafe {
        match form {
            CodeForm::Component => Component::deserialize(engine, &code).map(Code::Component),
            CodeForm::Module => Module::deserialize(engine, &code).map(Code::Module),
        }
    }
}

/// The sources of the code that reads components: a description is valid as long as they do not change.
const READERS: [&str; 17] = [
    include_str!("../inspect/contract_check.rs"),
    include_str!("../inspect/description.rs"),
    include_str!("examine.rs"),
    include_str!("../inspect/core_module.rs"),
    include_str!("../inspect/line_table.rs"),
    include_str!("../inspect/plain_exports.rs"),
    include_str!("../inspect/typed_exports.rs"),
    include_str!("../spec/typed/types.rs"),
    include_str!("../inspect/symbol_names.rs"),
    include_str!("../inspect/host_interfaces.rs"),
    include_str!("../sandbox/guest_logging.rs"),
    include_str!("../spec/typed/names.rs"),
    include_str!("../spec/problem.rs"),
    include_str!("../inspect/strip.rs"),
    include_str!("../inspect/survey.rs"),
    include_str!("../inspect/wit_signature.rs"),
    include_str!("../../../core/src/bounds.rs"),
];

/// Removes temporary files of hosts that died while they compiled. Nothing depends on it, so errors are ignored.
fn sweep(folder: &CacheFolder) {
    for (name, about) in folder.files() {
        let is_temporary = TEMPORARIES.iter().any(|purpose| name.starts_with(purpose));
        // A younger file may belong to a host that is compiling right now. One of the future was written before the clock was set
        // back.
        let is_old = about.modified().is_ok_and(|modified| {
            modified.elapsed().unwrap_or_else(|ahead| ahead.duration()) > bounds::COMPILE_TIMEOUT
        });
        if is_temporary && is_old {
            let _ = fs::remove_file(folder.path(name));
        }
    }
}

const TEMPORARIES: [&str; 3] = [".component-", ".compiled-", ".description-"];

/// A temporary file, removed when dropped: see [`Cache::temporary`].
pub(crate) struct Temporary {
    folder: Arc<CacheFolder>,
    name: String,
}

impl Temporary {
    /// Returns its path in this process, for as long as this value lives.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path(&self.name)
    }

    /// Returns its name within [`Temporary::folder`].
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn folder(&self) -> &CacheFolder {
        &self.folder
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path())?.write_all(bytes)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

/// Returns the SHA-256 digest in hex, as `sha256sum` prints it.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn digest_of_file(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
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
        Cache::open(CacheSettings::in_folder(folder.path())).unwrap()
    }

    #[test]
    fn a_leftover_file_is_never_reused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(&folder);
        let opened = cache.folder();
        let next = folder.path().join(cache.temporary(&opened, "compiled").name());
        cache.temporary.store(0, Ordering::Relaxed);
        fs::write(&next, "left").unwrap();
        for purpose in ["component", "compiled", "description"] {
            cache.temporary.store(0, Ordering::Relaxed);
            let file = cache.temporary(&opened, purpose);
            assert_ne!(Some(file.name()), next.file_name().and_then(|name| name.to_str()));
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
