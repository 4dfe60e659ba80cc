//! A compiler that can build for `wasm32-wasip2`: the machine's own, or one made for the purpose.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::folders;

pub(crate) const TARGET: &str = "wasm32-wasip2";

/// A mirror that does not answer must not hold up the way that works.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(90);

pub(crate) struct Toolchain {
    pub(crate) rustc: PathBuf,
    /// Two toolchains of the same identity make the same bytes of the same sources.
    pub(crate) identity: String,
}

/// Finds a toolchain, or makes one, which takes some minutes and is done once. The caller holds the lock.
pub(crate) fn find() -> Result<Toolchain> {
    let own = folders::target().join("wasm-toolchain");
    if let Some(found) = of_the_machine()?.or_else(|| made_of_debian(&own)) {
        return Ok(found);
    }
    eprintln!("plugins: this Rust has no {TARGET}; trying `rustup target add {TARGET}`");
    let rustup = match add_with_rustup() {
        Ok(()) => match of_the_machine()? {
            Some(found) => return Ok(found),
            None => format!("rustup added {TARGET}, but not to the toolchain in use"),
        },
        Err(e) => format!("{e:#}"),
    };
    eprintln!("plugins: {rustup}; making a toolchain of Debian's packages, once");
    let script = folders::plugins().join("build/debian-toolchain.sh");
    let made = Command::new("bash").arg(&script).arg(&own).status();
    if made.is_ok_and(|status| status.success())
        && let Some(found) = made_of_debian(&own)
    {
        return Ok(found);
    }
    bail!(
        "no toolchain for {TARGET}\n  rustup: {rustup}\n  Debian: {} did not succeed, for the reason above\n\
         To get one: `rustup target add {TARGET}` where rustup's server can be reached, or Debian 12 or later with its mirror.",
        script.display()
    )
}

/// The compiler on PATH, if it has a standard library for the target.
fn of_the_machine() -> Result<Option<Toolchain>> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let answer = Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let answer = answer.with_context(|| format!("{} does not start; install Rust with rustup", rustc.display()))?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
    if !answer.status.success() || !has_std(&libraries) {
        return Ok(None);
    }
    let identity = version(Path::new(&rustc));
    Ok(identity.map(|identity| Toolchain { rustc: rustc.into(), identity }))
}

fn has_std(libraries: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(libraries) else {
        return false;
    };
    entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
}

/// What `debian-toolchain.sh` left, if it is whole: its linkers are rustup's, and an update of rustup takes them away.
fn made_of_debian(prefix: &Path) -> Option<Toolchain> {
    let rustc = prefix.join("bin/rustc");
    let parts = fs::read_to_string(prefix.join("packages")).ok()?;
    let rustlib = prefix.join("usr/lib/rustlib");
    let linker = |name: &str| {
        let hosts = fs::read_dir(&rustlib).into_iter().flatten().flatten();
        hosts.into_iter().any(|host| host.path().join("bin").join(name).exists())
    };
    if !has_std(&rustlib.join(TARGET).join("lib")) || !linker("rust-lld") || !linker("wasm-component-ld") {
        return None;
    }
    let identity = format!("{}, {}", version(&rustc)?, parts.trim().replace('\n', ", "));
    Some(Toolchain { rustc, identity })
}

fn version(rustc: &Path) -> Option<String> {
    let answer = Command::new(rustc).arg("--version").output().ok().filter(|answer| answer.status.success())?;
    Some(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}

fn add_with_rustup() -> Result<()> {
    let mut command = Command::new("rustup");
    command.args(["target", "add", TARGET]).env("RUSTUP_MAX_RETRIES", "1").stdin(Stdio::null());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("rustup does not start")?;
    let end = Instant::now() + RUSTUP_TIMEOUT;
    let status = loop {
        match child.try_wait().context("rustup cannot be waited for")? {
            Some(status) => break status,
            None if Instant::now() < end => thread::sleep(Duration::from_millis(100)),
            None => {
                child.kill().and_then(|()| child.wait()).context("rustup cannot be stopped")?;
                bail!("`rustup target add {TARGET}` did not end within {} seconds", RUSTUP_TIMEOUT.as_secs());
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    // A few lines, which fit the pipe: reading them only now cannot have held rustup up.
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).context("rustup's message cannot be read")?;
    }
    bail!("`rustup target add {TARGET}` failed: {}", said.trim().lines().last().unwrap_or("it did not say why"))
}
