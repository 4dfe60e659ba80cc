//! What a component exports that knows nothing of the contract: a program.

use serde::{Deserialize, Serialize};
use wit_parser::{Resolve, WorldItem, WorldKey};

use crate::inspect::host_interfaces::{self, InterfaceName};
use crate::spec::sources::{PlainTasks, TaskKind};

/// The interface of a program. Its versions of one track are compatible.
const RUN: &str = "wasi:cli/run@0.2.0";
/// The packages of the contract: a component that exports one of their interfaces is called by it.
const CONTRACT_PACKAGE: &str = "wharf:plugin/";

/// The task of a program.
pub(crate) const PROGRAM_TASK: &str = "run";
/// The beginning of the digest that is the version of a component which names none.
const VERSION_CHARS: usize = 12;

type Items = wit_parser::IndexMap<WorldKey, WorldItem>;

/// What a component exports in place of the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlainExports {
    /// Present if it is a program.
    pub(crate) program: Option<Program>,
}

/// A program: a component that exports `wasi:cli/run`.
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
        let is_program = exports
            .iter()
            .any(|(key, _)| InterfaceName::parse(&resolve.name_world_key(key)).is_compatible_with(&run));
        PlainExports { program: is_program.then(|| Program { tells_status: tells_status(resolve, imports) }) }
    }

    /// Returns the tasks that these exports are. A component with this digest has no version of its own.
    pub(crate) fn tasks(&self, digest: &str) -> PlainTasks {
        let version = digest.chars().take(VERSION_CHARS).collect();
        let program = self.program.iter().map(|_| (PROGRAM_TASK.to_owned(), TaskKind::Program));
        PlainTasks { version, tasks: program.collect() }
    }

    /// Returns true if the host can call nothing of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.program.is_none()
    }
}

fn tells_status(resolve: &Resolve, imports: &Items) -> bool {
    imports.iter().any(|(key, item)| {
        let is_exit = InterfaceName::parse(&resolve.name_world_key(key)).path == "wasi:cli/exit";
        let functions = host_interfaces::interface(item).map(|id| &resolve.interfaces[id].functions);
        is_exit && functions.is_some_and(|functions| functions.contains_key("exit-with-code"))
    })
}
