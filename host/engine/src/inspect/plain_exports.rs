//! What a component exports that knows nothing of the contract: a program, functions, or both.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wit_parser::{Resolve, WorldItem, WorldKey};

use crate::inspect::host_interfaces::{self, InterfaceName};
use crate::inspect::resource_makers::MakerResult;
use crate::inspect::typed_exports::{ExportedFunction, TypedExports};
use crate::inspect::wit_signature;
use crate::spec::problem::Problem;
use crate::spec::typed::signature::Signature;
use crate::spec::typed::types::{Type, TypeRef, TypeTable};

/// The interface of a program. Its versions of one track are compatible.
const RUN: &str = "wasi:cli/run@0.2.0";
/// The type of its function.
const RUN_TYPE: &str = "func() -> result";
/// The packages of the contract: a component that exports one of their interfaces is called by it.
const CONTRACT_PACKAGE: &str = "wharf:plugin/";

/// The task of a program.
pub(crate) const PROGRAM_TASK: &str = "run";

type Items = wit_parser::IndexMap<WorldKey, WorldItem>;

/// The exports of a component that does not have the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlainExports {
    /// Present if it is a program.
    pub(crate) program: Option<Program>,
    /// The functions over plain data.
    pub(crate) functions: Vec<ExportedFunction>,
    /// The types of these functions.
    types: Vec<Type>,
    /// Why other functions are no tasks.
    pub(crate) left_out: Vec<Problem>,
}

/// A program: a component that exports `wasi:cli/run`, or a core module for WASI preview 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// True if its exit status can reach the host, and not only whether it is 0.
    pub(crate) tells_status: bool,
}

/// Returns true if a component exports an interface of the contract, whatever its version.
pub(crate) fn has_contract(resolve: &Resolve, exports: &Items) -> bool {
    exports.keys().any(|key| resolve.name_world_key(key).starts_with(CONTRACT_PACKAGE))
}

impl PlainExports {
    /// Finds what a component exports that the host can call.
    pub(crate) fn find(resolve: &Resolve, imports: &Items, exports: &Items) -> PlainExports {
        let run = InterfaceName::parse(RUN);
        let found =
            exports.iter().find(|(key, _)| InterfaceName::parse(&resolve.name_world_key(key)).is_compatible_with(&run));
        let function = found.and_then(|(_, item)| host_interfaces::interface(item)).map(|id| {
            let run = resolve.interfaces[id].functions.get("run");
            run.is_some_and(|run| wit_signature::function(resolve, run) == RUN_TYPE)
        });
        let program = (function == Some(true)).then(|| Program { tells_status: tells_status(resolve, imports) });
        let taken = program.as_ref().map(|_| PROGRAM_TASK);
        let TypedExports { functions, types, mut left_out } = TypedExports::find(resolve, exports, taken);
        if function == Some(false) {
            left_out.insert(
                0,
                Problem::new(format!("it exports `wasi:cli/run` without the function `run: {RUN_TYPE}`"))
                    .hint("build it for WASI 0.2 (Rust: the target `wasm32-wasip2`)"),
            );
        }
        PlainExports { program, functions, types, left_out }
    }

    /// Returns the exports of a program of WASI preview 1.
    pub(crate) fn of_module() -> PlainExports {
        PlainExports { program: Some(Program { tells_status: true }), ..PlainExports::default() }
    }

    /// Returns the functions with their types; none if the description does not fit together, as a damaged one.
    pub(crate) fn signatures(&self) -> Vec<(&ExportedFunction, Signature)> {
        let Some(table) = TypeTable::new(self.types.clone()).map(Arc::new) else { return Vec::new() };
        let is_there = |ty: &TypeRef| (*ty as usize) < table.len();
        let all = self.functions.iter().filter(|function| {
            let error = match function.maker.as_ref().map(|maker| maker.returns) {
                Some(MakerResult::ResourceOrError(error)) => error,
                Some(MakerResult::Resource) | None => None,
            };
            function.params.iter().map(|param| &param.ty).chain(&function.result).chain(&error).all(is_there)
        });
        all.map(|function| {
            let (params, result) = (function.params.clone(), function.result);
            (function, Signature { table: Arc::clone(&table), params, result })
        })
        .collect()
    }

    /// Returns true if the host can call nothing of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.program.is_none() && self.functions.is_empty()
    }
}

fn tells_status(resolve: &Resolve, imports: &Items) -> bool {
    imports.iter().any(|(key, item)| {
        let is_exit = InterfaceName::parse(&resolve.name_world_key(key)).path == "wasi:cli/exit";
        let functions = host_interfaces::interface(item).map(|id| &resolve.interfaces[id].functions);
        is_exit && functions.is_some_and(|functions| functions.contains_key("exit-with-code"))
    })
}
