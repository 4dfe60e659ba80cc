//! The only reader of settings: files, environment and flags.
//!
//! Two steps: what was given, each value with where it stands (`given`), and what the parts of the host need (`settings`).
//! Flags win over `WHARF__SECTION__KEY`, that over `wharf.toml`, that over the defaults of `table`.

mod origin;
mod values;
mod table;
mod bounds;
mod file;
mod raw;
mod settings;

#[cfg(test)]
mod tests;

pub(crate) use bounds::hard_bounds;
pub(crate) use origin::Problems;
pub(crate) use raw::{Flags, Given, LIBRARY_BACKTRACES, Surroundings, backtrace_of_panic, backtraces_are_costly};
pub(crate) use settings::{LogFormat, Settings};
pub(crate) use table::SETTINGS;
pub(crate) use values::{ShownDuration, duration};
