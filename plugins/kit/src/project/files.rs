//! The files of the examples. A test holds that none of a folder is left out.

use crate::language::Language;

/// A path within the project, and what stands there.
type File = (&'static str, &'static str);

macro_rules! example {
    ($folder:literal: $($path:literal)*) => {
        &[$(($path, include_str!(concat!("../../../", $folder, "/", $path)))),*]
    };
}

// The example is a member of a workspace, which a project of its own is not.
const RUST: &[File] = &[
    ("Cargo.toml", include_str!("../rust/Cargo.toml.txt")),
    ("build.sh", include_str!("../rust/build.sh")),
    (".gitignore", include_str!("../rust/gitignore")),
    ("src/lib.rs", include_str!("../../../words/src/lib.rs")),
    ("manifest.toml", include_str!("../../../words/manifest.toml")),
    ("README.md", include_str!("../../../words/README.md")),
];
/// A project with a world of its own, in Rust.
const RUST_PLAIN: &[File] = &[
    ("Cargo.toml", include_str!("../rust/plain/Cargo.toml.txt")),
    ("build.sh", include_str!("../rust/build.sh")),
    (".gitignore", include_str!("../rust/gitignore")),
    ("src/lib.rs", include_str!("../rust/plain/lib.rs")),
    ("wit/world.wit", include_str!("../rust/plain/world.wit")),
    ("README.md", include_str!("../rust/plain/README.md")),
];
/// A project with a world of its own, in JavaScript.
const JAVASCRIPT_PLAIN: &[File] = example!("functions-js": ".gitignore" ".npmrc" "README.md" "functions.js" "package-lock.json" "package.json" "wit/world.wit");
/// A project with a world of its own, in Python.
const PYTHON_PLAIN: &[File] = &[
    (".gitignore", include_str!("../../../functions-python/.gitignore")),
    ("README.md", include_str!("../../../functions-python/README.md")),
    ("app.py", include_str!("../../../functions-python/app.py")),
    ("build-requirements.txt", include_str!("../../../words-python/build-requirements.txt")),
    ("build.sh", include_str!("../../../functions-python/build.sh")),
    ("wit/world.wit", include_str!("../../../functions-python/wit/world.wit")),
];
const JAVASCRIPT: &[File] = example!("words-js":
    ".gitignore" ".npmrc" "README.md" "build.js" "guard.js" "manifest.js" "package-lock.json" "package.json" "system.js" "url.js" "utf8.js" "web.js"
    "wit/world.wit" "words.js");
const TYPESCRIPT: &[File] = example!("words-ts":
    ".gitignore" ".npmrc" "README.md" "build.js" "globals.d.ts" "guard.js" "manifest.ts" "package-lock.json" "package.json" "system.ts" "tsconfig.json"
    "url.js" "utf8.ts" "web.js" "wit/world.wit" "words.ts");
const JAVASCRIPT_WEB: &[File] = example!("words-web":
    ".gitignore" ".npmrc" "README.md" "manifest.js" "package-lock.json" "package.json" "wit/world.wit" "words.js");
const PYTHON: &[File] = example!("words-python": ".gitignore" "README.md" "app.py" "build-requirements.txt" "build.sh" "late_imports.py" "manifest.toml" "requirements.txt");
const GO: &[File] = example!("words-go":
    ".gitignore" "README.md" "build.sh" "go.mod" "manifest.toml" "requirements.txt" "words.go");
const C: &[File] = example!("words-c":
    ".gitignore" "README.md" "build.sh" "json.c" "json.h" "manifest.toml" "requirements.txt" "words.c");

/// The files of a project with a world of its own, and the name that stands in them; `None` where there is no such project.
pub(crate) fn plain(language: Language) -> Option<(&'static str, &'static [File])> {
    match language {
        Language::Rust => Some(("words", RUST_PLAIN)),
        Language::JavaScript => Some(("functions-js", JAVASCRIPT_PLAIN)),
        Language::Python => Some(("functions-python", PYTHON_PLAIN)),
        Language::TypeScript | Language::JavaScriptWeb | Language::Go | Language::C => None,
    }
}

/// The files of a language's example.
pub fn of(language: Language) -> &'static [File] {
    match language {
        Language::Rust => RUST,
        Language::JavaScript => JAVASCRIPT,
        Language::TypeScript => TYPESCRIPT,
        Language::JavaScriptWeb => JAVASCRIPT_WEB,
        Language::Python => PYTHON,
        Language::Go => GO,
        Language::C => C,
    }
}
