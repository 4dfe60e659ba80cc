//! What an author of plugins needs beside a compiler: the contract, bindings where a language's own tools make none,
//! from a core module to a component, and a first project. `wharf` offers it to people, `plugins/build` builds with it.

pub mod contract;
pub mod language;

pub mod bindings;
pub mod pack;
pub mod project;
