//! Where things are: the sources, and where what is made of them goes.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The workspace of the host, which holds `plugins/` and `wit/`.
pub(crate) fn root() -> &'static Path {
    let plugins = plugins();
    plugins.parent().unwrap_or(plugins)
}

/// The workspace of the guests.
pub(crate) fn plugins() -> &'static Path {
    let build = Path::new(env!("CARGO_MANIFEST_DIR"));
    build.parent().unwrap_or(build)
}

/// The target directory in use. A relative CARGO_TARGET_DIR means another place for each test's current directory,
/// so what counts is where cargo put the program that runs: it marks its directory with a CACHEDIR.TAG.
pub(crate) fn target() -> PathBuf {
    let given = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let marked = || {
        let program = env::current_exe().ok()?;
        program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).map(Path::to_path_buf)
    };
    given.or_else(marked).unwrap_or_else(|| root().join("target"))
}
