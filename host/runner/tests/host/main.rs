//! A whole host without HTTP: real engine, real components, a real store.

mod setup;
mod jobs;
mod kv;
mod output;
mod endings;
mod folder;
mod cut_store;
mod store_failures;
mod bounds;
mod operations;
mod full_queue;
mod memory;
mod turns;
