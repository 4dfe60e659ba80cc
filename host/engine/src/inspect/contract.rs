//! What can be told of a component without running it: how it differs from what this host offers and asks. Everything at
//! once, in the words of the contract; wasmtime would stop at the first difference and name another.
//! All but [`is_wasm`] runs in the process that reads strangers' files: see [`crate::compile::child`].

use wasmparser::{Validator, WasmFeatures};
use wharf_core::bounds;
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{Function, InterfaceId, Resolve, WorldItem, WorldKey};

use crate::inspect::description::{self, Description};
use crate::inspect::host_interfaces::{self, CONTRACT, Name};
use crate::inspect::survey::survey;
use crate::inspect::wit_signature;
use crate::spec::problem::{Problem, Problems, cut};
use crate::spec::toml_diagnostics::nearest;
use crate::wasmtime_config::Kind;

const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
const STREAMS: &str = "streams and futures of WASI 0.3 are not offered by this version of the host";
const STREAMS_HINT: &str =
    "use `wharf:plugin/attempt.emit` to stream output, and WASI 0.2 for everything else; plain `async func` is fine";

const WORLDS: &str = "a plugin exports a world of the package `wharf:plugin`: `handler-plugin`, `subscriber-plugin`, or `plugin` for both";
/// Of a function's type, where two are shown that differ.
const TYPE_BYTES_MAX: usize = 800;

/// Describes a component, without its code. What depends on the operator's settings is not in it.
pub(crate) fn inspect(bytes: &[u8]) -> Description {
    let refused = |problem| Description::refused(Problems::from(vec![problem]).told());
    let surveyed = match is_wasm(bytes).and_then(|()| survey(bytes)) {
        Ok(surveyed) => surveyed,
        Err(problem) => return refused(problem),
    };
    if bytes.get(4..8) == Some(&CORE_MODULE) {
        return Description { makers: surveyed.makers, ..refused(core_module()) };
    }
    let kind = match validate(bytes) {
        Ok(kind) => kind,
        Err(problem) => return refused(problem),
    };
    match decode(bytes) {
        Ok(DecodedWasm::Component(resolve, world)) => {
            let (imports, exports) = (&resolve.worlds[world].imports, &resolve.worlds[world].exports);
            let mut problems = Problems::default();
            let found = Found { resolve: &resolve };
            found.exports(exports, &mut problems);
            found.imports(imports, &mut problems);
            let max = bounds::INSTANCES_MAX as u32;
            let count = surveyed.core_instances;
            if count > max {
                problems.add(|| {
                    Problem::new(format!("it is made of {count} core instances; {max} is the most a sandbox may have"))
                        .hint("link its modules into fewer before they become a component")
                });
            }
            let names = |items: &Items| description::shown(items.keys().map(|key| resolve.name_world_key(key)));
            Description {
                kind,
                core_instances: count.min(max),
                imports: names(imports),
                exports: names(exports),
                makers: surveyed.makers,
                ..Description::refused(problems.told())
            }
        }
        Ok(DecodedWasm::WitPackage(..)) => refused(
            Problem::new("it is a WIT package, which describes components, not a component")
                .hint("build a component that implements it"),
        ),
        Err(error) => refused(unreadable(&error.to_string())),
    }
}

/// Looks at the file's size and at its first bytes, and reads no further.
///
/// # Errors
/// What it is, if it is neither a component nor a core module.
pub(crate) fn is_wasm(bytes: &[u8]) -> Result<(), Problem> {
    let max = bounds::COMPONENT_BYTES_MAX;
    if bytes.is_empty() {
        return Err(Problem::new("the file is empty"));
    }
    if bytes.len() as u64 > max {
        let size = bytesize::ByteSize(bytes.len() as u64).display().iec();
        return Err(Problem::new(format!(
            "the file has {size}; {} is the most",
            bytesize::ByteSize(max).display().iec()
        ))
        .hint("strip its debug information, for example with `wasm-tools strip`"));
    }
    if bytes.starts_with(b"\x7fELF") {
        let what = "it is native code, as a .cwasm file is: code from outside is only taken as WebAssembly";
        return Err(Problem::new(what)
            .hint("give the component that it was made from; the host compiles it and keeps what it made"));
    }
    if !bytes.starts_with(b"\0asm") {
        let text = bytes.trim_ascii_start();
        if text.starts_with(b"(component") || text.starts_with(b"(module") || text.starts_with(b";;") {
            return Err(Problem::new("it is WebAssembly as text, not as binary")
                .hint("make it binary: `wasm-tools parse FILE -o OUT.wasm`"));
        }
        return Err(Problem::new("it is not WebAssembly: it does not begin with the bytes 00 61 73 6d")
            .hint("build a component, for example with `wharf new`"));
    }
    match bytes.get(4..8).and_then(|version| <[u8; 4]>::try_from(version).ok()) {
        Some(COMPONENT | CORE_MODULE) => Ok(()),
        Some(other) => {
            Err(Problem::new(format!("it is WebAssembly of a version that this host does not know: {other:02x?}")))
        }
        None => Err(Problem::new("the file is cut off after its first bytes")),
    }
}

/// The commonest slip: what a compiler made is not wrapped yet.
fn core_module() -> Problem {
    Problem::new("it is a core module, not a component").hint(
        "wrap it: `wharf pack FILE -o OUT.wasm`\nor build for a target whose output is a component, such as Rust's wasm32-wasip2",
    )
}

/// Which engine it needs, if any takes it.
fn validate(bytes: &[u8]) -> Result<Kind, Problem> {
    // As `pool` sets wasmtime up.
    let plain = WasmFeatures::WASM3
        & !(WasmFeatures::GC_TYPES | WasmFeatures::EXCEPTIONS | WasmFeatures::THREADS | WasmFeatures::MEMORY64)
        | WasmFeatures::COMPONENT_MODEL;
    let plain = plain & !WasmFeatures::CM_ASYNC;
    if Validator::new_with_features(plain).validate_all(bytes).is_ok() {
        return Ok(Kind::Sync);
    }
    match Validator::new_with_features(plain | WasmFeatures::CM_ASYNC).validate_all(bytes) {
        Ok(_) => Ok(Kind::Async),
        Err(error) => Err(unreadable(error.message()).at_byte(error.offset())),
    }
}

fn unreadable(message: &str) -> Problem {
    // Newer tools write these in a form that this line of wasmtime cannot read.
    if message.contains("for canonical function")
        || message.contains("more async builtins")
        || message.contains("async stackful")
    {
        return Problem::new(STREAMS).hint(STREAMS_HINT);
    }
    let switched_off = [
        ("threads", "threads and shared memory"),
        ("memory64", "64-bit memories"),
        ("gc", "garbage-collected types"),
        ("exceptions", "exceptions"),
    ];
    for (name, words) in switched_off {
        if message.contains(&format!("{name} "))
            && (message.contains("not enabled") || message.contains("support") || message.contains("requires"))
        {
            return Problem::new(format!("it uses {words}, which plugins may not use: {message}"))
                .hint("build it without");
        }
    }
    Problem::new(format!("it is not valid WebAssembly: {message}"))
        .hint("build it again; if it was copied, copy it again")
}

impl Problem {
    fn at_byte(mut self, offset: usize) -> Problem {
        self.what = format!("{} (at byte {offset:#x})", self.what);
        self
    }
}

type Items = wit_parser::IndexMap<WorldKey, WorldItem>;

/// A component's own contract.
struct Found<'a> {
    resolve: &'a Resolve,
}

impl Found<'_> {
    fn exports(&self, exports: &Items, problems: &mut Problems) {
        let found: Vec<(Name, InterfaceId)> = self.interfaces(exports);
        let mut missing = Vec::new();
        let called = CONTRACT.called();
        for wanted in called.iter().copied() {
            let name = CONTRACT.name(wanted);
            match found.iter().find(|(found, _)| found.fits(&name)) {
                Some((_, id)) => self.compare("exports", &name.full(), *id, wanted, problems),
                None => missing.push(name),
            }
        }
        let (manifest, others): (Vec<&Name>, Vec<&Name>) =
            missing.iter().partition(|name| name.path == "wharf:plugin/manifest");
        for wanted in missing.iter() {
            if let Some((other, _)) = found.iter().find(|(name, _)| name.path == wanted.path) {
                problems.add(|| {
                    Problem::new(format!("it exports `{}`; this host calls `{}`", other.full(), wanted.full()))
                        .hint("build it with the WIT files of this version of the host")
                });
            }
        }
        let is_absent = |wanted: &&Name| !found.iter().any(|(name, _)| name.path == wanted.path);
        for wanted in manifest.into_iter().filter(is_absent) {
            problems.add(|| Problem::new(format!("it does not export `{}`", wanted.full())).hint(WORLDS));
        }
        // Of the others one is enough.
        if others.len() + 1 == called.len() && others.iter().all(is_absent) {
            let names: Vec<String> = others.iter().map(|name| format!("`{}`", name.full())).collect();
            problems.add(|| Problem::new(format!("it exports neither {}", names.join(" nor "))).hint(WORLDS));
        }
        if missing.len() == called.len() {
            let other = |path: &str| found.iter().any(|(name, _)| name.path == path);
            if other("wasi:http/incoming-handler") {
                problems.add(|| {
                    Problem::new(
                        "it answers HTTP requests (`wasi:http/incoming-handler`): an HTTP server's component, not a plugin",
                    )
                });
            } else if other("wasi:cli/run") {
                problems.add(|| {
                    Problem::new("it is a command (`wasi:cli/run`), not a plugin").hint(
                        "build a library (Rust: crate-type = [\"cdylib\"]) that exports the world `handler-plugin`",
                    )
                });
            }
        }
    }

    fn imports(&self, imports: &Items, problems: &mut Problems) {
        let max = bounds::COMPONENT_NAMES_MAX;
        if imports.len() > max {
            let what = format!("it has {} imports; {max} is the most", imports.len());
            problems.add(|| Problem::new(what).hint("import each interface once, in one version"));
        }
        let offers = host_interfaces::importable();
        let own = CONTRACT.offered();
        for (key, item) in imports {
            let text = self.resolve.name_world_key(key);
            let Some(interface) = host_interfaces::interface(item) else {
                if let WorldItem::Function(_) = item {
                    problems.add(|| {
                        Problem::new(format!("it imports a function `{text}`, which this host does not have"))
                            .hint("a plugin may import interfaces of `wharf:plugin` and of WASI 0.2")
                    });
                }
                continue;
            };
            let name = Name::parse(&text);
            if !offers.iter().any(|offer| offer.fits(&name)) {
                problems.add(|| unknown_import(&name, &offers));
            } else if let Some(offer) = own.iter().copied().find(|id| CONTRACT.name(*id).fits(&name)) {
                self.compare("imports", &text, interface, offer, problems);
            }
        }
    }

    /// Compares what a component has under a name with what the contract has there.
    fn compare(&self, verb: &str, name: &str, theirs: InterfaceId, ours: InterfaceId, problems: &mut Problems) {
        let (theirs, ours) = (&self.resolve.interfaces[theirs].functions, &CONTRACT.resolve.interfaces[ours].functions);
        // An import may use less than is offered; an export must have all that is asked.
        let (needed, given) = if verb == "imports" { (theirs, ours) } else { (ours, theirs) };
        for function in needed.keys() {
            let (Some(_), Some(theirs), Some(ours)) = (given.get(function), theirs.get(function), ours.get(function))
            else {
                problems.add(|| {
                    let what = if verb == "imports" {
                        format!("it imports `{function}` of `{name}`, which this host does not have")
                    } else {
                        format!("it exports `{name}` without its function `{function}`")
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
            return Some(Problem::new(format!("it {verb} `{name}` with another type")).hint(format!(
                "expected: {expected}\nfound:    {found}\nbuild it with the WIT files of this version of the host"
            )));
        }
        // Exports are called alike; what a component imports as `async` can only be offered as such.
        if verb == "imports" && theirs.kind.is_async() && !ours.kind.is_async() {
            return Some(
                Problem::new(format!("it imports `{name}` as an `async func`, and it is a plain `func`"))
                    .hint("build it with the WIT files of this version of the host"),
            );
        }
        None
    }

    fn interfaces(&self, items: &Items) -> Vec<(Name, InterfaceId)> {
        items
            .iter()
            .filter_map(|(key, item)| {
                host_interfaces::interface(item).map(|id| (Name::parse(&self.resolve.name_world_key(key)), id))
            })
            .collect()
    }
}

fn unknown_import(name: &Name, offers: &[Name]) -> Problem {
    let problem = |what: String| Problem::new(what);
    if let Some(offer) = offers.iter().find(|offer| offer.path == name.path) {
        let hint = if name.version.starts_with("0.3") && name.path.starts_with("wasi:") {
            format!("{STREAMS}; build it for WASI 0.2")
        } else {
            "build it with the version that this host has".to_owned()
        };
        return problem(format!("it imports `{}`; this host has `{}`", name.full(), offer.full())).hint(hint);
    }
    if name.path.starts_with("wasi:") && name.version.starts_with("0.3") {
        return problem(format!("it imports `{}` of WASI 0.3; this host has WASI 0.2", name.full())).hint(STREAMS_HINT);
    }
    let near = nearest(&name.path, offers.iter().map(|offer| offer.path.as_str()));
    let hint = near.map_or_else(
        || "a plugin may import interfaces of `wharf:plugin` and of WASI 0.2".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    problem(format!("it imports `{}`, which this host does not have", name.full())).hint(hint)
}
