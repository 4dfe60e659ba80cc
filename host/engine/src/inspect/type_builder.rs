//! The types of exported functions, in one table, and why a function cannot be a task.

use std::collections::HashMap;

use wharf_core::bounds;
use wit_parser::{Function, FunctionKind, Handle, IndexMap, Param, Resolve, TypeDefKind, TypeId, WorldItem, WorldKey};

use crate::inspect::resource_makers::{self, Factory, Maker, MakerResult};
use crate::spec::problem::{Problem, cut, in_one_line};
use crate::spec::typed::types::{Case, DEPTH_MAX, Field, Int, Type, TypeRef};

/// The hint for functions that cannot be tasks.
pub(super) const PLAIN: &str = "export a function that takes and returns plain data";

/// Why a function is no task.
#[derive(Clone, Debug)]
pub(super) enum NoTask {
    Resource(String),
    SameParameter(String),
    Stream(&'static str),
    Deep,
    Large,
    LargeAlone,
    Other(&'static str),
}

impl NoTask {
    pub(super) fn problem(&self, function: &str) -> Problem {
        let (why, hint) = match self {
            NoTask::Resource(name) => (
                format!(
                    "`{function}` takes or returns the resource `{name}`, which a job's payload and result cannot hold"
                ),
                PLAIN,
            ),
            NoTask::SameParameter(name) => (
                format!(
                    "`{function}` has a parameter `{}`, and so has the function that makes its resource",
                    in_one_line(name)
                ),
                "give one of them another name in its WIT",
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

pub(super) struct TypeBuilder<'r> {
    resolve: &'r Resolve,
    types: Types,
    /// The functions that make resources with methods.
    factories: HashMap<TypeId, Option<Factory<'r>>>,
}

/// The types of a function that can be a task.
pub(super) struct TypedFunction {
    pub(super) params: Vec<Field>,
    pub(super) result: Option<TypeRef>,
    pub(super) maker: Option<Maker>,
}

/// A type and how deep it nests.
type Built = Result<(TypeRef, u32), NoTask>;

impl<'r> TypeBuilder<'r> {
    pub(super) fn new(resolve: &'r Resolve, exports: &'r IndexMap<WorldKey, WorldItem>) -> TypeBuilder<'r> {
        TypeBuilder { resolve, types: Types::default(), factories: resource_makers::factories(resolve, exports) }
    }

    /// Returns true for the only function that makes a resource.
    pub(super) fn is_maker(&self, function: &Function) -> bool {
        matches!(&function.kind, FunctionKind::Constructor(id) | FunctionKind::Static(id)
            if matches!(self.factories.get(id), Some(Some(factory)) if factory.function.name == function.name))
    }

    pub(super) fn into_types(self) -> Vec<Type> {
        self.types.all
    }

    /// Adds the types of a function; none of them if it is no task, so that those after it have all the room.
    pub(super) fn function_or_nothing(
        &mut self,
        function: &Function,
        name_bytes: usize,
    ) -> Result<TypedFunction, NoTask> {
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

    fn function(&mut self, function: &Function) -> Result<TypedFunction, NoTask> {
        let (mut params, mut maker, mut own) = (Vec::new(), None, &function.params[..]);
        match &function.kind {
            FunctionKind::Freestanding | FunctionKind::AsyncFreestanding => {}
            FunctionKind::Method(id) => {
                let factory = self.factories.get(id).copied().flatten().ok_or_else(|| self.resource(*id))?;
                self.params(&factory.function.params, &mut params)?;
                maker = Some(self.maker(&factory, params.len())?);
                // Its first parameter is the resource.
                own = own.get(1..).unwrap_or_default();
            }
            FunctionKind::AsyncMethod(id)
            | FunctionKind::Static(id)
            | FunctionKind::AsyncStatic(id)
            | FunctionKind::Constructor(id) => return Err(self.resource(*id)),
        }
        self.params(own, &mut params)?;
        let result = function.result.as_ref().map(|ty| self.ty(ty)).transpose()?;
        let all = params.iter().map(|param| param.ty).chain(result.map(|(ty, _)| ty));
        let expanded = all.fold(0_u64, |sum, ty| sum.saturating_add(self.types.expanded[ty as usize]));
        if expanded > bounds::TYPE_EXPANDED_MAX {
            return Err(NoTask::LargeAlone);
        }
        Ok(TypedFunction { params, result: result.map(|(ty, _)| ty), maker })
    }

    fn params(&mut self, all: &[Param], params: &mut Vec<Field>) -> Result<(), NoTask> {
        for param in all {
            self.count(1, param.name.len())?;
            if params.iter().any(|known| known.name == param.name) {
                return Err(NoTask::SameParameter(param.name.clone()));
            }
            params.push(Field { name: param.name.clone(), ty: self.ty(&param.ty)?.0 });
        }
        Ok(())
    }

    fn maker(&mut self, factory: &Factory<'_>, params: usize) -> Result<Maker, NoTask> {
        let returns = match factory.error {
            None => MakerResult::Resource,
            Some(error) => MakerResult::ResourceOrError(self.optional(error)?.0),
        };
        // Each method of the resource has the name.
        self.count(0, factory.function.name.len())?;
        Ok(Maker { name: factory.function.name.clone(), params, returns })
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
