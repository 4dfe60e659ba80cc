//! The source of a setting's value, and the problems found in values.

use std::fmt;
use std::path::PathBuf;

use wharf_engine::spec::toml_diagnostics;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    /// Not set, but derived from another setting or from the machine; the text says which.
    Derived(&'static str),
    File {
        path: PathBuf,
        line: usize,
        column: usize,
    },
    Environment(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Derived(from) => write!(f, "default, from {from}"),
            Origin::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Every problem of the settings, collected so that all of them can be fixed in one go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    pub(crate) fn add(&mut self, origin: &Origin, text: impl fmt::Display) {
        self.0.push(format!("{origin}: {text}"));
    }

    pub(crate) fn add_text(&mut self, text: String) {
        self.0.push(text);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn or<T>(self, value: T) -> Result<T, Problems> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            many => {
                write!(f, "{} problems in the settings:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {}", problem.replace('\n', "\n  ")))
            }
        }
    }
}

impl std::error::Error for Problems {}

/// Returns "; did you mean `x`?" for the known name nearest to `name`, or an empty string if none is near.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    toml_diagnostics::nearest(name, known).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}
