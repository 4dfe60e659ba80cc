//! The host from outside: the real binary, a real folder, real components, real signals.

#[path = "../harness/mod.rs"]
mod harness;

mod bad_input;
#[path = "../chaos/mod.rs"]
mod chaos;

mod bench;
mod broadcasts;
mod cli;
mod cluster_broadcasts;
mod cluster;
mod durable_broadcasts;
mod faces;
mod jobs;
mod kv;
mod languages;
mod limits;
mod outside;
mod outside_http;
mod photo;
mod recovery;
mod reload;
mod retries;
mod stopping;
mod streaming;
