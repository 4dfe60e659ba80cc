//! The only reader of settings: files, environment variables and flags.
//!
//! It works in two steps: `raw` collects every value as it is written, with its source; `settings` checks the values and
//! gives the parts of the host what they need. Flags take precedence over `WHARF__SECTION__KEY`, that over `wharf.toml`,
//! and that over the defaults in `table`.

mod origin;
mod values;
mod table;
mod bounds;
mod environment;
mod machine_memory;
mod shared_form;
mod outside;
mod tokens;
mod schedules;
mod secrets;
mod file;
mod secret_values;
mod raw;
mod shown;
mod place;
mod digest;
mod settings;

#[cfg(test)]
mod tests;

pub(crate) use bounds::hard_bounds;
pub(crate) use environment::Environment;
pub(crate) use origin::Problems;
pub(crate) use raw::{
    Flags, LIBRARY_BACKTRACES, RawSettings, backtrace_of_panic, backtraces_are_costly, has_service_manager,
};
pub(crate) use settings::{LogFormat, Settings};
pub(crate) use shown::{ShownSetting, shown};
pub(crate) use values::PublicUrl;
pub(crate) use wharf_engine::spec::duration::{HumanDuration, parse_duration as duration};
