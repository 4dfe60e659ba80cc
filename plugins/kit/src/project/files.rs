//! The files of the examples. A test holds that none of a folder is left out.

use crate::language::Language;

/// A path within the project, and what stands there.
pub(super) type File = (&'static str, &'static str);

macro_rules! files {
    ($($folder:literal: [$($path:literal)*])*) => {
        &[$($(($path, include_str!(concat!("../../../", $folder, "/", $path))),)*)*]
    };
}
pub(super) use files;

// The example is a member of a workspace, which a project of its own is not.
const RUST: &[File] = &[
    ("Cargo.toml", include_str!("../rust/Cargo.toml.txt")),
    ("build.sh", include_str!("../rust/build.sh")),
    (".gitignore", include_str!("../rust/gitignore")),
    ("src/lib.rs", include_str!("../../../words/src/lib.rs")),
    ("manifest.toml", include_str!("../../../words/manifest.toml")),
    ("README.md", include_str!("../../../words/README.md")),
];
const JAVASCRIPT: &[File] = files!(
    "words-js": [".gitignore" ".npmrc" "README.md" "manifest.js" "package-lock.json" "package.json" "system.js" "utf8.js" "wit/world.wit" "words.js"]
    "kit/src/javascript": ["build.js" "guard.js" "url.js" "web.js"]
);
const TYPESCRIPT: &[File] = files!(
    "words-ts": [".gitignore" ".npmrc" "README.md" "globals.d.ts" "manifest.ts" "package-lock.json" "package.json" "system.ts" "tsconfig.json"
        "utf8.ts" "wit/world.wit" "words.ts"]
    "kit/src/javascript": ["build.js" "guard.js" "url.js" "web.js"]
);
const JAVASCRIPT_WEB: &[File] = files!("words-web":
    [".gitignore" ".npmrc" "README.md" "manifest.js" "package-lock.json" "package.json" "wit/world.wit" "words.js"]);
const PYTHON: &[File] = files!("words-python":
    [".gitignore" "README.md" "app.py" "build-requirements.txt" "build.sh" "http_client.py" "http_client.wit" "late_imports.py" "manifest.toml"
        "requirements.txt"]);
const GO: &[File] = files!("words-go":
    [".gitignore" "README.md" "build.sh" "go.mod" "manifest.toml" "requirements.txt" "words.go"]);
const C: &[File] = files!("words-c":
    [".gitignore" "README.md" "build.sh" "json.c" "json.h" "manifest.toml" "requirements.txt" "words.c"]);

/// What any plugin in Python may use.
const PYTHON_HELPERS: &[File] =
    files!("words-python": ["http_client.py" "http_client.wit" "late_imports.py" "requirements.txt"]);

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

/// The files of a language's example that other plugins in `plugins/` use, too, and that are not in their folders.
pub fn helpers(language: Language) -> &'static [File] {
    match language {
        Language::Python => PYTHON_HELPERS,
        _ => &[],
    }
}
