//! A component or a module linked with all its imports, with the indices of the functions that the host calls.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use wasmtime::ResourcesRequired;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{ComponentExportIndex, InstancePre};
use wasmtime_wasi::p2::bindings::exports::wasi::cli::run;

use crate::compile::function_types;
use crate::inspect::description::Description;
use crate::inspect::plain_exports::{PROGRAM_TASK, PlainExports};
use crate::inspect::resource_makers::Maker;
use crate::sandbox::bindings::exports::wharf::plugin::{handler, manifest, subscriber};
use crate::sandbox::store_data::Sandbox;
use crate::spec::function_task::FunctionTask;
use crate::spec::sources::TaskKind;

/// A linked component or module.
pub(crate) struct Linked {
    pub(crate) description: Description,
    pub(crate) exports: Exports,
    /// Keeps its code in the cache.
    _in_use: File,
}

/// The way in which the host calls a plugin.
pub(crate) enum Exports {
    /// The contract of `wit/`.
    Contract(ContractExports),
    /// The functions that a component exports for anybody.
    Plain(Box<PlainIndices>),
    /// A core module that is a program.
    Module(Box<wasmtime::InstancePre<Sandbox>>),
}

/// The functions of the contract.
pub(crate) struct ContractExports {
    pub(crate) pre: InstancePre<Sandbox>,
    pub(crate) manifest: manifest::GuestIndices,
    /// A plugin has at least one of `handler` and `subscriber`.
    pub(crate) handler: Option<handler::GuestIndices>,
    pub(crate) subscriber: Option<subscriber::GuestIndices>,
}

/// The functions of a component that knows nothing of the contract.
pub(crate) struct PlainIndices {
    pub(crate) pre: InstancePre<Sandbox>,
    /// `wasi:cli/run`, if it is a program.
    pub(crate) program: Option<run::GuestIndices>,
    /// Its functions, by the names of their tasks.
    pub(crate) functions: BTreeMap<String, LinkedFunction>,
    /// The kind of each task, in the order of the exports.
    pub(crate) tasks: Vec<(String, TaskKind)>,
}

/// A function whose types are known.
pub(crate) struct LinkedFunction {
    pub(crate) index: ComponentExportIndex,
    pub(crate) task: Arc<FunctionTask>,
    pub(crate) way: CallWay,
    /// Present if it is a method: the function that makes its resource.
    pub(crate) maker: Option<(ComponentExportIndex, Maker)>,
}

/// The way in which values are passed to a function and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallWay {
    /// From JSON to the guest's memory, and from there to JSON.
    Direct { params: u32, result: u32 },
    /// Through values of wasmtime's own: for many parameters, for `async` functions, and for methods of resources.
    Dynamic,
}

/// A function has at most so many core values as parameters before they are passed in memory.
const DIRECT_PARAMS_MAX: u32 = 16;

impl PlainIndices {
    fn find(plain: &PlainExports, pre: InstancePre<Sandbox>) -> wasmtime::Result<PlainIndices> {
        let program = plain.program.as_ref().map(|_| run::GuestIndices::new(&pre)).transpose()?;
        let mut tasks = Vec::new();
        if program.is_some() {
            tasks.push((PROGRAM_TASK.to_owned(), TaskKind::Program));
        }
        let component = pre.component();
        let mut functions = BTreeMap::new();
        for (function, signature) in plain.signatures() {
            let absent = || wasmtime::Error::msg(format!("the export of the task `{}` is not there", function.task));
            let interface = match &function.interface {
                Some(name) => Some(component.get_export(None, name).ok_or_else(absent)?.1),
                None => None,
            };
            let exported = |name: &str| match component.get_export(interface.as_ref(), name) {
                Some((ComponentItem::ComponentFunc(ty), index)) => Ok((ty, index)),
                _ => Err(absent()),
            };
            let (ty, index) = exported(&function.name)?;
            let maker = match &function.maker {
                Some(maker) => Some((exported(&maker.name)?, maker.clone())),
                None => None,
            };
            let is_same = match &maker {
                None => function_types::agree(&signature, &ty),
                Some(((making, _), maker)) => function_types::agree_with_maker(&signature, maker, (making, &ty)),
            };
            if !is_same {
                return Err(wasmtime::Error::msg(format!(
                    "the types of the task `{}` are too large, or differ",
                    function.task
                )));
            }
            let (params, result) = (signature.flat_params(), signature.flat_result());
            let is_direct = params <= DIRECT_PARAMS_MAX && !function.is_async && !ty.async_() && maker.is_none();
            let way = if is_direct { CallWay::Direct { params, result } } else { CallWay::Dynamic };
            let task = Arc::new(FunctionTask::new(signature, !is_direct));
            tasks.push((function.task.clone(), TaskKind::Function(Arc::clone(&task))));
            let maker = maker.map(|((_, index), maker)| (index, maker));
            functions.insert(function.task.clone(), LinkedFunction { index, task, way, maker });
        }
        Ok(PlainIndices { program, functions, tasks, pre })
    }
}

impl Linked {
    /// Takes a linked component and looks up its functions. Mismatches of exports were reported before.
    ///
    /// # Errors
    /// If the component does not export what its description says.
    pub(crate) fn new(description: Description, pre: InstancePre<Sandbox>, in_use: File) -> wasmtime::Result<Linked> {
        let exports = match &description.plain {
            None => Exports::Contract(ContractExports {
                manifest: manifest::GuestIndices::new(&pre)?,
                handler: handler::GuestIndices::new(&pre).ok(),
                subscriber: subscriber::GuestIndices::new(&pre).ok(),
                pre,
            }),
            Some(plain) => Exports::Plain(Box::new(PlainIndices::find(plain, pre)?)),
        };
        Ok(Linked { description, exports, _in_use: in_use })
    }

    /// Takes a linked program of WASI preview 1.
    pub(crate) fn of_module(description: Description, pre: wasmtime::InstancePre<Sandbox>, in_use: File) -> Linked {
        Linked { description, exports: Exports::Module(Box::new(pre)), _in_use: in_use }
    }

    /// Returns the wasmtime engine that runs it.
    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        match &self.exports {
            Exports::Contract(exports) => exports.pre.engine(),
            Exports::Plain(exports) => exports.pre.engine(),
            Exports::Module(pre) => pre.module().engine(),
        }
    }

    /// Returns what one instance takes of the pool; `None` if that cannot be counted.
    pub(crate) fn resources_required(&self) -> Option<ResourcesRequired> {
        match &self.exports {
            Exports::Contract(exports) => exports.pre.component().resources_required(),
            Exports::Plain(exports) => exports.pre.component().resources_required(),
            Exports::Module(pre) => Some(pre.module().resources_required()),
        }
    }

    /// Returns the tasks of a plugin that does not have the contract.
    pub(crate) fn plain_tasks(&self) -> Option<Vec<(String, TaskKind)>> {
        match &self.exports {
            Exports::Contract(_) => None,
            Exports::Plain(exports) => Some(exports.tasks.clone()),
            Exports::Module(_) => Some(vec![(PROGRAM_TASK.to_owned(), TaskKind::Program)]),
        }
    }
}
