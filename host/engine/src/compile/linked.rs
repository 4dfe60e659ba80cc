//! A component that is linked with all that it imports, and what of it is called.

use wasmtime::component::InstancePre;

use crate::inspect::description::Description;
use crate::sandbox::imports::exports::wharf::plugin::{handler, manifest, subscriber};
use crate::sandbox::state::Sandbox;

pub(crate) struct Linked {
    pub(crate) description: Description,
    pub(crate) pre: InstancePre<Sandbox>,
    pub(crate) manifest: manifest::GuestIndices,
    /// A plugin has one of these two at least.
    pub(crate) handler: Option<handler::GuestIndices>,
    pub(crate) subscriber: Option<subscriber::GuestIndices>,
}

impl Linked {
    /// # Errors
    /// When it has no manifest. That it has what it exports as this host calls it was told before.
    pub(crate) fn new(description: Description, pre: InstancePre<Sandbox>) -> wasmtime::Result<Linked> {
        Ok(Linked {
            description,
            manifest: manifest::GuestIndices::new(&pre)?,
            handler: handler::GuestIndices::new(&pre).ok(),
            subscriber: subscriber::GuestIndices::new(&pre).ok(),
            pre,
        })
    }
}
