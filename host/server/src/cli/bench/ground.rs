//! Where a bench stands: a temporary folder with a plugin folder in it, and the store.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use tempfile::TempDir;

use super::disk::file_system;
use super::report::Report;

/// The plugin that does nothing, waits or never ends; its sources are in plugins/bench.
pub(super) const COMPONENT: &[u8] = include_bytes!("../../../../../plugins/bench/bench.wasm");

/// On most systems a disk; the usual folder for temporary files is often memory.
const ON_DISK: &str = "/var/tmp";

#[derive(Debug, Args)]
pub(super) struct Where {
    /// Where jobs are kept: sqlite:FILE, postgres://… or memory: [default: a temporary SQLite file]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Debug, Args)]
pub(super) struct Folder {
    /// Where temporary files go [default: /var/tmp]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Gone when dropped.
#[derive(Debug)]
pub(super) struct Ground {
    dir: TempDir,
    store: Option<String>,
}

impl Where {
    pub(super) fn ground(&self) -> anyhow::Result<Ground> {
        Ok(Ground { store: self.store.clone(), ..self.folder.ground()? })
    }
}

impl Folder {
    pub(super) fn ground(&self) -> anyhow::Result<Ground> {
        let usual = || if Path::new(ON_DISK).is_dir() { ON_DISK.into() } else { std::env::temp_dir() };
        let above = self.dir.clone().unwrap_or_else(usual);
        let dir = tempfile::Builder::new().prefix("wharf-bench-").tempdir_in(&above);
        let dir =
            dir.with_context(|| format!("could not make a folder in {}; name another with --dir", above.display()))?;
        std::fs::create_dir(dir.path().join("plugins")).context("could not make a plugin folder")?;
        Ok(Ground { dir, store: None })
    }
}

impl Ground {
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn plugins(&self) -> PathBuf {
        self.path().join("plugins")
    }

    /// Puts a component into the plugin folder, as one change.
    pub(super) fn put(&self, id: &str, component: &[u8]) -> anyhow::Result<()> {
        let (unseen, file) = (self.path().join("coming"), self.plugins().join(format!("{id}.wasm")));
        let put = std::fs::write(&unseen, component).and_then(|()| std::fs::rename(&unseen, &file));
        put.with_context(|| format!("could not write {}", file.display()))
    }

    /// The store that was named.
    pub(super) fn given_store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// The address of the store.
    pub(super) fn store(&self) -> String {
        let file = || format!("sqlite:{}", self.path().join("wharf.db").display());
        self.store.clone().unwrap_or_else(file)
    }

    /// Says in the report what the store is, and what "durable" means there.
    pub(super) fn tell(&self, report: &mut Report) {
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
