//! Feeds the readers of this crate with inputs, as `tests/fuzz/` does with those of others.

#[path = "../../../tests/fuzz/driver.rs"]
mod driver;
#[path = "../../../tests/fuzz/mutate.rs"]
mod mutate;

pub(crate) use driver::{Target, fuzz};
