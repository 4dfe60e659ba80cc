//! The driver of this crate's fuzz tests; `tests/fuzz/` has those of the other crates.

#[path = "../../../tests/fuzz/driver.rs"]
mod driver;
#[path = "../../../tests/fuzz/mutate.rs"]
mod mutate;

pub(crate) use driver::{Target, fuzz};
