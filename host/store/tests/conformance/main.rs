//! What every store must do, whatever it is made of. Time is moved by hand; nothing sleeps.

#[path = "../../../../tests/harness/postgres.rs"]
#[expect(dead_code, reason = "the tests from outside do more with a server")]
mod server;
mod stage;
mod insert;
mod claim;
mod limits;
mod lease;
mod record;
mod read;
mod nudge;
mod letters;
mod nodes;
mod regressions;
mod sqlite;
mod postgres;
mod lost;
mod histories;
