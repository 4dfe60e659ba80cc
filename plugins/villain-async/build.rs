//! Makes the contract of an async plugin from the contract itself: the same text, with `handle` an `async func`.
//! So the two can never differ in anything else.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let source = Path::new("../../wit");
    let Some(out) = env::var_os("OUT_DIR") else {
        return Err(io::Error::other("OUT_DIR is not set; cargo sets it"));
    };
    let copy = Path::new(&out).join("wit");
    fs::create_dir_all(&copy)?;
    let mut changed = 0;
    for entry in fs::read_dir(source)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wit") {
            continue;
        }
        println!("cargo::rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path)?;
        changed += text.matches("handle: func(").count();
        fs::write(
            copy.join(path.file_name().unwrap_or_default()),
            text.replace("handle: func(", "handle: async func("),
        )?;
    }
    match changed {
        1 => Ok(()),
        n => Err(io::Error::other(format!(
            "`handle: func(` occurs {n} times in wit/, not once; adapt villain-async/build.rs"
        ))),
    }
}
