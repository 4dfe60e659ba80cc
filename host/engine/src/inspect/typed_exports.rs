//! The functions over plain data that a component exports: their types, and the names of the tasks that they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use wharf_core::bounds;
use wit_parser::{Function, FunctionKind, Handle, Resolve, TypeDefKind, TypeId, WorldItem, WorldKey};

use crate::inspect::host_interfaces::InterfaceName;
use crate::spec::problem::{Problem, Problems, cut, in_one_line};
use crate::spec::typed::types::{Case, DEPTH_MAX, Field, Int, Type, TypeRef};

type Items = wit_parser::IndexMap<WorldKey, WorldItem>;

/// A function that can be a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExportedFunction {
    /// The task's name within the plugin.
    pub(crate) task: String,
    /// The exported interface that it is of, with its version; `None` for a function of the world itself.
    pub(crate) interface: Option<String>,
    pub(crate) name: String,
    pub(crate) params: Vec<Field>,
    pub(crate) result: Option<TypeRef>,
    pub(crate) is_async: bool,
}

/// The functions that can be tasks, with their types, and those that cannot.
#[derive(Debug, Default)]
pub(crate) struct TypedExports {
    pub(crate) functions: Vec<ExportedFunction>,
    pub(crate) types: Vec<Type>,
    /// Why other functions are no tasks.
    pub(crate) left_out: Vec<Problem>,
}

const PLAIN: &str = "export a function that takes and returns plain data";
/// Maximum length of a task's name that a function's name may become.
const NAME_BYTES_MAX: usize = bounds::NAME_BYTES_MAX;

impl TypedExports {
    /// Finds the functions. `taken` is the name of a task that no function may have.
    pub(crate) fn find(resolve: &Resolve, exports: &Items, taken: Option<&str>) -> TypedExports {
        let mut left_out = Problems::default();
        let mut types = TypeBuilder { resolve, types: Types::default() };
        let mut functions = Vec::new();
        for (interface, function) in candidates(resolve, exports, &mut left_out) {
            let shown = full_name(interface.as_deref(), &function.name);
            if functions.len() == bounds::FUNCTIONS_MAX {
                left_out.add(|| {
                    let max = bounds::FUNCTIONS_MAX;
                    Problem::new(format!("`{shown}` does not become a task: it is beyond the first {max} functions"))
                });
                continue;
            }
            let name_bytes = function.name.len() + interface.as_ref().map_or(0, String::len);
            match types.function_or_nothing(function, name_bytes) {
                Err(why) => left_out.add(|| why.problem(&shown)),
                Ok((params, result)) => functions.push(ExportedFunction {
                    task: String::new(),
                    interface,
                    name: function.name.clone(),
                    params,
                    result,
                    is_async: function.kind.is_async(),
                }),
            }
        }
        let functions = named(functions, taken, &mut left_out);
        TypedExports { functions, types: types.types.all, left_out: left_out.into_bounded() }
    }
}

/// Returns the functions that might be tasks, each with its interface.
fn candidates<'r>(
    resolve: &'r Resolve,
    exports: &'r Items,
    left_out: &mut Problems,
) -> Vec<(Option<String>, &'r Function)> {
    let mut found = Vec::new();
    for (key, item) in exports {
        match item {
            WorldItem::Function(function) if is_init_of_javascript(function) => {}
            WorldItem::Function(function) => found.push((None, function)),
            WorldItem::Interface { id, .. } => {
                let name = resolve.name_world_key(key);
                let functions = &resolve.interfaces[*id].functions;
                // What WASI defines is called by hosts that are made for it.
                if is_init_of_python(&name, functions.keys()) || name.starts_with("wasi:") {
                    if InterfaceName::parse(&name).path == "wasi:http/incoming-handler" {
                        left_out.add(|| {
                            Problem::new("it answers HTTP requests (`wasi:http/incoming-handler`), which no job sends")
                                .hint(PLAIN)
                        });
                    }
                    continue;
                }
                found.extend(functions.values().map(|function| (Some(name.clone()), function)));
            }
            WorldItem::Type { .. } => {}
        }
    }
    found
}

/// Parameters of the function `init` that componentize-qjs adds for itself.
const INIT_OF_JAVASCRIPT: [&str; 3] = ["shim", "script", "disable-gc"];

/// Returns true for the function that componentize-qjs adds for itself. Its components do not name it among their producers.
fn is_init_of_javascript(function: &Function) -> bool {
    let has = |wanted: &&str| function.params.iter().any(|param| param.name == *wanted);
    function.name == "init" && INIT_OF_JAVASCRIPT.iter().all(has)
}

/// Returns true for the interface that componentize-py adds for itself: it has the function `init` alone.
fn is_init_of_python<'n>(interface: &str, mut functions: impl Iterator<Item = &'n String>) -> bool {
    interface == "exports" && functions.all(|name| name == "init")
}

/// Returns the name of a function for users: "package:name/interface@1.0.0#function".
fn full_name(interface: Option<&str>, function: &str) -> String {
    let name = match interface {
        Some(interface) => format!("{interface}#{function}"),
        None => function.to_owned(),
    };
    let mut name = in_one_line(&name);
    cut(&mut name, bounds::COMPONENT_NAME_BYTES_MAX);
    name
}

/// Gives each function its task's name: its own, or with its interface's before it where several have the same.
fn named(functions: Vec<ExportedFunction>, taken: Option<&str>, left_out: &mut Problems) -> Vec<ExportedFunction> {
    let short = |function: &ExportedFunction| function.name.to_ascii_lowercase();
    let long = |function: &ExportedFunction| {
        let path = function.interface.as_deref().unwrap_or("world");
        let path = path.split('@').next().unwrap_or_default();
        let interface = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        format!("{interface}.{}", short(function))
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in functions.iter().map(short).chain(taken.map(str::to_owned)) {
        *counts.entry(name).or_default() += 1;
    }
    let mut given: BTreeSet<String> = taken.map(str::to_owned).into_iter().collect();
    let mut all = Vec::new();
    for function in functions {
        let name = if counts[&short(&function)] == 1 { short(&function) } else { long(&function) };
        let shown = full_name(function.interface.as_deref(), &function.name);
        if name.len() > NAME_BYTES_MAX {
            left_out.add(|| {
                Problem::new(format!(
                    "`{shown}` does not become a task: its name has {} characters; the limit is {NAME_BYTES_MAX}",
                    name.len()
                ))
                .hint("give it a shorter name in its WIT")
            });
        } else if !given.insert(name.clone()) {
            left_out.add(|| {
                Problem::new(format!("`{shown}` does not become a task: another function is the task `{name}` already"))
                    .hint("give it another name in its WIT")
            });
        } else {
            all.push(ExportedFunction { task: name, ..function });
        }
    }
    all
}

/// Why a function is no task.
#[derive(Clone, Debug)]
enum NoTask {
    Resource(String),
    Stream(&'static str),
    Deep,
    Large,
    LargeAlone,
    Other(&'static str),
}

impl NoTask {
    fn problem(&self, function: &str) -> Problem {
        let (why, hint) = match self {
            NoTask::Resource(name) => (
                format!(
                    "`{function}` takes or returns the resource `{name}`, which a job's payload and result cannot hold"
                ),
                PLAIN,
            ),
            NoTask::Stream(kind) => {
                (format!("`{function}` has a {kind}, which a job's payload and result cannot hold"), PLAIN)
            }
            NoTask::Deep => (
                format!("the types of `{function}` nest too deep; the limit is {DEPTH_MAX} levels"),
                "make them flatter",
            ),
            NoTask::Large => (
                format!(
                    "the types of `{function}`, with those of the functions before it, are too large; the limits are {} types, {} members and cases, and {} KiB of their names",
                    bounds::TYPES_MAX,
                    bounds::TYPE_MEMBERS_MAX,
                    bounds::TYPE_NAMES_BYTES_MAX / 1024
                ),
                "make them smaller, or export fewer functions",
            ),
            NoTask::LargeAlone => (
                format!(
                    "the types of `{function}` are too large; the limit is {} types and names, counted as often as they are used",
                    bounds::TYPE_EXPANDED_MAX
                ),
                "make them smaller",
            ),
            NoTask::Other(what) => (format!("`{function}` has {what}, which this host does not support"), PLAIN),
        };
        Problem::new(why).hint(hint)
    }
}

/// The table of types so far.
#[derive(Default)]
struct Types {
    all: Vec<Type>,
    places: HashMap<Type, TypeRef>,
    /// The places of types with names, and how deep these types nest.
    known: HashMap<TypeId, (TypeRef, u32)>,
    /// Why other types cannot be part of a task, whatever was before them.
    refused: HashMap<TypeId, NoTask>,
    /// The number of types and names in each type, with those within it as often as they are used.
    expanded: Vec<u64>,
    members: usize,
    name_bytes: usize,
}

impl Types {
    /// Returns how many types and names a type is, with those within it as often as they are used.
    fn expanded_of(&self, ty: &Type) -> u64 {
        let of = |ty: &TypeRef| self.expanded[*ty as usize];
        let all = |types: &mut dyn Iterator<Item = &TypeRef>| types.map(of).fold(1_u64, u64::saturating_add);
        match ty {
            Type::Bool | Type::Int(_) | Type::F32 | Type::F64 | Type::Char | Type::String => 1,
            Type::List(ty) | Type::Option(ty) => of(ty).saturating_add(1),
            Type::Record(fields) => all(&mut fields.iter().map(|field| &field.ty)),
            Type::Tuple(types) => all(&mut types.iter()),
            Type::Variant(cases) => {
                all(&mut cases.iter().filter_map(|case| case.ty.as_ref())).saturating_add(cases.len() as u64)
            }
            Type::Enum(names) | Type::Flags(names) => 1 + names.len() as u64,
            Type::Result(ok, err) => all(&mut ok.iter().chain(err)),
        }
    }
}

struct TypeBuilder<'r> {
    resolve: &'r Resolve,
    types: Types,
}

/// A type and how deep it nests.
type Built = Result<(TypeRef, u32), NoTask>;

impl TypeBuilder<'_> {
    /// Adds the types of a function; none of them if it is no task, so that those after it have all the room.
    fn function_or_nothing(
        &mut self,
        function: &Function,
        name_bytes: usize,
    ) -> Result<(Vec<Field>, Option<TypeRef>), NoTask> {
        let (types, members, names) = (self.types.all.len(), self.types.members, self.types.name_bytes);
        let made = self.count(0, name_bytes).and_then(|()| self.function(function));
        if made.is_err() {
            let is_before = |place: &TypeRef| (*place as usize) < types;
            self.types.all.truncate(types);
            self.types.expanded.truncate(types);
            self.types.places.retain(|_, place| is_before(place));
            self.types.known.retain(|_, (place, _)| is_before(place));
            (self.types.members, self.types.name_bytes) = (members, names);
        }
        made
    }

    fn function(&mut self, function: &Function) -> Result<(Vec<Field>, Option<TypeRef>), NoTask> {
        match &function.kind {
            FunctionKind::Freestanding | FunctionKind::AsyncFreestanding => {}
            FunctionKind::Method(id)
            | FunctionKind::AsyncMethod(id)
            | FunctionKind::Static(id)
            | FunctionKind::AsyncStatic(id)
            | FunctionKind::Constructor(id) => return Err(self.resource(*id)),
        }
        let mut params = Vec::new();
        for param in &function.params {
            self.count(1, param.name.len())?;
            params.push(Field { name: param.name.clone(), ty: self.ty(&param.ty)?.0 });
        }
        let result = function.result.as_ref().map(|ty| self.ty(ty)).transpose()?;
        let all = params.iter().map(|param| param.ty).chain(result.map(|(ty, _)| ty));
        let expanded = all.fold(0_u64, |sum, ty| sum.saturating_add(self.types.expanded[ty as usize]));
        if expanded > bounds::TYPE_EXPANDED_MAX {
            return Err(NoTask::LargeAlone);
        }
        Ok((params, result.map(|(ty, _)| ty)))
    }

    fn resource(&self, id: TypeId) -> NoTask {
        let name = self.resolve.types[id].name.as_deref().unwrap_or("resource");
        let mut name = in_one_line(name);
        cut(&mut name, bounds::COMPONENT_NAME_BYTES_MAX);
        NoTask::Resource(name)
    }

    fn count(&mut self, members: usize, name_bytes: usize) -> Result<(), NoTask> {
        self.types.members += members;
        self.types.name_bytes += name_bytes;
        let fits =
            self.types.members <= bounds::TYPE_MEMBERS_MAX && self.types.name_bytes <= bounds::TYPE_NAMES_BYTES_MAX;
        if fits { Ok(()) } else { Err(NoTask::Large) }
    }

    fn names<'n>(&mut self, names: impl Iterator<Item = &'n String> + Clone) -> Result<(), NoTask> {
        self.count(names.clone().count(), names.map(String::len).sum())
    }

    fn add(&mut self, ty: Type, depth: u32) -> Built {
        if depth > DEPTH_MAX {
            return Err(NoTask::Deep);
        }
        if let Some(place) = self.types.places.get(&ty) {
            return Ok((*place, depth));
        }
        if self.types.all.len() == bounds::TYPES_MAX {
            return Err(NoTask::Large);
        }
        let expanded = self.types.expanded_of(&ty);
        if expanded > bounds::TYPE_EXPANDED_MAX {
            return Err(NoTask::LargeAlone);
        }
        let place = self.types.all.len() as TypeRef;
        self.types.places.insert(ty.clone(), place);
        self.types.expanded.push(expanded);
        self.types.all.push(ty);
        Ok((place, depth))
    }

    fn ty(&mut self, ty: &wit_parser::Type) -> Built {
        let plain = match ty {
            wit_parser::Type::Bool => Type::Bool,
            wit_parser::Type::U8 => Type::Int(Int::U8),
            wit_parser::Type::U16 => Type::Int(Int::U16),
            wit_parser::Type::U32 => Type::Int(Int::U32),
            wit_parser::Type::U64 => Type::Int(Int::U64),
            wit_parser::Type::S8 => Type::Int(Int::S8),
            wit_parser::Type::S16 => Type::Int(Int::S16),
            wit_parser::Type::S32 => Type::Int(Int::S32),
            wit_parser::Type::S64 => Type::Int(Int::S64),
            wit_parser::Type::F32 => Type::F32,
            wit_parser::Type::F64 => Type::F64,
            wit_parser::Type::Char => Type::Char,
            wit_parser::Type::String => Type::String,
            wit_parser::Type::ErrorContext => return Err(NoTask::Other("an error context")),
            wit_parser::Type::Id(id) => {
                if let Some(known) = self.types.known.get(id) {
                    return Ok(*known);
                }
                if let Some(why) = self.types.refused.get(id) {
                    return Err(why.clone());
                }
                let built = self.defined(*id).inspect_err(|why| {
                    // Only that of room depends on what was before.
                    if !matches!(why, NoTask::Large) {
                        self.types.refused.insert(*id, why.clone());
                    }
                })?;
                self.types.known.insert(*id, built);
                return Ok(built);
            }
        };
        self.add(plain, 1)
    }

    fn optional(&mut self, ty: Option<&wit_parser::Type>) -> Result<(Option<TypeRef>, u32), NoTask> {
        match ty {
            None => Ok((None, 0)),
            Some(ty) => self.ty(ty).map(|(ty, depth)| (Some(ty), depth)),
        }
    }

    fn defined(&mut self, id: TypeId) -> Built {
        let resolve = self.resolve;
        match &resolve.types[id].kind {
            TypeDefKind::Type(ty) => self.ty(ty),
            TypeDefKind::Record(record) => {
                self.names(record.fields.iter().map(|field| &field.name))?;
                let mut depth = 0;
                let mut fields = Vec::new();
                for field in &record.fields {
                    let (ty, its) = self.ty(&field.ty)?;
                    depth = depth.max(its);
                    fields.push(Field { name: field.name.clone(), ty });
                }
                self.add(Type::Record(fields), depth + 1)
            }
            TypeDefKind::Tuple(tuple) => {
                self.count(tuple.types.len(), 0)?;
                let mut depth = 0;
                let mut types = Vec::new();
                for ty in &tuple.types {
                    let (ty, its) = self.ty(ty)?;
                    depth = depth.max(its);
                    types.push(ty);
                }
                self.add(Type::Tuple(types), depth + 1)
            }
            TypeDefKind::Variant(variant) => {
                self.names(variant.cases.iter().map(|case| &case.name))?;
                let mut depth = 0;
                let mut cases = Vec::new();
                for case in &variant.cases {
                    let (ty, its) = self.optional(case.ty.as_ref())?;
                    depth = depth.max(its);
                    cases.push(Case { name: case.name.clone(), ty });
                }
                self.add(Type::Variant(cases), depth + 1)
            }
            TypeDefKind::Enum(cases) => {
                self.names(cases.cases.iter().map(|case| &case.name))?;
                self.add(Type::Enum(cases.cases.iter().map(|case| case.name.clone()).collect()), 1)
            }
            TypeDefKind::Flags(flags) => {
                self.names(flags.flags.iter().map(|flag| &flag.name))?;
                self.add(Type::Flags(flags.flags.iter().map(|flag| flag.name.clone()).collect()), 1)
            }
            TypeDefKind::List(ty) => {
                let (ty, depth) = self.ty(ty)?;
                self.add(Type::List(ty), depth + 1)
            }
            TypeDefKind::Option(ty) => {
                let (ty, depth) = self.ty(ty)?;
                self.add(Type::Option(ty), depth + 1)
            }
            TypeDefKind::Result(result) => {
                let (ok, ok_depth) = self.optional(result.ok.as_ref())?;
                let (err, err_depth) = self.optional(result.err.as_ref())?;
                self.add(Type::Result(ok, err), ok_depth.max(err_depth) + 1)
            }
            TypeDefKind::Resource => Err(self.resource(id)),
            TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) => Err(self.resource(*id)),
            TypeDefKind::Stream(_) => Err(NoTask::Stream("stream")),
            TypeDefKind::Future(_) => Err(NoTask::Stream("future")),
            TypeDefKind::Map(..) => Err(NoTask::Other("a map")),
            TypeDefKind::FixedLengthList(..) => Err(NoTask::Other("a list of fixed length")),
            TypeDefKind::Unknown => Err(NoTask::Other("a type of unknown kind")),
        }
    }
}

#[cfg(test)]
mod tests;
