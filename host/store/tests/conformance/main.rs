//! The conformance tests of all stores. Tests move the time by hand.

#[path = "../../../../tests/harness/postgres.rs"]
#[expect(dead_code, reason = "the tests from outside do more with a server")]
mod server;
#[path = "../../../../tests/harness/pooler.rs"]
mod pgbouncer;
#[path = "../../../../tests/harness/proxy.rs"]
mod proxy;
#[path = "../../../../tests/harness/valve.rs"]
mod valve;
mod stage;
mod insert;
mod claim;
mod limits;
mod holds;
mod audit;
mod lease;
mod record;
mod attempts;
mod failures;
mod find;
mod backlog;
mod operations;
mod operation_starts;
mod schedules;
mod schedule_histories;
mod read;
mod keeping;
mod maintenance;
mod kv;
mod nudge;
mod messages;
mod nodes;
mod sources;
mod clocks;
mod regressions;
mod sqlite;
mod file_header;
mod file_watch;
mod plans;
mod postgres;
mod lost;
mod cut;
mod slow;
mod pooler;
mod tls;
mod vacuum;
mod versions;
mod histories;
