//! Everything that a plugin author needs besides a compiler: the contract, bindings for languages whose tools make none, a
//! packer that makes components of core modules, and a first project. `wharf` offers it to people; `plugins/build` builds with it.

pub mod contract;
pub mod language;

pub mod bindings;
pub mod pack;
pub mod project;
