//! The workspace of a benchmark: a temporary folder with a plugin folder in it, and the address of the store.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use tempfile::TempDir;

use super::disk::file_system;
use super::report::BenchReport;

/// The plugin that the benchmarks run, whose tasks do nothing, wait or never end. Its source is in plugins/bench.
pub(super) const COMPONENT: &[u8] = include_bytes!("../../../../plugins/bench/bench.wasm");

/// The default parent folder. It is on a disk on most systems, while the usual folder for temporary files is often in memory.
const ON_DISK: &str = "/var/tmp";

#[derive(Debug, Args)]
pub(super) struct WorkspaceArgs {
    /// Job store: sqlite:FILE, postgres://… or memory: [default: a temporary SQLite file]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    #[command(flatten)]
    folder: DirArgs,
}

#[derive(Debug, Args)]
pub(super) struct DirArgs {
    /// Folder for temporary files [default: /var/tmp]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// A temporary folder, which is deleted on drop, and the address of the store.
#[derive(Debug)]
pub(super) struct Workspace {
    dir: TempDir,
    store: Option<String>,
}

impl WorkspaceArgs {
    pub(super) fn create(&self) -> anyhow::Result<Workspace> {
        Ok(Workspace { store: self.store.clone(), ..self.folder.create()? })
    }
}

impl DirArgs {
    pub(super) fn create(&self) -> anyhow::Result<Workspace> {
        let default = || if Path::new(ON_DISK).is_dir() { ON_DISK.into() } else { std::env::temp_dir() };
        let above = self.dir.clone().unwrap_or_else(default);
        let dir = tempfile::Builder::new().prefix("wharf-bench-").tempdir_in(&above);
        let dir =
            dir.with_context(|| format!("could not create a folder in {}; name another with --dir", above.display()))?;
        std::fs::create_dir(dir.path().join("plugins")).context("could not create the plugin folder")?;
        Ok(Workspace { dir, store: None })
    }
}

impl Workspace {
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn plugins(&self) -> PathBuf {
        self.path().join("plugins")
    }

    /// Adds or replaces a component in the plugin folder atomically.
    pub(super) fn put(&self, id: &str, component: &[u8]) -> anyhow::Result<()> {
        let (temporary, file) = (self.path().join("incoming"), self.plugins().join(format!("{id}.wasm")));
        let put = std::fs::write(&temporary, component).and_then(|()| std::fs::rename(&temporary, &file));
        put.with_context(|| format!("could not write {}", file.display()))
    }

    /// Returns the store that the user named, if any.
    pub(super) fn named_store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// Returns the address of the store.
    pub(super) fn store(&self) -> String {
        let file = || format!("sqlite:{}", self.path().join("wharf.db").display());
        self.store.clone().unwrap_or_else(file)
    }

    /// Adds the kind of the store to the report, and what "durable" means for it.
    pub(super) fn describe(&self, report: &mut BenchReport) {
        let (address, durability) = (self.store(), |text: &str| text.to_owned());
        let (kind, durability) = match address.split_once(':') {
            Some(("memory", _)) => ("memory", durability("none")),
            Some(("postgres" | "postgresql", _)) => {
                ("postgres", durability("as the server is set: fsync, synchronous_commit"))
            }
            _ => ("sqlite", durability("synchronous=FULL, write-ahead log; claims do not wait for the disk")),
        };
        report.with("store", kind);
        report.with("durability", durability);
        if kind == "sqlite" {
            let file = address.strip_prefix("sqlite:").unwrap_or(&address);
            let folder = Path::new(file).parent().filter(|folder| !folder.as_os_str().is_empty());
            report.with("file-system", file_system(folder.unwrap_or(Path::new("."))));
        }
    }
}
