//! What an author of plugins needs beside a compiler: the contract, bindings where a language's own tools make none,
//! and from a core module to a component. `wharf` offers it to people, `plugins/build` builds the examples with it.

pub mod contract;

pub mod bindings;
pub mod pack;
