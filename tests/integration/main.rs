//! The host from outside: the real binary, a real folder, real components, real signals.

#[path = "../harness/mod.rs"]
mod harness;

mod as_given;
mod attempts;
mod bad_input;
mod behind_a_proxy;
mod below_a_prefix;
#[path = "../chaos/mod.rs"]
mod chaos;

mod bench;
mod broadcasts;
mod cli;
mod clock_jumps;
mod cluster_broadcasts;
mod cluster;
mod dashboard;
mod dashboard_pictures;
mod deployment;
mod durable_broadcasts;
mod elsewhere;
mod faces;
mod failures;
mod file_size;
mod finding;
mod full_database;
mod audit;
mod holds;
mod jobs;
mod kv;
mod languages;
mod limits;
mod loading;
mod memory_budget;
mod openapi;
mod operations;
mod ordinary;
mod schedules;
mod outside;
mod outside_http;
mod paces;
mod pooled;
mod photo;
mod recovery;
mod release_links;
mod reload;
mod retries;
mod secrets;
mod settings;
mod settings_edits;
mod settings_halves;
mod signals;
mod sleepers;
mod slow_readers;
mod slow_commits;
mod stopping;
mod store_file;
mod streaming;
mod suspects;
mod terminal;
mod tokens;
mod unread;
mod upgrades;
mod why_it_waits;
mod summary;
