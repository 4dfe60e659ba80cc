//! Go: packages of the author's own module, which need nothing from elsewhere.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::{Resolve, WorldId};

const RUNTIME: &str = include_str!("../go/runtime.go");
const TYPES: &str = include_str!("../go/types.go");
/// Where the generator looks for what `go/` has.
const REMOTE: &str = "go.bytecodealliance.org/pkg/wit/";
/// As many as WIT allows in one tuple.
const TUPLE_MAX: usize = 16;

pub(super) fn generate(resolve: &mut Resolve, world: WorldId, out: &Path, files: &mut Files) -> Result<()> {
    let package = package_of(out)?;
    let options = wit_bindgen_go::Opts {
        // Whoever has gofmt on PATH should get the same files as others.
        format: wit_bindgen_go::Format::False,
        generate_stubs: true,
        pkg_name: Some(package.clone()),
        ..wit_bindgen_go::Opts::default()
    };
    let mut made = Files::default();
    options.build().generate(resolve, world, &mut made)?;
    for (name, bytes) in made.iter() {
        let text = std::str::from_utf8(bytes).context("the bindings are no text")?;
        if text.contains("witAsync") || text.contains("witTypes.Stream") || text.contains("witTypes.Future") {
            bail!("the world has async functions, streams or futures, for which Go's bindings are not made");
        }
        let text = text.replace(REMOTE, &format!("{package}/wit/"));
        files.push(name, if name.starts_with("exports/export_") { assignable(&text) } else { text }.as_bytes());
    }
    files.push("wit/runtime/runtime.go", RUNTIME.as_bytes());
    // A package with functions of the host's needs an assembly file, if an empty one.
    files.push("wit/runtime/imports.s", b"// The functions without a body are the host's.\n");
    files.push("wit/types/types.go", TYPES.as_bytes());
    files.push("wit/types/tuples.go", tuples().as_bytes());
    Ok(())
}

/// The Go package that `out` is: its place below the module's go.mod.
fn package_of(out: &Path) -> Result<String> {
    let out = std::path::absolute(out).with_context(|| format!("{} is no path", out.display()))?;
    for folder in out.ancestors().skip(1) {
        let Ok(text) = fs::read_to_string(folder.join("go.mod")) else { continue };
        let module = text.lines().find_map(|line| line.trim().strip_prefix("module "));
        let module = module.with_context(|| format!("{}/go.mod names no module", folder.display()))?;
        let below = out.strip_prefix(folder).context("an ancestor is no prefix")?;
        return Ok(format!("{}/{}", module.trim(), below.display()));
    }
    bail!("there is no go.mod above {}; `go mod init NAME` makes one", out.display())
}

/// Makes each function that a plugin exports a variable, so that the plugin can be one package of its author's.
fn assignable(stub: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in stub.lines() {
        if let Some(rest) = line.strip_prefix("func ")
            && let Some((name, signature)) = rest.split_once('(')
            && let Some(signature) = signature.strip_suffix('{')
        {
            let _ = writeln!(text, "// {name} is called by the host; the plugin's `init` says what it is.");
            let _ = writeln!(text, "var {name} func({signature}");
            inside = true;
        } else if inside {
            inside = line != "}";
        } else if !line.starts_with("//") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn tuples() -> String {
    let mut text = "package types\n".to_owned();
    for size in 1..=TUPLE_MAX {
        let parameters: Vec<_> = (0..size).map(|n| format!("T{n}")).collect();
        let _ = write!(text, "\ntype Tuple{size}[{} any] struct {{\n", parameters.join(", "));
        for n in 0..size {
            let _ = writeln!(text, "\tF{n} T{n}");
        }
        text.push_str("}\n");
    }
    text
}
