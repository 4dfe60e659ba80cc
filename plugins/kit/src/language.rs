//! The languages of the examples, of `wharf new`, and of the tests.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    Rust,
    JavaScript,
    TypeScript,
    /// With the functions of the web, on another engine.
    JavaScriptWeb,
    Python,
    Go,
    C,
}

impl Language {
    pub const ALL: [Language; 7] = [
        Language::Rust,
        Language::JavaScript,
        Language::TypeScript,
        Language::JavaScriptWeb,
        Language::Python,
        Language::Go,
        Language::C,
    ];

    /// As it is written on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::JavaScript => "javascript",
            Language::TypeScript => "typescript",
            Language::JavaScriptWeb => "javascript-web",
            Language::Python => "python",
            Language::Go => "go",
            Language::C => "c",
        }
    }

    /// Its example: the folder in `plugins/`, and the plugin's name.
    pub fn example(self) -> &'static str {
        match self {
            Language::Rust => "words",
            Language::JavaScript => "words-js",
            Language::TypeScript => "words-ts",
            Language::JavaScriptWeb => "words-web",
            Language::Python => "words-python",
            Language::Go => "words-go",
            Language::C => "words-c",
        }
    }

    /// Where a project has the contract's files; none where `wharf bindings` has them.
    pub fn contract_folder(self) -> Option<&'static str> {
        match self {
            Language::Rust | Language::Python => Some("wit"),
            Language::JavaScript | Language::TypeScript | Language::JavaScriptWeb => Some("wit/deps/wharf"),
            Language::Go | Language::C => None,
        }
    }

    /// The one command that builds a project, in its folder.
    pub fn command(self) -> &'static str {
        match self {
            Language::JavaScript | Language::TypeScript | Language::JavaScriptWeb => "npm install && npm run build",
            Language::Rust | Language::Python | Language::Go | Language::C => "sh build.sh",
        }
    }

    /// Whether that command calls `wharf` in its turn, for bindings.
    pub fn calls_wharf(self) -> bool {
        matches!(self, Language::TypeScript | Language::Go | Language::C)
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no language's name.
#[derive(Clone, Debug, thiserror::Error)]
#[error("there is nothing for `{0}`; there are rust, javascript, typescript, javascript-web, python, go and c")]
pub struct UnknownLanguage(String);

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Language, UnknownLanguage> {
        let known = Language::ALL.into_iter().find(|language| language.name() == text);
        known.ok_or_else(|| UnknownLanguage(text.to_owned()))
    }
}
