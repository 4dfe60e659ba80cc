//! Builds the plugins of `plugins/` from source, each into `target/plugins/<name>.wasm`, and only when something changed.
//!
//! Tests call [`build`]: any number of them at once, from any number of processes. The first builds, the others wait.

mod folders;
mod guest;
mod memories;

mod digest;
mod toolchain;
mod tools;

mod recipe;

pub mod artefacts;
pub mod prebuilt;

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;
use plugin_kit::language::Language;

pub use guest::ALL;

/// Builds one plugin unless it is built already, and returns where its component is.
pub fn build(name: &str) -> Result<PathBuf> {
    recipe::build(guest::named(name)?)
}

/// Builds every plugin that is not built already, and returns where their components are, in the order of [`ALL`].
pub fn build_all() -> Result<Vec<PathBuf>> {
    guest::GUESTS.iter().map(recipe::build).collect()
}

/// What differs from this process's environment in a shell where the command of a project of `wharf new` finds its tools:
/// those that the example of its language was built with. They are fetched if they are not there yet.
///
/// # Errors
/// When a tool is missing that cannot be fetched.
pub fn environment(language: Language) -> Result<Vec<(OsString, OsString)>> {
    recipe::environment(language)
}

/// Calls a macro with the name of each plugin, `-` written as `_`.
///
/// A test suite says `for_each_plugin!(assert_test_exists)` to make sure that no plugin is without a test:
///
/// ```
/// fn words() {}
/// # fn outside_python() {} fn outside_js() {} fn outside_go() {} fn outside_web() {} fn words_js() {} fn words_ts() {} fn words_web() {} fn words_python() {} fn words_go() {} fn words_c() {}
/// # fn thumbnail() {} fn word_index() {} fn link_check() {} fn summary() {} fn changes() {} fn bench() {} fn villain() {} fn villain_http() {} fn villain_memories() {} fn villain_kv() {} fn villain_async() {}
/// # fn villain_slow() {} fn villain_bad_manifest() {} fn villain_trap() {} fn functions() {} fn program() {}
/// # fn functions_contract() {} fn functions_js() {} fn functions_python() {} fn program_c() {} fn program_go() {}
/// macro_rules! assert_test_exists {
///     ($name:ident) => {
///         let _ = $name;
///     };
/// }
/// plugins::for_each_plugin!(assert_test_exists);
/// ```
#[macro_export]
macro_rules! for_each_plugin {
    ($each:ident) => {
        $each!(words);
        $each!(words_js);
        $each!(words_ts);
        $each!(words_web);
        $each!(words_python);
        $each!(words_go);
        $each!(words_c);
        $each!(outside_python);
        $each!(outside_js);
        $each!(outside_go);
        $each!(outside_web);
        $each!(thumbnail);
        $each!(word_index);
        $each!(link_check);
        $each!(summary);
        $each!(changes);
        $each!(bench);
        $each!(villain);
        $each!(villain_http);
        $each!(villain_memories);
        $each!(villain_kv);
        $each!(villain_async);
        $each!(villain_slow);
        $each!(villain_bad_manifest);
        $each!(villain_trap);
        $each!(functions);
        $each!(functions_contract);
        $each!(functions_js);
        $each!(functions_python);
        $each!(program);
        $each!(program_c);
        $each!(program_go);
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_macro_names_every_plugin() {
        let mut names = Vec::new();
        macro_rules! push {
            ($name:ident) => {
                names.push(stringify!($name).replace('_', "-"));
            };
        }
        for_each_plugin!(push);
        assert_eq!(names, super::ALL);
    }

    /// So that a folder without a row cannot be: a row in turn asks each test suite for a test.
    #[test]
    fn every_folder_of_plugins_is_built() {
        let folders = std::fs::read_dir(super::folders::plugins()).expect("plugins/ is there");
        let folders = folders.map(|entry| entry.expect("a readable entry")).filter(|entry| entry.path().is_dir());
        for folder in folders.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            let is_tool = ["build", "kit", "target"].contains(&folder.as_str());
            assert!(is_tool || super::guest::GUESTS.iter().any(|guest| guest.package == folder), "{folder} has no row");
        }
    }
}
