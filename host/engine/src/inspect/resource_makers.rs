//! Resources that one function makes: each method of such a resource can be a task, which makes a resource, calls the method and drops
//! the resource.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use wit_parser::{Function, FunctionKind, Handle, IndexMap, Resolve, Type, TypeDefKind, TypeId, WorldItem, WorldKey};

use crate::spec::typed::types::TypeRef;

/// The function that makes the resource for a call of a method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maker {
    /// Its name, beside the method.
    pub(crate) name: String,
    /// The number of parameters that are its own. They are before those of the method.
    pub(crate) params: usize,
    pub(crate) returns: MakerResult,
}

/// The kinds of return values of makers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MakerResult {
    Resource,
    /// A `result`, whose error has this type.
    ResourceOrError(Option<TypeRef>),
}

/// A function that returns a new resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factory<'r> {
    pub(crate) function: &'r Function,
    /// The type of its error; `None` if it cannot fail.
    pub(crate) error: Option<Option<&'r Type>>,
}

/// Returns the resources of a component that have methods, each with the only function that makes it; `None` if several do.
pub(crate) fn factories<'r>(
    resolve: &'r Resolve,
    exports: &'r IndexMap<WorldKey, WorldItem>,
) -> HashMap<TypeId, Option<Factory<'r>>> {
    let mut found = HashMap::new();
    let mut with_methods = HashSet::new();
    let interfaces = exports.values().filter_map(|item| match item {
        WorldItem::Interface { id, .. } => Some(&resolve.interfaces[*id]),
        WorldItem::Function(_) | WorldItem::Type { .. } => None,
    });
    for function in interfaces.flat_map(|interface| interface.functions.values()) {
        if let FunctionKind::Method(resource) = &function.kind {
            with_methods.insert(*resource);
        } else if let FunctionKind::Constructor(resource) | FunctionKind::Static(resource) = &function.kind
            && let Some(error) = makes(resolve, function, *resource)
        {
            let factory = Factory { function, error };
            found.entry(*resource).and_modify(|only| *only = None).or_insert(Some(factory));
        }
    }
    found.retain(|resource, _| with_methods.contains(resource));
    found
}

/// Returns the type of a function's error if it returns a new resource; `Some(None)` if it cannot fail.
fn makes<'r>(resolve: &'r Resolve, function: &'r Function, resource: TypeId) -> Option<Option<Option<&'r Type>>> {
    let is_it = |ty: &Type| matches!(kind(resolve, ty), Some(TypeDefKind::Handle(Handle::Own(own))) if same(resolve, *own, resource));
    let returned = function.result.as_ref()?;
    if is_it(returned) {
        return Some(None);
    }
    match kind(resolve, returned) {
        Some(TypeDefKind::Result(result)) if result.ok.as_ref().is_some_and(is_it) => Some(Some(result.err.as_ref())),
        _ => None,
    }
}

/// Returns what a type is, past its other names.
fn kind<'r>(resolve: &'r Resolve, ty: &Type) -> Option<&'r TypeDefKind> {
    let mut ty = *ty;
    loop {
        let Type::Id(id) = ty else { return None };
        match &resolve.types[id].kind {
            TypeDefKind::Type(other) => ty = *other,
            kind => return Some(kind),
        }
    }
}

/// Returns true if two names are of one resource.
fn same(resolve: &Resolve, mut one: TypeId, other: TypeId) -> bool {
    while one != other {
        match &resolve.types[one].kind {
            TypeDefKind::Type(Type::Id(next)) => one = *next,
            _ => return false,
        }
    }
    true
}
