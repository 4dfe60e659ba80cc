//! Says what a core module is, and what would make it a task.

use wasmparser::{Parser, Payload};
use wharf_core::bounds;

use crate::spec::problem::{Problem, cut, in_one_line};

const PREVIEW_1: &str = "wasi_snapshot_preview1";
/// Modules of imports by which JavaScript runs what Emscripten, wasm-bindgen, Go's `js/wasm` and others make.
const JAVASCRIPT: [&str; 8] =
    ["env", "a", "wbg", "gojs", "go", "rb-js-abi-host", "imports", "__wbindgen_placeholder__"];

/// The traits of a module that tell its kind.
#[derive(Default)]
struct Found {
    /// A module of imports that is not of WASI preview 1.
    foreign: Option<String>,
    has_start: bool,
    has_initialize: bool,
    has_world: bool,
    is_go: bool,
}

/// Returns why a core module is no plugin.
pub(crate) fn problem(bytes: &[u8]) -> Problem {
    let found = Found::read(bytes);
    let not_packed = Problem::new("it is a core module, not a component").hint(
        "wrap it: `wharf pack FILE -o OUT.wasm`\nor build for a target whose output is a component, such as Rust's wasm32-wasip2",
    );
    if found.has_world {
        return not_packed;
    }
    if let Some(module) = found.foreign {
        let is_javascript = JAVASCRIPT.contains(&module.as_str()) || module.starts_with("./");
        if module == "wasi_unstable" {
            return Problem::new("it is made for `wasi_unstable`, a version of WASI before preview 1")
                .hint("build it with a newer compiler, for WASI 0.2");
        }
        return Problem::new(format!("it is a core module that imports `{module}`")).hint(if is_javascript {
            "it is made to be run by JavaScript; build it for WASI 0.2, such as with Rust's target wasm32-wasip2"
        } else {
            "no host has that; build it for WASI 0.2, or give it a world: `wharf pack FILE --wit FOLDER -o OUT.wasm`"
        });
    }
    if found.has_start && found.is_go {
        return Problem::new("it is a program for WASI preview 1, made by Go").hint(
            "this host runs programs of WASI 0.2, and behind an adapter Go's break when their heap grows; \
             make a plugin of it: `wharf new NAME --language go`",
        );
    }
    if found.has_start {
        return Problem::new("it is a program for WASI preview 1, and this host runs those of WASI 0.2").hint(
            "make a component of it: `wharf pack FILE -o OUT.wasm`\nor build it for WASI 0.2 (Rust: wasm32-wasip2)",
        );
    }
    if found.has_initialize {
        return Problem::new(
            "it is a library for WASI preview 1: it does not have a `main`, and its functions are without types",
        )
        .hint("build it as a program, or give it a world: `wharf pack FILE --wit FOLDER -o OUT.wasm`");
    }
    not_packed
}

impl Found {
    fn read(bytes: &[u8]) -> Found {
        let mut found = Found::default();
        // Bytes that cannot be parsed end the pass: what was found until then says enough.
        for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
            match payload {
                Payload::ImportSection(section) => {
                    for import in section.into_imports().map_while(Result::ok) {
                        if import.module != PREVIEW_1 && found.foreign.is_none() {
                            let mut module = in_one_line(import.module);
                            cut(&mut module, bounds::COMPONENT_NAME_BYTES_MAX);
                            found.foreign = Some(module);
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section.into_iter().map_while(Result::ok) {
                        found.has_start |= export.name == "_start";
                        found.has_initialize |= export.name == "_initialize";
                    }
                }
                Payload::CustomSection(section) => {
                    found.has_world |= section.name().starts_with("component-type");
                    found.is_go |= section.name() == "go:buildid";
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_module_is_told_what_it_is_and_what_would_help() {
        let start = r#"(func (export "_start"))"#;
        let of_wasi = r#"(import "wasi_snapshot_preview1" "fd_write" (func))"#;
        for (text, what, hint) in [
            ("".to_owned(), "it is a core module, not a component", "wharf pack FILE"),
            (of_wasi.to_owned(), "it is a core module, not a component", "wharf pack FILE"),
            (format!("{of_wasi}{start}"), "it is a program for WASI preview 1", "wharf pack FILE -o OUT.wasm"),
            (format!(r#"{start}(@custom "go:buildid" "x")"#), "made by Go", "--language go"),
            (r#"(import "env" "x" (func))"#.to_owned(), "imports `env`", "run by JavaScript"),
            (r#"(import "./app_bg.js" "x" (func))"#.to_owned(), "imports `./app_bg.js`", "run by JavaScript"),
            (r#"(import "mine" "x" (func))"#.to_owned(), "imports `mine`", "no host has that"),
            (r#"(import "wasi_unstable" "x" (func))"#.to_owned(), "`wasi_unstable`", "newer compiler"),
            (r#"(func (export "_initialize"))"#.to_owned(), "a library for WASI preview 1", "build it as a program"),
            (r#"(import "env" "x" (func))(@custom "component-type:x" "")"#.to_owned(), "not a component", "wharf pack"),
        ] {
            let problem = problem(&wat::parse_str(format!("(module {text})")).unwrap());
            assert!(problem.what.contains(what) && problem.hint.contains(hint), "{text}: {problem}");
        }
    }
}
