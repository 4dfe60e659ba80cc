//! A component linked with all its imports, with the indices of the functions that the host calls.

use std::fs::File;

use wasmtime::component::InstancePre;
use wasmtime_wasi::p2::bindings::exports::wasi::cli::run;

use crate::inspect::description::Description;
use crate::sandbox::bindings::exports::wharf::plugin::{handler, manifest, subscriber};
use crate::sandbox::store_data::Sandbox;

/// A linked component.
pub(crate) struct Linked {
    pub(crate) description: Description,
    pub(crate) pre: InstancePre<Sandbox>,
    pub(crate) exports: Exports,
    /// Keeps its code in the cache.
    _in_use: File,
}

/// How the host calls a component.
pub(crate) enum Exports {
    /// By the contract of `wit/`.
    Contract(ContractExports),
    /// By what it exports for anybody.
    Plain(Box<PlainIndices>),
}

/// The functions of the contract.
pub(crate) struct ContractExports {
    pub(crate) manifest: manifest::GuestIndices,
    /// A plugin has at least one of `handler` and `subscriber`.
    pub(crate) handler: Option<handler::GuestIndices>,
    pub(crate) subscriber: Option<subscriber::GuestIndices>,
}

/// The functions of a component that knows nothing of the contract.
pub(crate) struct PlainIndices {
    /// `wasi:cli/run`, if it is a program.
    pub(crate) program: Option<run::GuestIndices>,
}

impl Linked {
    /// Looks up the functions of a linked component. Mismatches of exports were reported before.
    ///
    /// # Errors
    /// If the component does not export what its description says.
    pub(crate) fn new(description: Description, pre: InstancePre<Sandbox>, in_use: File) -> wasmtime::Result<Linked> {
        let exports = match &description.plain {
            None => Exports::Contract(ContractExports {
                manifest: manifest::GuestIndices::new(&pre)?,
                handler: handler::GuestIndices::new(&pre).ok(),
                subscriber: subscriber::GuestIndices::new(&pre).ok(),
            }),
            Some(plain) => {
                let program = plain.program.as_ref().map(|_| run::GuestIndices::new(&pre)).transpose()?;
                Exports::Plain(Box::new(PlainIndices { program }))
            }
        };
        Ok(Linked { description, pre, exports, _in_use: in_use })
    }
}
