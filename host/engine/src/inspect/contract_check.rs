//! Inspects a component without running it: compares it with what this host offers and calls. Reports every difference
//! at once, in the terms of the contract; wasmtime would stop at the first difference and name another. All but
//! [`is_wasm`] runs in the child process that reads untrusted files: see [`crate::compile::child_process`].

use wasmparser::{Validator, WasmFeatures};
use wharf_core::bounds;
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{Function, InterfaceId, Resolve, WorldItem, WorldKey};

use crate::inspect::core_module;
use crate::inspect::description::{self, CodeForm, Description};
use crate::inspect::host_interfaces::{self, CONTRACT, InterfaceName};
use crate::inspect::plain_exports::{self, PlainExports};
use crate::inspect::survey::{Survey, survey};
use crate::inspect::wit_signature;
use crate::spec::problem::{Problem, Problems, cut, in_one_line};
use crate::spec::toml_diagnostics::nearest;
use crate::wasmtime_config::EngineKind;

const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
const STREAMS: &str = "this version of the host does not support streams and futures of WASI 0.3";
const STREAMS_HINT: &str =
    "use `wharf:plugin/attempt.emit` to stream output, and WASI 0.2 for everything else; plain `async func` is fine";

const WORLDS: &str = "a plugin exports a world of the package `wharf:plugin`: `handler-plugin`, `subscriber-plugin`, or `plugin` for both";
const PLAIN_EXPORTS: &str =
    "export a function over plain data, a program (`wasi:cli/run`), or a world of `wharf:plugin`";
/// Maximum size of a function's type in a problem that shows two which differ, in bytes.
const TYPE_BYTES_MAX: usize = 800;

/// Describes a component, without its code. The description does not depend on the operator's settings.
pub(crate) fn inspect(bytes: &[u8]) -> Description {
    let refused = |problem| Description::refused(Problems::from(vec![problem]).into_bounded());
    let surveyed = match is_wasm(bytes).and_then(|()| survey(bytes)) {
        Ok(surveyed) => surveyed,
        Err(problem) => return refused(problem),
    };
    if bytes.get(4..8) == Some(&CORE_MODULE) {
        return inspect_module(bytes, surveyed);
    }
    let kind = match validate(bytes) {
        Ok(kind) => kind,
        Err(problem) => return refused(problem),
    };
    let notes = notes(&surveyed);
    match decode(bytes) {
        Ok(DecodedWasm::Component(resolve, world)) => {
            let (imports, exports) = (&resolve.worlds[world].imports, &resolve.worlds[world].exports);
            let mut problems = Problems::default();
            let found = ContractCheck { resolve: &resolve };
            let plain = PlainExports::find(&resolve, imports, exports);
            let has_contract = plain_exports::has_contract(&resolve, exports);
            if has_contract || (plain.is_empty() && plain.left_out.is_empty()) {
                found.exports(exports, &mut problems);
            } else if plain.is_empty() {
                problems.add(|| Problem::new("it exports nothing that can be a task").hint(PLAIN_EXPORTS));
                plain.left_out.iter().for_each(|problem| problems.add(|| problem.clone()));
            }
            let plain = (!has_contract && !plain.is_empty()).then_some(plain);
            found.imports(imports, &mut problems);
            if let Some(problem) = surveyed.bad_manifest {
                problems.add(|| problem);
            }
            let max = bounds::INSTANCES_MAX as u32;
            let count = surveyed.core_instances;
            if count > max {
                problems.add(|| {
                    Problem::new(format!("it has {count} core instances; the limit is {max}"))
                        .hint("link its modules into fewer before making the component")
                });
            }
            let names = |items: &Items| description::shown(items.keys().map(|key| resolve.name_world_key(key)));
            Description {
                kind,
                plain,
                manifest: surveyed.manifest,
                imports: names(imports),
                exports: names(exports),
                notes,
                producers: surveyed.producers,
                ..Description::refused(problems.into_bounded())
            }
        }
        Ok(DecodedWasm::WitPackage(..)) => refused(
            Problem::new("it is a WIT package, which describes components, not a component")
                .hint("build a component that implements it"),
        ),
        Err(error) => refused(unreadable(&error.to_string())),
    }
}

/// Returns a note for everything within it that does not work here.
fn notes(surveyed: &Survey) -> Vec<Problem> {
    let go_http = surveyed.has_go_http.then(|| {
        Problem::new(
            "it has Go's `net/http`, which opens sockets: these are always refused, so that each request fails",
        )
        .hint("send requests by `wasi:http`, with the bindings that `wharf bindings go` writes for it")
    });
    go_http.into_iter().collect()
}

/// Describes a core module: a program of WASI preview 1, or why it is no plugin.
fn inspect_module(bytes: &[u8], surveyed: Survey) -> Description {
    let mut problems = Problems::default();
    let found = core_module::inspect(bytes).and_then(|()| validate(bytes).map(|_| ()));
    let notes = notes(&surveyed);
    for problem in found.err().into_iter().chain(surveyed.bad_manifest) {
        problems.add(|| problem);
    }
    let named = |name: &str| vec![name.to_owned()];
    Description {
        form: CodeForm::Module,
        plain: Some(PlainExports::of_module()),
        notes,
        manifest: surveyed.manifest,
        imports: named(core_module::PREVIEW_1),
        exports: named(core_module::START),
        producers: surveyed.producers,
        ..Description::refused(problems.into_bounded())
    }
}

/// Checks the file's size and its first bytes, and reads no further.
///
/// # Errors
/// A problem that says what the file is, if it is neither a component nor a core module.
pub(crate) fn is_wasm(bytes: &[u8]) -> Result<(), Problem> {
    let max = bounds::COMPONENT_BYTES_MAX;
    if bytes.is_empty() {
        return Err(Problem::new("the file is empty"));
    }
    if bytes.len() as u64 > max {
        let size = bytesize::ByteSize(bytes.len() as u64).display().iec();
        return Err(Problem::new(format!(
            "the file is {size}; the limit is {}",
            bytesize::ByteSize(max).display().iec()
        ))
        .hint("strip its debug information, for example with `wasm-tools strip`"));
    }
    if bytes.starts_with(b"\x7fELF") {
        let what = "it is native code, such as a .cwasm file; only WebAssembly is accepted";
        return Err(Problem::new(what)
            .hint("use the component that it was made from; the host compiles it and caches the code"));
    }
    if !bytes.starts_with(b"\0asm") {
        let text = bytes.trim_ascii_start();
        if text.starts_with(b"(component") || text.starts_with(b"(module") || text.starts_with(b";;") {
            return Err(Problem::new("it is WebAssembly text, not a binary")
                .hint("convert it: `wasm-tools parse FILE -o OUT.wasm`"));
        }
        return Err(Problem::new("it is not WebAssembly: it does not start with the bytes 00 61 73 6d")
            .hint("build a component, for example with `wharf new`"));
    }
    match bytes.get(4..8).and_then(|version| <[u8; 4]>::try_from(version).ok()) {
        Some(COMPONENT | CORE_MODULE) => Ok(()),
        Some(other) => Err(Problem::new(format!("unknown WebAssembly version: {other:02x?}"))),
        None => Err(Problem::new("the file ends after its first bytes")),
    }
}

/// Validates a component. Returns which engine it needs.
///
/// # Errors
/// A problem, if it is valid for neither engine.
fn validate(bytes: &[u8]) -> Result<EngineKind, Problem> {
    // The features that `wasmtime_config` switches on.
    let plain = WasmFeatures::WASM3
        & !(WasmFeatures::GC_TYPES | WasmFeatures::EXCEPTIONS | WasmFeatures::THREADS | WasmFeatures::MEMORY64)
        | WasmFeatures::COMPONENT_MODEL;
    let plain = plain & !WasmFeatures::CM_ASYNC;
    if Validator::new_with_features(plain).validate_all(bytes).is_ok() {
        return Ok(EngineKind::Sync);
    }
    match Validator::new_with_features(plain | WasmFeatures::CM_ASYNC).validate_all(bytes) {
        Ok(_) => Ok(EngineKind::Async),
        Err(error) => {
            let mut problem = unreadable(error.message());
            problem.what = format!("{} (at byte {:#x})", problem.what, error.offset());
            Err(problem)
        }
    }
}

fn unreadable(message: &str) -> Problem {
    // It quotes names of the component.
    let message = &in_one_line(message);
    // Newer tools write these in a form that this version of wasmtime cannot read.
    if message.contains("for canonical function")
        || message.contains("more async builtins")
        || message.contains("async stackful")
    {
        return Problem::new(STREAMS).hint(STREAMS_HINT);
    }
    const OFF: [&str; 6] = ["not enabled", "must be enabled", "disabled", "disallowed", "support", "requires"];
    let switched_off = [
        ("threads", "threads and shared memory"),
        ("memory64", "64-bit memories"),
        ("gc", "garbage-collected types"),
        ("exceptions", "exceptions"),
    ];
    for (name, words) in switched_off {
        if message.contains(&format!("{name} ")) && OFF.iter().any(|part| message.contains(part)) {
            return Problem::new(format!("it uses {words}, which plugins cannot use: {message}"))
                .hint("build it without them");
        }
    }
    Problem::new(format!("it is not valid WebAssembly: {message}"))
        .hint("build it again; if it was copied, copy it again")
}

type Items = wit_parser::IndexMap<WorldKey, WorldItem>;

/// Compares a component's imports and exports with the contract.
struct ContractCheck<'a> {
    resolve: &'a Resolve,
}

impl ContractCheck<'_> {
    fn exports(&self, exports: &Items, problems: &mut Problems) {
        let found: Vec<(InterfaceName, InterfaceId)> = self.interfaces(exports);
        let mut missing = Vec::new();
        let called = CONTRACT.called();
        for wanted in called.iter().copied() {
            let name = CONTRACT.name(wanted);
            match found.iter().find(|(found, _)| found.is_compatible_with(&name)) {
                Some((_, id)) => self.compare("exports", &name.full(), *id, wanted, problems),
                None => missing.push(name),
            }
        }
        let (manifest, others): (Vec<&InterfaceName>, Vec<&InterfaceName>) =
            missing.iter().partition(|name| name.path == "wharf:plugin/manifest");
        for wanted in missing.iter() {
            if let Some((other, _)) = found.iter().find(|(name, _)| name.path == wanted.path) {
                problems.add(|| {
                    Problem::new(format!("it exports `{}`, but this host calls `{}`", other.full(), wanted.full()))
                        .hint("build it with the WIT files of this version of the host")
                });
            }
        }
        let is_absent = |wanted: &&InterfaceName| !found.iter().any(|(name, _)| name.path == wanted.path);
        for wanted in manifest.into_iter().filter(is_absent) {
            problems.add(|| Problem::new(format!("it does not export `{}`", wanted.full())).hint(WORLDS));
        }
        // One of the others is enough.
        if others.len() + 1 == called.len() && others.iter().all(is_absent) {
            let names: Vec<String> = others.iter().map(|name| format!("`{}`", name.full())).collect();
            problems.add(|| Problem::new(format!("it exports neither {}", names.join(" nor "))).hint(WORLDS));
        }
        if missing.len() == called.len() {
            let other = |path: &str| found.iter().any(|(name, _)| name.path == path);
            if other("wasi:cli/run") {
                problems.add(|| {
                    Problem::new("it is a program of another version of WASI than 0.2")
                        .hint("build it for WASI 0.2 (Rust: the target `wasm32-wasip2`)")
                });
            }
        }
    }

    fn imports(&self, imports: &Items, problems: &mut Problems) {
        let max = bounds::COMPONENT_NAMES_MAX;
        if imports.len() > max {
            let what = format!("it has {} imports; the limit is {max}", imports.len());
            problems.add(|| Problem::new(what).hint("import each interface once, in one version"));
        }
        let offers = host_interfaces::importable();
        let own = CONTRACT.offered();
        for (key, item) in imports {
            let text = self.resolve.name_world_key(key);
            let Some(interface) = host_interfaces::interface(item) else {
                if let WorldItem::Function(_) = item {
                    problems.add(|| {
                        Problem::new(format!("unknown import: function `{text}`"))
                            .hint("a plugin can import interfaces of `wharf:plugin` and of WASI 0.2")
                    });
                }
                continue;
            };
            let name = InterfaceName::parse(&text);
            if !offers.iter().any(|host_interface| host_interface.is_compatible_with(&name)) {
                problems.add(|| unknown_import(&name, &offers));
            } else if let Some(host_interface) =
                own.iter().copied().find(|id| CONTRACT.name(*id).is_compatible_with(&name))
            {
                self.compare("imports", &text, interface, host_interface, problems);
            }
        }
    }

    /// Compares an interface of the component with the interface of the same name in the contract.
    fn compare(&self, verb: &str, name: &str, theirs: InterfaceId, ours: InterfaceId, problems: &mut Problems) {
        let (theirs, ours) = (&self.resolve.interfaces[theirs].functions, &CONTRACT.resolve.interfaces[ours].functions);
        // An import may use less than is offered; an export must have every function that is called.
        let (needed, given) = if verb == "imports" { (theirs, ours) } else { (ours, theirs) };
        for function in needed.keys() {
            let (Some(_), Some(theirs), Some(ours)) = (given.get(function), theirs.get(function), ours.get(function))
            else {
                problems.add(|| {
                    let what = if verb == "imports" {
                        format!("unknown import: `{function}` of `{name}`")
                    } else {
                        format!("it exports `{name}` without the function `{function}`")
                    };
                    Problem::new(what).hint("build it with the WIT files of this version of the host")
                });
                continue;
            };
            if let Some(problem) = self.differs(verb, &format!("{name}#{function}"), theirs, ours) {
                problems.add(|| problem);
            }
        }
    }

    fn differs(&self, verb: &str, name: &str, theirs: &Function, ours: &Function) -> Option<Problem> {
        let (mut found, mut expected) =
            (wit_signature::function(self.resolve, theirs), wit_signature::function(&CONTRACT.resolve, ours));
        if found != expected {
            if wit_signature::has_stream(self.resolve, theirs) {
                return Some(Problem::new(format!("`{name}`: {STREAMS}")).hint(STREAMS_HINT));
            }
            cut(&mut found, TYPE_BYTES_MAX);
            cut(&mut expected, TYPE_BYTES_MAX);
            return Some(Problem::new(format!("it {verb} `{name}` with a different type")).hint(format!(
                "expected: {expected}\nfound:    {found}\nbuild it with the WIT files of this version of the host"
            )));
        }
        // All exports are called in the same way; an import that is `async` must be offered as `async`.
        if verb == "imports" && theirs.kind.is_async() && !ours.kind.is_async() {
            return Some(
                Problem::new(format!("it imports `{name}` as an `async func`, but it is a plain `func`"))
                    .hint("build it with the WIT files of this version of the host"),
            );
        }
        None
    }

    fn interfaces(&self, items: &Items) -> Vec<(InterfaceName, InterfaceId)> {
        items
            .iter()
            .filter_map(|(key, item)| {
                host_interfaces::interface(item).map(|id| (InterfaceName::parse(&self.resolve.name_world_key(key)), id))
            })
            .collect()
    }
}

fn unknown_import(name: &InterfaceName, offers: &[InterfaceName]) -> Problem {
    let problem = |what: String| Problem::new(what);
    if let Some(host_interface) = offers.iter().find(|host_interface| host_interface.path == name.path) {
        let hint = if name.version.starts_with("0.3") && name.path.starts_with("wasi:") {
            format!("{STREAMS}; build it for WASI 0.2")
        } else {
            "build it with the version that this host has".to_owned()
        };
        return problem(format!("it imports `{}`, but this host has `{}`", name.full(), host_interface.full()))
            .hint(hint);
    }
    if name.path.starts_with("wasi:") && name.version.starts_with("0.3") {
        return problem(format!("it imports `{}` of WASI 0.3, but this host has WASI 0.2", name.full()))
            .hint(STREAMS_HINT);
    }
    let near = nearest(&name.path, offers.iter().map(|host_interface| host_interface.path.as_str()));
    let hint = near.map_or_else(
        || "a plugin can import interfaces of `wharf:plugin` and of WASI 0.2".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    problem(format!("unknown import: `{}`", name.full())).hint(hint)
}
