//! Symbolic links that lead elsewhere in one step, as releases and mounted secrets do.

use std::fs::rename;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Makes a link at `at`, or lets the one that is there lead to `target` at once.
pub(crate) fn link(target: impl AsRef<Path>, at: &Path) {
    let new = at.with_file_name(".link.new");
    symlink(target, &new).expect("a link");
    rename(new, at).expect("moved on");
}
