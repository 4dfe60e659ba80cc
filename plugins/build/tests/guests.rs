//! The guests' own tests, which run on the host's machine: what they do with real input, without a sandbox around them.

use std::{env, path::Path, process::Command};

#[test]
fn thumbnail_passes_its_own_tests() {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(guests).args(["test", "--quiet", "--locked", "--package", "thumbnail"]);
    // A target directory of their own: this process runs while cargo may hold the other.
    cargo.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests"));
    let ended = cargo.status().expect("cargo, which runs this test, is there to be called");
    assert!(ended.success(), "see the messages above");
}
