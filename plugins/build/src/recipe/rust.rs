//! Rust: a package of the workspace in `plugins/`, for `wasm32-wasip2`, whose output is a component.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::Prepared;
use crate::{
    digest, folders,
    guest::Guest,
    toolchain::{self, TARGET, Toolchain},
};

/// What would make the output depend on who builds. Cargo passes its own variables on to what it runs, tests included.
const VARIABLES_OF_OTHERS: [&str; 6] = [
    "RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_INCREMENTAL",
];

pub(super) fn prepare<'a>(guest: &'a Guest, work: &'a Path) -> Result<Prepared<'a>> {
    let toolchain = toolchain::find()?;
    let identity = toolchain.identity.clone();
    let compile = move || {
        let output = compile(guest, &toolchain, work)?;
        fs::read(&output).with_context(|| format!("{} cannot be read, though cargo made it", output.display()))
    };
    Ok(Prepared { sources: digest::sources(guest)?, identity, compile: Box::new(compile) })
}

fn compile(guest: &Guest, toolchain: &Toolchain, work: &Path) -> Result<PathBuf> {
    // The sources must be there before their paths can be remapped.
    cargo(toolchain, work).args(["fetch", "--locked", "--target", TARGET]).run("fetch the guests' dependencies")?;
    let mut command = cargo(toolchain, work);
    command.env("CARGO_ENCODED_RUSTFLAGS", remapped_paths()?);
    command.args(["build", "--release", "--locked", "--target", TARGET, "--package", guest.package]);
    if let Some(feature) = guest.feature {
        command.args(["--features", feature]);
    }
    command.run(&format!("build the plugin {}", guest.name))?;
    Ok(work.join(TARGET).join("release").join(format!("{}.wasm", guest.package.replace('-', "_"))))
}

fn cargo(toolchain: &Toolchain, work: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(folders::plugins()).env("RUSTC", &toolchain.rustc).env("CARGO_TARGET_DIR", work);
    for name in VARIABLES_OF_OTHERS {
        command.env_remove(name);
    }
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PROFILE_")) {
        command.env_remove(name);
    }
    command
}

/// Flags that keep the machine's paths out of the panic messages and line tables of a component.
fn remapped_paths() -> Result<OsString> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let registries = home.context("there is no home directory; set CARGO_HOME")?.join("registry/src");
    let mut folders = vec![(folders::root().to_path_buf(), "/wharf")];
    // A registry's folder is named after where it was fetched from.
    for registry in fs::read_dir(&registries).into_iter().flatten().flatten() {
        folders.push((registry.path(), "/crates"));
    }
    let mut flags = OsString::new();
    for (from, to) in folders {
        if !flags.is_empty() {
            flags.push("\x1f");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

trait Run {
    fn run(&mut self, purpose: &str) -> Result<()>;
}

impl Run for Command {
    /// Cargo's own messages go to the terminal: a first build takes a minute, and its errors need no second telling.
    fn run(&mut self, purpose: &str) -> Result<()> {
        let status = self.status().with_context(|| format!("cargo does not start, so it cannot {purpose}"))?;
        if !status.success() {
            bail!("cargo could not {purpose}: see its messages above");
        }
        Ok(())
    }
}
