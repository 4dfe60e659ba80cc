//! The files of projects without a mention of Wharf: a function over plain data, or a program.

use super::files::{File, files};
use crate::language::Language;

const RUST: &[File] = &[
    ("Cargo.toml", include_str!("../plain/rust/Cargo.toml.txt")),
    ("build.sh", include_str!("../rust/build.sh")),
    (".gitignore", include_str!("../rust/gitignore")),
    ("src/lib.rs", include_str!("../plain/rust/lib.rs")),
    ("wit/world.wit", include_str!("../plain/rust/world.wit")),
    ("README.md", include_str!("../plain/rust/README.md")),
];
const JAVASCRIPT: &[File] = files!("functions-js":
    [".gitignore" ".npmrc" "README.md" "functions.js" "package-lock.json" "package.json" "wit/world.wit"]);
const TYPESCRIPT: &[File] = files!("kit/src/plain/typescript":
    [".gitignore" ".npmrc" "README.md" "functions.ts" "package-lock.json" "package.json" "tsconfig.json" "wit/world.wit"]);
const JAVASCRIPT_WEB: &[File] = files!("kit/src/plain/javascript-web":
    [".gitignore" ".npmrc" "README.md" "functions.js" "package-lock.json" "package.json" "wit/world.wit"]);
const PYTHON: &[File] = files!(
    "functions-python": [".gitignore" "README.md" "app.py" "build.sh" "wit/world.wit"]
    "words-python": ["build-requirements.txt" "http_client.py" "http_client.wit" "late_imports.py" "requirements.txt"]
);
const GO: &[File] = files!(
    "kit/src/plain/go": [".gitignore" "README.md" "build.sh" "go.mod" "main.go"]
    "words-go": ["requirements.txt"]
);
const C: &[File] = files!(
    "kit/src/plain/c": [".gitignore" "README.md" "build.sh" "main.c"]
    "words-c": ["requirements.txt"]
);

/// The files of a project in a language, and the name that stands in them.
pub(super) fn of(language: Language) -> (&'static str, &'static [File]) {
    match language {
        Language::Rust => ("tally", RUST),
        Language::JavaScript => ("functions-js", JAVASCRIPT),
        Language::TypeScript => ("tally", TYPESCRIPT),
        Language::JavaScriptWeb => ("tally", JAVASCRIPT_WEB),
        Language::Python => ("functions-python", PYTHON),
        Language::Go => ("tally", GO),
        Language::C => ("tally", C),
    }
}
