//! Whatever reads what a stranger wrote ends, within bounds, without a panic: components, manifests, payload schemas, topics, core
//! modules.
//! The same for queries and events stands beside their readers, in `host/server/src/fuzz.rs`.

mod mutate;

mod driver;
mod components;
mod manifests;
mod packing;
mod schemas;
mod topics;
