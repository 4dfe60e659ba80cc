//! How guests open files: without waiting. An open of a FIFO waits for somebody at its other end, perhaps for good, and
//! keeps a thread that all plugins share. So the host's own open replaces that of WASI: it never blocks, and takes nothing but regular
//! files and folders.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::WasiFilesystemView;
use wasmtime_wasi::filesystem::{Descriptor, Dir, File as OpenFile};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
};
use wasmtime_wasi::{FsPerms, OpenMode};

use crate::sandbox::store_data::Sandbox;

/// The interface by which WASI opens files, as its linker names it.
const INTERFACE: &str = "wasi:filesystem/types@0.2.12";
const FUNCTION: &str = "[method]descriptor.open-at";
/// Tries of an open while the path is moved about.
const TRIES_MAX: usize = 16;

type Opened = wasmtime::Result<(Result<Resource<Descriptor>, ErrorCode>,)>;
type OpenAt = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);

/// Replaces WASI's own open in the linker by this one.
pub(crate) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(INTERFACE)?.func_wrap_async(
        FUNCTION,
        |mut store: StoreContextMut<'_, Sandbox>, args: OpenAt| {
            Box::new(async move { Opened::Ok((open_at(store.data_mut(), args).await?,)) })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn open_at(
    sandbox: &mut Sandbox,
    (folder, path_flags, path, open_flags, flags): OpenAt,
) -> wasmtime::Result<Result<Resource<Descriptor>, ErrorCode>> {
    let view = sandbox.filesystem();
    let Dir { dir, perms, .. } = match view.table.get(&folder)? {
        Descriptor::Dir(dir) => dir.clone(),
        Descriptor::File(_) => return Ok(Err(ErrorCode::NotDirectory)),
    };
    let how = match How::new(path_flags, open_flags, flags, perms) {
        Ok(how) => how,
        Err(code) => return Ok(Err(code)),
    };
    let (from, name) = (Arc::clone(&dir), path.clone());
    let opened = tokio::task::spawn_blocking(move || open(&from, &name, how.flags)).await?;
    let descriptor = match opened {
        Ok(Found::Folder(file)) => Descriptor::Dir(Dir::new(file, perms, how.mode, false)),
        Ok(Found::File(_)) if how.is_folder => return Ok(Err(ErrorCode::NotDirectory)),
        Ok(Found::File(file)) => Descriptor::File(OpenFile::new(file, perms, how.mode, false)),
        Ok(Found::Other) => return Ok(Err(ErrorCode::Unsupported)),
        // The kernel is older than this way to open, or a filter hides it. WASI's own open may block, so the file is
        // looked at before: only one that is replaced at this very moment is not seen.
        Err(Errno::NOSYS | Errno::PERM) => {
            let mut view = sandbox.filesystem();
            let of = |folder: &Resource<Descriptor>| Resource::new_borrow(folder.rep());
            let found = HostDescriptor::stat_at(&mut view, of(&folder), path_flags, path.clone()).await;
            return match found.map(|stat| stat.type_) {
                Ok(DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink) | Err(_) => {
                    match HostDescriptor::open_at(&mut view, folder, path_flags, path, open_flags, flags).await {
                        Ok(opened) => Ok(Ok(opened)),
                        Err(error) => Ok(Err(error.downcast()?)),
                    }
                }
                Ok(_) => Ok(Err(ErrorCode::Unsupported)),
            };
        }
        // What leads out of the folder.
        Err(Errno::XDEV) => return Ok(Err(ErrorCode::NotPermitted)),
        // A FIFO that nobody reads, or a socket.
        Err(Errno::NXIO | Errno::NODEV) => return Ok(Err(ErrorCode::Unsupported)),
        Err(error) => return Ok(Err(io::Error::from(error).into())),
    };
    Ok(Ok(sandbox.filesystem().table.push(descriptor)?))
}

/// An open as the system knows it.
#[derive(Clone, Copy)]
struct How {
    flags: OFlags,
    mode: OpenMode,
    is_folder: bool,
}

impl How {
    /// Translates the guest's wishes, as far as it is granted them.
    fn new(path: PathFlags, open: OpenFlags, flags: DescriptorFlags, perms: FsPerms) -> Result<How, ErrorCode> {
        let synced = DescriptorFlags::FILE_INTEGRITY_SYNC
            | DescriptorFlags::DATA_INTEGRITY_SYNC
            | DescriptorFlags::REQUESTED_WRITE_SYNC;
        if flags.intersects(synced) {
            return Err(ErrorCode::Unsupported);
        }
        let is_folder = open.contains(OpenFlags::DIRECTORY);
        if is_folder && open.intersects(OpenFlags::CREATE | OpenFlags::EXCLUSIVE | OpenFlags::TRUNCATE) {
            return Err(ErrorCode::Invalid);
        }
        let asks_to_write = flags.contains(DescriptorFlags::WRITE);
        let writes = asks_to_write || open.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE);
        if writes && perms == FsPerms::ReadOnly {
            return Err(ErrorCode::NotPermitted);
        }
        // One that asks for neither can at least be opened; reading it is refused later.
        let reads = flags.contains(DescriptorFlags::READ) || !asks_to_write;
        let mut mode = OpenMode::empty();
        mode.set(OpenMode::READ, reads);
        mode.set(OpenMode::WRITE, writes);
        let mut how = match (reads, writes) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        how |= OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        how.set(OFlags::CREATE, open.contains(OpenFlags::CREATE));
        how.set(OFlags::EXCL, open.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE));
        how.set(OFlags::TRUNC, open.contains(OpenFlags::TRUNCATE));
        how.set(OFlags::NOFOLLOW, !path.contains(PathFlags::SYMLINK_FOLLOW));
        Ok(How { flags: how, mode, is_folder })
    }
}

enum Found {
    File(File),
    Folder(File),
    /// A FIFO, a device or a socket.
    Other,
}

/// Opens a file within a folder, whatever links its path has.
fn open(folder: &impl AsFd, path: &str, flags: OFlags) -> Result<Found, Errno> {
    let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o666) } else { Mode::empty() };
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 1;
    let file = loop {
        match openat2(folder, path, flags, mode, within) {
            // Something on the way was renamed meanwhile.
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES_MAX => tries += 1,
            opened => break File::from(opened?),
        }
    };
    Ok(match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Found::File(file),
        FileType::Directory => Found::Folder(file),
        _ => Found::Other,
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, mkfifoat};

    use super::*;

    #[test]
    fn nothing_is_opened_but_files_and_folders_within() {
        let outside = tempfile::tempdir().unwrap();
        let at = outside.path().join("in");
        std::fs::create_dir_all(at.join("sub")).unwrap();
        std::fs::write(at.join("file"), "x").unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        mkfifoat(CWD, at.join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("fifo", at.join("to-fifo")).unwrap();
        std::os::unix::fs::symlink("../secret", at.join("out")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at.join("far")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap();
        let folder = File::open(&at).unwrap();
        let found = |path: &str, flags: OFlags| match open(&folder, path, flags | OFlags::NONBLOCK) {
            Ok(Found::File(_)) => "file".to_owned(),
            Ok(Found::Folder(_)) => "folder".to_owned(),
            Ok(Found::Other) => "other".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        for (path, expected) in [
            ("file", "file"),
            ("sub/../file", "file"),
            ("sub", "folder"),
            ("fifo", "other"),
            ("to-fifo", "other"),
            ("socket", &format!("{:?}", Errno::NXIO)),
            ("out", &format!("{:?}", Errno::XDEV)),
            ("far", &format!("{:?}", Errno::XDEV)),
            ("../secret", &format!("{:?}", Errno::XDEV)),
            ("none", &format!("{:?}", Errno::NOENT)),
        ] {
            assert_eq!(found(path, OFlags::RDONLY), expected, "{path}");
        }
        assert_eq!(found("fifo", OFlags::WRONLY), format!("{:?}", Errno::NXIO), "nobody reads it");
        assert_eq!(found("fifo", OFlags::RDWR), "other");
        assert_eq!(found("new", OFlags::WRONLY | OFlags::CREATE), "file");
    }
}
