//! Builds the plugins of `plugins/` from source, each into `target/plugins/<name>.wasm`, and only when something changed.
//!
//! Tests call [`build`]: any number of them at once, from any number of processes. The first builds, the others wait.

mod folders;
mod guest;
mod memories;

mod digest;
mod toolchain;

mod recipe;

pub mod prebuilt;

use std::path::PathBuf;

use anyhow::Result;

pub use guest::ALL;

/// Builds one plugin unless it is built already, and returns where its component is.
pub fn build(name: &str) -> Result<PathBuf> {
    recipe::build(guest::named(name)?)
}

/// Builds every plugin that is not built already, and returns where their components are, in the order of [`ALL`].
pub fn build_all() -> Result<Vec<PathBuf>> {
    guest::GUESTS.iter().map(recipe::build).collect()
}

/// Calls a macro with the name of each plugin, `-` written as `_`.
///
/// A test suite says `for_each_plugin!(assert_test_exists)` to make sure that no plugin is without a test:
///
/// ```
/// fn words() {}
/// # fn thumbnail() {} fn villain() {} fn villain_http() {} fn villain_memories() {} fn villain_async() {}
/// # fn villain_slow() {} fn villain_bad_manifest() {} fn villain_trap() {}
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
        $each!(thumbnail);
        $each!(word_index);
        $each!(link_check);
        $each!(summary);
        $each!(villain);
        $each!(villain_http);
        $each!(villain_memories);
        $each!(villain_async);
        $each!(villain_slow);
        $each!(villain_bad_manifest);
        $each!(villain_trap);
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
}
