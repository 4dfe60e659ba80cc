//! What can be told of a file without running it: whether it is a component, and how it differs from what this host
//! offers and asks. Everything at once, in the words of the contract; wasmtime would stop at the first
//! difference and name another.

use wasmparser::{Instance, Parser, Payload, Validator, WasmFeatures};
use wharf_core::bounds;
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{Function, InterfaceId, Resolve, WorldItem, WorldKey};

use crate::grants::PluginSettings;
use crate::offer::{self, CONTRACT, Name};
use crate::pool::Kind;
use crate::problem::Problem;
use crate::toml_text::nearest;
use crate::wit_text;

/// What was found out of a file.
pub(crate) struct Inspected {
    pub(crate) kind: Kind,
    pub(crate) core_instances: u32,
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) notes: Vec<Problem>,
}

const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
const STREAMS: &str = "streams and futures of WASI 0.3 are not offered by this version of the host";
const STREAMS_HINT: &str =
    "use `wharf:plugin/attempt.emit` to stream output, and WASI 0.2 for everything else; plain `async func` is fine";

const WORLDS: &str = "a plugin exports a world of the package `wharf:plugin`: `handler-plugin`, `subscriber-plugin`, or `plugin` for both";

/// `id` is the plugin's, for the lines to paste.
pub(crate) fn inspect(bytes: &[u8], id: &str, settings: &PluginSettings) -> Inspected {
    let refused = |problem| Inspected {
        kind: Kind::Sync,
        core_instances: 0,
        imports: Vec::new(),
        exports: Vec::new(),
        problems: vec![problem],
        notes: Vec::new(),
    };
    if let Err(problem) = is_component(bytes) {
        return refused(problem);
    }
    let kind = match validate(bytes) {
        Ok(kind) => kind,
        Err(problem) => return refused(problem),
    };
    match decode(bytes) {
        Ok(DecodedWasm::Component(resolve, world)) => {
            let found = Found { resolve: &resolve, id, settings };
            let inspected = found.inspect(kind, &resolve.worlds[world].imports, &resolve.worlds[world].exports);
            let count = core_instances(bytes);
            let most = bounds::INSTANCES_MAX as u32;
            let mut problems = inspected.problems;
            if count > most {
                problems.push(
                    Problem::new(format!(
                        "it is made of {count} core instances; {most} is the most a sandbox may have"
                    ))
                    .hint("link its modules into fewer before they become a component"),
                );
            }
            Inspected { core_instances: count.min(most), problems, ..inspected }
        }
        Ok(DecodedWasm::WitPackage(..)) => refused(
            Problem::new("it is a WIT package, which describes components, not a component")
                .hint("build a component that implements it"),
        ),
        Err(error) => refused(unreadable(&error.to_string())),
    }
}

/// Looks at the file's first bytes.
fn is_component(bytes: &[u8]) -> Result<(), Problem> {
    let most = bounds::COMPONENT_BYTES_MAX;
    if bytes.is_empty() {
        return Err(Problem::new("the file is empty"));
    }
    if bytes.len() as u64 > most {
        let size = bytesize::ByteSize(bytes.len() as u64).display().iec();
        return Err(Problem::new(format!(
            "the file has {size}; {} is the most",
            bytesize::ByteSize(most).display().iec()
        ))
        .hint("strip its debug information, for example with `wasm-tools strip`"));
    }
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(Problem::new("it is compiled already (a .cwasm file): native code from outside is never run")
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
        Some(COMPONENT) => Ok(()),
        Some(CORE_MODULE) => Err(core_module()),
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

/// How many core instances a sandbox of it has. Components within may be instantiated more than once: with instances of
/// their own they count as all that a sandbox may have.
fn core_instances(bytes: &[u8]) -> u32 {
    let most = bounds::INSTANCES_MAX as u32;
    let (mut depth, mut count) = (0_u32, 0_u32);
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::InstanceSection(section) => {
                let made =
                    section.into_iter().filter(|instance| matches!(instance, Ok(Instance::Instantiate { .. }))).count();
                count = if depth > 1 && made > 0 {
                    count.max(most)
                } else {
                    count.saturating_add(u32::try_from(made).unwrap_or(u32::MAX))
                };
            }
            _ => {}
        }
    }
    count
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
    id: &'a str,
    settings: &'a PluginSettings,
}

impl Found<'_> {
    fn inspect(&self, kind: Kind, imports: &Items, exports: &Items) -> Inspected {
        let names = |items: &Items| items.keys().map(|key| self.resolve.name_world_key(key)).collect::<Vec<_>>();
        let mut problems = self.exports(exports);
        problems.extend(self.imports(imports));
        let imports = names(imports);
        let notes = self.notes(&imports);
        Inspected { kind, core_instances: 0, imports, exports: names(exports), problems, notes }
    }

    fn exports(&self, exports: &Items) -> Vec<Problem> {
        let mut problems = Vec::new();
        let found: Vec<(Name, InterfaceId)> = self.interfaces(exports);
        let mut missing = Vec::new();
        let called = CONTRACT.called();
        for wanted in called.iter().copied() {
            let name = CONTRACT.name(wanted);
            match found.iter().find(|(found, _)| found.fits(&name)) {
                Some((_, id)) => problems.extend(self.compare("exports", &name.full(), *id, wanted)),
                None => missing.push(name),
            }
        }
        let (manifest, others): (Vec<&Name>, Vec<&Name>) =
            missing.iter().partition(|name| name.path == "wharf:plugin/manifest");
        for wanted in missing.iter() {
            if let Some((other, _)) = found.iter().find(|(name, _)| name.path == wanted.path) {
                problems.push(
                    Problem::new(format!("it exports `{}`; this host calls `{}`", other.full(), wanted.full()))
                        .hint("build it with the WIT files of this version of the host"),
                );
            }
        }
        let is_absent = |wanted: &&Name| !found.iter().any(|(name, _)| name.path == wanted.path);
        for wanted in manifest.into_iter().filter(is_absent) {
            problems.push(Problem::new(format!("it does not export `{}`", wanted.full())).hint(WORLDS));
        }
        // Of the others one is enough.
        if others.len() + 1 == called.len() && others.iter().all(is_absent) {
            let names: Vec<String> = others.iter().map(|name| format!("`{}`", name.full())).collect();
            problems.push(Problem::new(format!("it exports neither {}", names.join(" nor "))).hint(WORLDS));
        }
        if missing.len() == called.len() {
            let other = |path: &str| found.iter().any(|(name, _)| name.path == path);
            if other("wasi:http/incoming-handler") {
                problems.push(Problem::new(
                    "it answers HTTP requests (`wasi:http/incoming-handler`): an HTTP server's component, not a plugin",
                ));
            } else if other("wasi:cli/run") {
                problems.push(
                    Problem::new("it is a command (`wasi:cli/run`), not a plugin").hint(
                        "build a library (Rust: crate-type = [\"cdylib\"]) that exports the world `handler-plugin`",
                    ),
                );
            }
        }
        problems
    }

    fn imports(&self, imports: &Items) -> Vec<Problem> {
        let mut problems = Vec::new();
        let offers = offer::importable();
        let own = CONTRACT.offered();
        for (key, item) in imports {
            let text = self.resolve.name_world_key(key);
            let Some(interface) = offer::interface(item) else {
                if let WorldItem::Function(_) = item {
                    problems.push(
                        Problem::new(format!("it imports a function `{text}`, which this host does not have"))
                            .hint("a plugin may import interfaces of `wharf:plugin` and of WASI 0.2"),
                    );
                }
                continue;
            };
            let name = Name::parse(&text);
            if !offers.iter().any(|offer| offer.fits(&name)) {
                problems.push(unknown_import(&name, &offers));
            } else if let Some(offer) = own.iter().copied().find(|id| CONTRACT.name(*id).fits(&name)) {
                problems.extend(self.compare("imports", &text, interface, offer));
                if offer == CONTRACT.kv && self.settings.kv_bytes_max().is_none() {
                    problems.push(
                        Problem::new(format!("it imports `{text}`, to keep values in the store, which is not granted"))
                            .hint(format!("to grant it, in wharf.toml:\n[plugins.{}]\nkv = true", self.id)),
                    );
                }
            }
        }
        problems
    }

    /// Compares what a component has under a name with what the contract has there.
    fn compare(&self, verb: &str, name: &str, theirs: InterfaceId, ours: InterfaceId) -> Vec<Problem> {
        let mut problems = Vec::new();
        let (theirs, ours) = (&self.resolve.interfaces[theirs].functions, &CONTRACT.resolve.interfaces[ours].functions);
        // An import may use less than is offered; an export must have all that is asked.
        let (needed, given) = if verb == "imports" { (theirs, ours) } else { (ours, theirs) };
        for function in needed.keys() {
            let (Some(_), Some(theirs), Some(ours)) = (given.get(function), theirs.get(function), ours.get(function))
            else {
                let what = if verb == "imports" {
                    format!("it imports `{function}` of `{name}`, which this host does not have")
                } else {
                    format!("it exports `{name}` without its function `{function}`")
                };
                problems.push(Problem::new(what).hint("build it with the WIT files of this version of the host"));
                continue;
            };
            problems.extend(self.differs(verb, &format!("{name}#{function}"), theirs, ours));
        }
        problems
    }

    fn differs(&self, verb: &str, name: &str, theirs: &Function, ours: &Function) -> Option<Problem> {
        let (found, expected) = (wit_text::function(self.resolve, theirs), wit_text::function(&CONTRACT.resolve, ours));
        if found != expected {
            if wit_text::has_stream(self.resolve, theirs) {
                return Some(Problem::new(format!("`{name}`: {STREAMS}")).hint(STREAMS_HINT));
            }
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
                offer::interface(item).map(|id| (Name::parse(&self.resolve.name_world_key(key)), id))
            })
            .collect()
    }

    /// What it can use only with a grant, and the lines that grant it.
    fn notes(&self, imports: &[String]) -> Vec<Problem> {
        let uses = |path: &str| imports.iter().any(|name| Name::parse(name).path == path);
        let table = format!("[plugins.{}]", self.id);
        let mut notes = Vec::new();
        if uses("wasi:http/outgoing-handler") && self.settings.http.is_empty() {
            notes.push(
                Problem::new("it can send HTTP requests; none is granted, so that each is refused")
                    .hint(format!("to grant some, in wharf.toml:\n{table}\nhttp = [\"https://api.example.com\"]")),
            );
        }
        if uses("wasi:config/store") && self.settings.config.is_empty() {
            notes.push(
                Problem::new("it reads values of `wasi:config`; none is given")
                    .hint(format!("to give some, in wharf.toml:\n{table}\nconfig = {{ name = \"value\" }}")),
            );
        }
        if uses("wasi:filesystem/preopens") && self.settings.dirs.is_empty() {
            notes.push(Problem::new("it may read files, as most standard libraries can; no folder is granted").hint(
                format!(
                    "if it needs one, in wharf.toml:\n{table}\ndirs = [{{ host = \"./data\", guest = \"/data\" }}]"
                ),
            ));
        }
        if uses("wasi:sockets/tcp-create-socket") || uses("wasi:sockets/udp-create-socket") {
            notes.push(
                Problem::new("it can open sockets; these are always refused")
                    .hint("use wasi:http to reach the network"),
            );
        }
        notes
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
