//! Holds the direct way against wasmtime's dynamic values, with components that give back what they are given, of random types.
//! What is given back is also what was given.

use std::fmt::Write as _;
use std::sync::Arc;

use fastrand::Rng;
use serde_json::Value;
use wasmtime::component::{Component, Instance, Linker};
use wasmtime::{Engine, Store};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::answer::Answer;
use super::direct::DirectCall;
use super::dynamic;
use crate::inspect::plain_exports::PlainExports;
use crate::spec::function_task::FunctionTask;
use crate::spec::typed::check::CheckMode;
use crate::spec::typed::signature::Signature;
use crate::spec::typed::types::{Int, Type, TypeRef, TypeTable};
use crate::wasmtime_config::{self, EngineKind};

/// Random types in WIT, with definitions of those that need a name.
struct Wit {
    rng: Rng,
    definitions: String,
    count: usize,
}

impl Wit {
    fn new(seed: u64) -> Wit {
        Wit { rng: Rng::with_seed(seed), definitions: String::new(), count: 0 }
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("type-{}", self.count)
    }

    fn ty(&mut self, depth: u32) -> String {
        const PLAIN: [&str; 14] =
            ["bool", "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "f32", "f64", "char", "string", "list<u8>"];
        let kind = if depth == 0 { 0 } else { self.rng.u32(0..10) };
        let parts = |wit: &mut Wit| (0..wit.rng.usize(1..4)).map(|_| wit.ty(depth - 1)).collect::<Vec<_>>();
        match kind {
            0 | 1 => self.rng.choice(PLAIN).unwrap_or("u8").to_owned(),
            2 => format!("list<{}>", self.ty(depth - 1)),
            3 => format!("option<{}>", self.ty(depth - 1)),
            4 => format!("tuple<{}>", parts(self).join(", ")),
            5 => {
                let forms = ["result", "result<{}>", "result<_, {}>"];
                let form = self.rng.choice(forms).unwrap_or("result");
                let part = self.ty(depth - 1);
                form.replace("{}", &part)
            }
            6 => {
                let fields: Vec<String> =
                    parts(self).iter().enumerate().map(|(n, ty)| format!("field-{n}: {ty}")).collect();
                let name = self.name();
                let _ = writeln!(self.definitions, "record {name} {{ {} }}", fields.join(", "));
                name
            }
            7 => {
                let mut cases: Vec<String> =
                    parts(self).iter().enumerate().map(|(n, ty)| format!("case-{n}({ty})")).collect();
                cases.push("empty".to_owned());
                let name = self.name();
                let _ = writeln!(self.definitions, "variant {name} {{ {} }}", cases.join(", "));
                name
            }
            8 => {
                let count = self.rng.choice([1, 3, 300]).unwrap_or(3);
                let names: Vec<String> = (0..count).map(|n| format!("name-{n}")).collect();
                let name = self.name();
                let _ = writeln!(self.definitions, "enum {name} {{ {} }}", names.join(", "));
                name
            }
            _ => {
                let count = self.rng.choice([1, 8, 9, 17, 32]).unwrap_or(8);
                let names: Vec<String> = (0..count).map(|n| format!("flag-{n}")).collect();
                let name = self.name();
                let _ = writeln!(self.definitions, "flags {name} {{ {} }}", names.join(", "));
                name
            }
        }
    }
}

/// The core types of parameters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Core {
    I32,
    I64,
    F32,
    F64,
}

impl Core {
    fn as_str(self) -> &'static str {
        match self {
            Core::I32 => "i32",
            Core::I64 => "i64",
            Core::F32 => "f32",
            Core::F64 => "f64",
        }
    }

    fn joined(self, other: Core) -> Core {
        match (self, other) {
            (one, other) if one == other => one,
            (Core::I32 | Core::F32, Core::I32 | Core::F32) => Core::I32,
            _ => Core::I64,
        }
    }
}

/// Writes a core module that stores its parameters where a result is.
struct Module<'t> {
    table: &'t TypeTable,
    text: String,
}

impl Module<'_> {
    fn cores(&self, ty: TypeRef) -> Vec<Core> {
        let variant = |payloads: Vec<TypeRef>| {
            let mut all = vec![Core::I32];
            for payload in payloads {
                for (place, core) in self.cores(payload).into_iter().enumerate() {
                    match all.get_mut(place + 1) {
                        Some(before) => *before = before.joined(core),
                        None => all.push(core),
                    }
                }
            }
            all
        };
        match self.table.ty(ty) {
            Type::Int(Int::U64 | Int::S64) => vec![Core::I64],
            Type::F32 => vec![Core::F32],
            Type::F64 => vec![Core::F64],
            Type::String | Type::List(_) => vec![Core::I32; 2],
            Type::Record(fields) => fields.iter().flat_map(|field| self.cores(field.ty)).collect(),
            Type::Tuple(types) => types.iter().flat_map(|ty| self.cores(*ty)).collect(),
            Type::Option(some) => variant(vec![*some]),
            Type::Result(ok, err) => variant([*ok, *err].into_iter().flatten().collect()),
            Type::Variant(cases) => variant(cases.iter().filter_map(|case| case.ty).collect()),
            _ => vec![Core::I32],
        }
    }

    /// Stores the parameters from `first` on, which have the types `have`, as a value at an address.
    fn store(&mut self, ty: TypeRef, address: u32, first: usize, have: &[Core]) {
        let layout = self.table.layout(ty);
        let payloads: Vec<Option<TypeRef>> = match self.table.ty(ty) {
            Type::Record(_) | Type::Tuple(_) => {
                let types: Vec<TypeRef> = match self.table.ty(ty) {
                    Type::Record(fields) => fields.iter().map(|field| field.ty).collect(),
                    Type::Tuple(types) => types.clone(),
                    _ => Vec::new(),
                };
                let places = self.table.members(ty).to_vec();
                for (ty, place) in types.into_iter().zip(places) {
                    let flat = place.flat as usize;
                    self.store(ty, address + place.offset, first + flat, &have[flat..]);
                }
                return;
            }
            Type::Option(some) => vec![None, Some(*some)],
            Type::Result(ok, err) => vec![*ok, *err],
            Type::Variant(cases) => cases.iter().map(|case| case.ty).collect(),
            _ => {
                for (place, core) in self.cores(ty).into_iter().enumerate() {
                    let size = if matches!(self.table.ty(ty), Type::String | Type::List(_)) { 4 } else { layout.size };
                    let width = match (core, size) {
                        (Core::I32, 1) => "8",
                        (Core::I32, 2) => "16",
                        _ => "",
                    };
                    let value = coerced(first + place, have[place], core);
                    let at = address + 4 * place as u32;
                    let _ = writeln!(self.text, "({}.store{width} (i32.const {at}) {value})", core.as_str());
                }
                return;
            }
        };
        let width = match layout.tag {
            1 => "8",
            2 => "16",
            _ => "",
        };
        let tag = coerced(first, have[0], Core::I32);
        let _ = writeln!(self.text, "(i32.store{width} (i32.const {address}) {tag})");
        for (case, payload) in payloads.into_iter().enumerate() {
            if let Some(payload) = payload {
                let _ = writeln!(self.text, "(if (i32.eq {tag} (i32.const {case})) (then");
                self.store(payload, address + layout.payload, first + 1, &have[1..]);
                self.text.push_str("))\n");
            }
        }
    }
}

fn coerced(local: usize, have: Core, want: Core) -> String {
    let value = format!("(local.get {local})");
    match (have, want) {
        (Core::I64, Core::I32) => format!("(i32.wrap_i64 {value})"),
        (Core::I32, Core::F32) => format!("(f32.reinterpret_i32 {value})"),
        (Core::I64, Core::F32) => format!("(f32.reinterpret_i32 (i32.wrap_i64 {value}))"),
        (Core::I64, Core::F64) => format!("(f64.reinterpret_i64 {value})"),
        _ => value,
    }
}

/// Makes a component with a function that returns its parameter; `None` if that is too many core values for a direct call.
fn component(wit: &str) -> Option<(Vec<u8>, Signature)> {
    let make = |text: &str| {
        let mut module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let mut resolve = wit_parser_newer::Resolve::default();
        let package = resolve.push_source("echo.wit", wit).unwrap_or_else(|error| panic!("{error:#}: {wit}"));
        let world = resolve.select_world(&[package], None).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
        ComponentEncoder::default().module(&module).unwrap().encode()
    };
    // The types of the WIT itself, as a component has them that imports nothing.
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_source("echo.wit", wit).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let world = &resolve.worlds[world];
    let exports = PlainExports::find(&resolve, &world.imports, &world.exports);
    let (_, signature) = exports.signatures().remove(0);
    if signature.flat_params() > 16 {
        return None;
    }
    let text = echo(&signature, "echo");
    let bytes = make(&text).unwrap_or_else(|error| panic!("{error:#}: {wit}\n{text}"));
    Some((bytes, signature))
}

const HEAD: &str = r#"(memory (export "memory") 40)
    (global $free (mut i32) (i32.const 65536))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
        (global.get $free)
        (global.set $free (i32.add (global.get $free) (local.get 3))))"#;

fn echo(signature: &Signature, export: &str) -> String {
    let ty = signature.params[0].ty;
    let mut module = Module { table: &signature.table, text: String::new() };
    let cores = module.cores(ty);
    let params: String = cores.iter().map(|core| format!(" (param {})", core.as_str())).collect();
    if let ([core], 1) = (&cores[..], signature.flat_result()) {
        let core = core.as_str();
        return format!("(module {HEAD} (func (export \"{export}\"){params} (result {core}) (local.get 0)))");
    }
    module.store(ty, 1024, 0, &cores);
    let body = module.text;
    format!("(module {HEAD} (func (export \"{export}\"){params} (result i32) {body} (i32.const 1024)))")
}

/// Writes a random value of a type, as the direct way writes it.
fn value(rng: &mut Rng, table: &TypeTable, ty: TypeRef) -> Value {
    let text = |rng: &mut Rng| -> String {
        let count = rng.usize(0..6);
        (0..count).map(|_| rng.choice(['a', '"', '\\', '\n', 'é', '😀', '\u{1}', '/']).unwrap_or('a')).collect()
    };
    match table.ty(ty) {
        Type::Bool => rng.bool().into(),
        Type::Int(int) => {
            let (min, max) = int.range();
            let number = match rng.u32(0..4) {
                0 => min,
                1 => max,
                2 => 0,
                _ => min + i128::from(rng.u64(..)) % (max - min + 1),
            };
            u64::try_from(number).map_or_else(|_| (number as i64).into(), Value::from)
        }
        Type::F32 => {
            let number = rng.choice([0.0, -0.5, 1e30, f32::MIN_POSITIVE, 0.1]).unwrap_or(0.0);
            serde_json::from_str(&format!("{number:?}")).unwrap()
        }
        Type::F64 => rng.choice([0.0, -0.5, 1e300, 5e-324, 0.1]).unwrap_or(0.0).into(),
        Type::Char => rng.choice(["a", "é", "😀", "\"", "\u{0}"]).unwrap_or("a").into(),
        Type::String => text(rng).into(),
        Type::List(element) if table.is_bytes(*element) => {
            rng.choice(["", "AA==", "/+8=", "AAEC"]).unwrap_or("").into()
        }
        Type::List(element) => (0..rng.usize(0..4)).map(|_| value(rng, table, *element)).collect(),
        Type::Tuple(types) => types.iter().map(|ty| value(rng, table, *ty)).collect(),
        Type::Record(fields) => fields.iter().map(|field| (field.name.clone(), value(rng, table, field.ty))).collect(),
        Type::Enum(names) => rng.choice(names).cloned().unwrap_or_default().into(),
        Type::Flags(names) => names.iter().filter(|_| rng.bool()).cloned().collect(),
        Type::Option(_) if rng.bool() => Value::Null,
        Type::Option(some) if table.may_be_null(*some) => serde_json::json!({ "some": value(rng, table, *some) }),
        Type::Option(some) => value(rng, table, *some),
        Type::Variant(cases) => {
            let case = &cases[rng.usize(0..cases.len())];
            match case.ty {
                Some(ty) => serde_json::json!({ "tag": case.name, "val": value(rng, table, ty) }),
                None => serde_json::json!({ "tag": case.name }),
            }
        }
        Type::Result(ok, err) => {
            let (name, ty) = if rng.bool() { ("ok", ok) } else { ("err", err) };
            serde_json::json!({ name: ty.map_or(Value::Null, |ty| value(rng, table, ty)) })
        }
    }
}

struct Called {
    engine: Engine,
    pre: wasmtime::component::InstancePre<()>,
    index: wasmtime::component::ComponentExportIndex,
    task: Arc<FunctionTask>,
}

impl Called {
    fn new(engine: &Engine, bytes: &[u8], signature: Signature) -> Called {
        let component = Component::new(engine, bytes).unwrap();
        let index = component.get_export(None, "echo").unwrap().1;
        let pre = Linker::new(engine).instantiate_pre(&component).unwrap();
        Called { engine: engine.clone(), pre, index, task: Arc::new(FunctionTask::new(signature, false)) }
    }

    async fn instance(&self) -> (Store<()>, Instance) {
        let mut store = Store::new(&self.engine, ());
        store.set_epoch_deadline(1_000_000);
        let instance = self.pre.instantiate_async(&mut store).await.unwrap();
        (store, instance)
    }

    /// Calls it in both ways, and returns the one result.
    async fn both(&self, payload: &str) -> Answer {
        let signature = &self.task.signature;
        let plan = signature
            .check(payload.as_bytes(), CheckMode { notes_lengths: true, ..CheckMode::default() })
            .unwrap_or_else(|bad| panic!("{bad}: {payload}"));
        let (mut store, instance) = self.instance().await;
        let function = instance.get_func(&mut store, self.index).unwrap();
        let call =
            DirectCall { task: Arc::clone(&self.task), payload: payload.as_bytes().into(), lengths: plan.lengths };
        let direct = call.run(&mut store, function, (signature.flat_params(), signature.flat_result())).await.unwrap();
        let (mut store, instance) = self.instance().await;
        let function = instance.get_func(&mut store, self.index).unwrap();
        let dynamic = dynamic::call(&mut store, function, signature, payload.as_bytes()).await.unwrap();
        assert_eq!(direct, dynamic, "{payload}");
        direct
    }
}

/// Returns the JSON of an answer. The cases of a `result` are told apart by the answer itself, and bytes are no JSON.
fn json(answer: Answer, signature: &Signature) -> Value {
    let bytes_or_json = |bytes: Vec<u8>, ty: Option<TypeRef>| {
        let is_bytes = ty.is_some_and(
            |ty| matches!(signature.table.ty(ty), Type::List(element) if signature.table.is_bytes(*element)),
        );
        if is_bytes {
            use base64::Engine as _;
            return Value::from(base64::engine::general_purpose::STANDARD.encode(bytes));
        }
        serde_json::from_slice(&bytes).unwrap()
    };
    match (signature.result.map(|ty| signature.table.ty(ty)), answer) {
        (Some(Type::Result(ok, _)), Answer::Ok(bytes)) => serde_json::json!({ "ok": bytes_or_json(bytes, *ok) }),
        // An error is JSON, whatever its type.
        (Some(Type::Result(..)), Answer::Err(bytes)) => {
            serde_json::json!({ "err": serde_json::from_slice::<Value>(&bytes).unwrap() })
        }
        (_, Answer::Ok(bytes) | Answer::Err(bytes)) => bytes_or_json(bytes, signature.result),
    }
}

async fn round_trips(seeds: std::ops::Range<u64>, wrap: impl Fn(&str) -> String) {
    let engine = wasmtime_config::compiler(EngineKind::Sync).unwrap();
    let mut tried = 0;
    for seed in seeds {
        let mut wit = Wit::new(seed);
        let ty = wit.ty(3);
        let ty = wrap(&ty);
        let definitions = &wit.definitions;
        let text = format!(
            "package a:b;\ninterface types {{ {definitions} type whole = {ty}; }}\n\
             world echo {{ use types.{{whole}}; export echo: func(v: whole) -> whole; }}"
        );
        let Some((bytes, signature)) = component(&text) else { continue };
        tried += 1;
        let called = Called::new(&engine, &bytes, signature);
        let signature = &called.task.signature;
        for _ in 0..10 {
            let given = value(&mut wit.rng, &signature.table, signature.params[0].ty);
            let payload = serde_json::json!({ "v": given }).to_string();
            let back = json(called.both(&payload).await, signature);
            assert_eq!(back, given, "seed {seed}: {text}");
        }
    }
    assert!(tried > 20, "{tried}");
}

#[tokio::test]
async fn values_in_memory_come_back_as_they_were() {
    round_trips(0..60, |ty| format!("list<{ty}>")).await;
}

#[tokio::test]
async fn values_as_parameters_come_back_as_they_were() {
    round_trips(1000..1080, str::to_owned).await;
}
