//! `promtool`, Prometheus' own checker of metrics and of rules.
//!
//! If it is missing, it is taken out of Debian's package, without installing it: its service would start.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Prints the path of promtool, and fetches it into the folder `$1` if it is missing.
const PROGRAM: &str = r#"
set -eu
if command -v promtool; then exit; fi
mkdir -p "$1"; cd "$1"
exec 9>lock; flock 9
if [ ! -x promtool ]; then
    { apt-get download prometheus || { apt-get update && apt-get download prometheus; }
      dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --to-stdout ./usr/bin/promtool >new
      chmod +x new; mv new promtool; rm prometheus_*.deb; } >&2
fi
echo "$1/promtool"
"#;

/// Runs promtool with these arguments and this standard input.
#[track_caller]
pub(crate) fn promtool(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn program() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("promtool");
    let output = Command::new("sh").args(["-c", PROGRAM, "program"]).arg(cache).output().expect("sh runs");
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success() && !path.is_empty(),
        "promtool is missing: {}\ninstall it (Debian: apt-get install prometheus)",
        String::from_utf8_lossy(&output.stderr)
    );
    path.into()
}
