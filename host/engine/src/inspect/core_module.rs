//! Says what a core module is: a program of WASI preview 1, or what would make it a task.

use wasmparser::{ExternalKind, Parser, Payload, TypeRef};
use wharf_core::bounds;

use crate::spec::problem::{Problem, cut, in_one_line};

/// The module of imports of WASI preview 1.
pub(crate) const PREVIEW_1: &str = "wasi_snapshot_preview1";
/// The function by which a program starts.
pub(crate) const START: &str = "_start";
/// The functions of WASI preview 1.
const FUNCTIONS: [&str; 46] = [
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];
/// Modules of imports by which JavaScript runs what Emscripten, wasm-bindgen, Go's `js/wasm` and others make.
const JAVASCRIPT: [&str; 8] =
    ["env", "a", "wbg", "gojs", "go", "rb-js-abi-host", "imports", "__wbindgen_placeholder__"];

/// The traits of a module that tell its kind.
#[derive(Default)]
struct Found {
    /// A module of imports that is not of WASI preview 1.
    foreign: Option<String>,
    /// A function that WASI preview 1 does not have.
    unknown: Option<String>,
    imports_functions: bool,
    imports_shared_memory: bool,
    exports_memory: bool,
    has_start: bool,
    has_initialize: bool,
    has_world: bool,
}

/// Looks at a core module.
///
/// # Errors
/// Why it is no program of WASI preview 1.
pub(crate) fn inspect(bytes: &[u8]) -> Result<(), Problem> {
    let found = Found::read(bytes);
    let not_packed = Problem::new("it is a core module, not a component").hint(
        "wrap it: `wharf pack FILE -o OUT.wasm`\nor build for a target whose output is a component, such as Rust's wasm32-wasip2",
    );
    if found.has_world {
        return Err(not_packed);
    }
    if found.imports_shared_memory {
        return Err(Problem::new("it imports a memory that is shared by threads, which plugins cannot use")
            .hint("build it without threads"));
    }
    if let Some(module) = found.foreign {
        let is_javascript = JAVASCRIPT.contains(&module.as_str()) || module.starts_with("./");
        if module == "wasi_unstable" {
            return Err(Problem::new("it is made for `wasi_unstable`, a version of WASI before preview 1")
                .hint("build it with a newer compiler, for WASI 0.2"));
        }
        return Err(Problem::new(format!("it is a core module that imports `{module}`")).hint(if is_javascript {
            "it is made to be run by JavaScript; build it for WASI 0.2, such as with Rust's target wasm32-wasip2"
        } else {
            "no host has that; build it for WASI 0.2, or give it a world: `wharf pack FILE --wit FOLDER -o OUT.wasm`"
        }));
    }
    if !found.has_start && found.has_initialize {
        return Err(Problem::new(
            "it is a library for WASI preview 1: it does not have a `main`, and its functions are without types",
        )
        .hint("build it as a program, or give it a world: `wharf pack FILE --wit FOLDER -o OUT.wasm`"));
    }
    if !found.has_start {
        return Err(not_packed);
    }
    if let Some(function) = found.unknown {
        return Err(Problem::new(format!("it imports `{PREVIEW_1}.{function}`, which WASI preview 1 does not have"))
            .hint("it is made for another runtime's own functions, such as sockets; build it without them"));
    }
    if found.imports_functions && !found.exports_memory {
        return Err(Problem::new("it is a program for WASI preview 1 that does not export its memory")
            .hint("export it under the name `memory`, as linkers do if they are not told otherwise"));
    }
    Ok(())
}

impl Found {
    fn read(bytes: &[u8]) -> Found {
        let mut found = Found::default();
        // Bytes that cannot be parsed end the pass: what was found until then says enough.
        for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
            match payload {
                Payload::ImportSection(section) => {
                    for import in section.into_imports().map_while(Result::ok) {
                        found.imports_functions |= matches!(import.ty, TypeRef::Func(_));
                        found.imports_shared_memory |= matches!(import.ty, TypeRef::Memory(memory) if memory.shared);
                        if import.module == PREVIEW_1 && !FUNCTIONS.contains(&import.name) && found.unknown.is_none() {
                            let mut name = in_one_line(import.name);
                            cut(&mut name, bounds::COMPONENT_NAME_BYTES_MAX);
                            found.unknown = Some(name);
                        }
                        if import.module != PREVIEW_1 && found.foreign.is_none() {
                            let mut module = in_one_line(import.module);
                            cut(&mut module, bounds::COMPONENT_NAME_BYTES_MAX);
                            found.foreign = Some(module);
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section.into_iter().map_while(Result::ok) {
                        found.has_start |= export.name == START && export.kind == ExternalKind::Func;
                        found.exports_memory |= export.name == "memory" && export.kind == ExternalKind::Memory;
                        found.has_initialize |= export.name == "_initialize";
                    }
                }
                Payload::CustomSection(section) => {
                    found.has_world |= section.name().starts_with("component-type");
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use wasmtime_wasi::WasiCtx;
    use wasmtime_wasi::p1::{self, WasiP1Ctx};

    use super::*;

    fn inspect(text: &str) -> Result<(), Problem> {
        super::inspect(&wat::parse_str(format!("(module {text})")).unwrap())
    }

    #[test]
    fn a_core_module_is_told_what_it_is_and_what_would_help() {
        let start = r#"(func (export "_start"))"#;
        let of_wasi = r#"(import "wasi_snapshot_preview1" "fd_write" (func))"#;
        let other = r#"(import "wasi_snapshot_preview1" "sock_open" (func))"#;
        for (text, what, hint) in [
            ("".to_owned(), "it is a core module, not a component", "wharf pack FILE"),
            (of_wasi.to_owned(), "it is a core module, not a component", "wharf pack FILE"),
            (format!("{of_wasi}{start}"), "does not export its memory", "as linkers do"),
            (format!("{other}{start}"), "imports `wasi_snapshot_preview1.sock_open`", "another runtime"),
            (r#"(import "env" "memory" (memory 1 1 shared))"#.to_owned(), "shared by threads", "without threads"),
            (r#"(import "env" "x" (func))"#.to_owned(), "imports `env`", "run by JavaScript"),
            (r#"(import "./app_bg.js" "x" (func))"#.to_owned(), "imports `./app_bg.js`", "run by JavaScript"),
            (r#"(import "mine" "x" (func))"#.to_owned(), "imports `mine`", "no host has that"),
            (r#"(import "wasi_unstable" "x" (func))"#.to_owned(), "`wasi_unstable`", "newer compiler"),
            (r#"(func (export "_initialize"))"#.to_owned(), "a library for WASI preview 1", "build it as a program"),
            (r#"(import "env" "x" (func))(@custom "component-type:x" "")"#.to_owned(), "not a component", "wharf pack"),
        ] {
            let problem = inspect(&text).unwrap_err();
            assert!(problem.what.contains(what) && problem.hint.contains(hint), "{text}: {problem}");
        }
        let memory = r#"(memory (export "memory") 1)"#;
        for text in [start.to_owned(), format!("{of_wasi}{start}{memory}")] {
            assert_eq!(inspect(&text), Ok(()), "{text}");
        }
    }

    #[test]
    fn the_functions_that_may_be_imported_are_those_that_are_linked() {
        let engine = wasmtime::Engine::default();
        let mut linker = wasmtime::Linker::new(&engine);
        p1::add_to_linker_async(&mut linker, |context: &mut WasiP1Ctx| context).unwrap();
        let mut store = wasmtime::Store::new(&engine, WasiCtx::builder().build_p1());
        let mut linked: Vec<String> = linker.iter(&mut store).map(|(_, name, _)| name.to_owned()).collect();
        linked.sort();
        assert_eq!(linked, FUNCTIONS);
    }
}
