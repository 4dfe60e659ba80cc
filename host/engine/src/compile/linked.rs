//! A component linked with all its imports, with the indices of the functions that the host calls.

use std::fs::File;

use wasmtime::component::InstancePre;

use crate::inspect::description::Description;
use crate::sandbox::bindings::exports::wharf::plugin::{handler, manifest, subscriber};
use crate::sandbox::store_data::Sandbox;

/// A linked component.
pub(crate) struct Linked {
    pub(crate) description: Description,
    pub(crate) pre: InstancePre<Sandbox>,
    pub(crate) manifest: manifest::GuestIndices,
    /// A plugin has at least one of `handler` and `subscriber`.
    pub(crate) handler: Option<handler::GuestIndices>,
    pub(crate) subscriber: Option<subscriber::GuestIndices>,
    /// Keeps its code in the cache.
    _in_use: File,
}

impl Linked {
    /// Looks up the functions of a linked component. Mismatches of exports were reported before.
    ///
    /// # Errors
    /// If the component does not export a manifest.
    pub(crate) fn new(description: Description, pre: InstancePre<Sandbox>, in_use: File) -> wasmtime::Result<Linked> {
        Ok(Linked {
            description,
            manifest: manifest::GuestIndices::new(&pre)?,
            handler: handler::GuestIndices::new(&pre).ok(),
            subscriber: subscriber::GuestIndices::new(&pre).ok(),
            pre,
            _in_use: in_use,
        })
    }
}
