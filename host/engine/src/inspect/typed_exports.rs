//! The functions over plain data that a component exports: their types, and the names of the tasks that they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wharf_core::bounds;
use wit_parser::{Function, Resolve, WorldItem, WorldKey};

use crate::inspect::host_interfaces::InterfaceName;
use crate::inspect::resource_makers::Maker;
use crate::inspect::type_builder::{PLAIN, TypeBuilder, TypedFunction};
use crate::spec::problem::{Problem, Problems, cut, in_one_line};
use crate::spec::typed::types::{Field, Type, TypeRef};

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
    /// Present if it is a method: its resource is made for each call. The first parameters are the maker's.
    pub(crate) maker: Option<Maker>,
}

impl ExportedFunction {
    /// Returns its name without that of a resource.
    fn short_name(&self) -> &str {
        self.method().map_or(&self.name, |method| method.split('.').next_back().unwrap_or_default())
    }

    /// Returns "resource.method" if it is a method.
    fn method(&self) -> Option<&str> {
        self.name.strip_prefix("[method]")
    }
}

/// The functions that can be tasks, with their types, and those that cannot.
#[derive(Debug, Default)]
pub(crate) struct TypedExports {
    pub(crate) functions: Vec<ExportedFunction>,
    pub(crate) types: Vec<Type>,
    /// Why other functions are no tasks.
    pub(crate) left_out: Vec<Problem>,
}

/// Maximum length of a task's name that a function's name may become.
const NAME_BYTES_MAX: usize = bounds::NAME_BYTES_MAX;

impl TypedExports {
    /// Finds the functions. `taken` is the name of a task that no function may have.
    pub(crate) fn find(resolve: &Resolve, exports: &Items, taken: Option<&str>) -> TypedExports {
        let mut left_out = Problems::default();
        let mut types = TypeBuilder::new(resolve, exports);
        let mut functions = Vec::new();
        for (interface, function) in candidates(resolve, exports, &mut left_out) {
            // Its methods are tasks, or say why not.
            if types.is_maker(function) {
                continue;
            }
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
                Ok(TypedFunction { params, result, maker }) => functions.push(ExportedFunction {
                    task: String::new(),
                    interface,
                    name: function.name.clone(),
                    params,
                    result,
                    is_async: function.kind.is_async(),
                    maker,
                }),
            }
        }
        let functions = named(functions, taken, &mut left_out);
        TypedExports { functions, types: types.into_types(), left_out: left_out.into_bounded() }
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
    let short = |function: &ExportedFunction| function.short_name().to_ascii_lowercase();
    let long = |function: &ExportedFunction| {
        if let Some(method) = function.method() {
            return method.to_ascii_lowercase();
        }
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

#[cfg(test)]
mod tests;
