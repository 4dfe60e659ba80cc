//! A handler alone: the example of its language without the subscriber.

use crate::language::Language;

/// A change of a file.
pub(super) enum Edit {
    /// The line that begins so goes.
    Line(&'static str),
    /// The paragraph with the line that begins so goes.
    Paragraph(&'static str),
    /// The second stands in place of the first.
    Replace(&'static str, &'static str),
}
use Edit::{Line, Paragraph, Replace};

/// A file of a project, and the changes of that file.
type Edits = &'static [(&'static str, &'static [Edit])];

const TOPICS: &[Edit] = &[Line("topics = ")];
const README: &[Edit] = &[Paragraph("A broadcast to `text.written`")];
const WORLD: &[Edit] = &[Replace("wharf:plugin/plugin@", "wharf:plugin/handler-plugin@")];
const BUILD_JS: &[Edit] = &[
    Replace("guardedHandler, guardedSubscriber", "guardedHandler"),
    Replace("manifest, subscriber as receiving", "manifest"),
    Line("  export const subscriber = "),
];

const RUST: Edits = &[
    (
        "src/lib.rs",
        &[
            Line("    subscriber::{"),
            Replace("world: \"plugin\"", "world: \"handler-plugin\""),
            Paragraph("struct Answer "),
            Paragraph("impl subscriber::Guest for "),
        ],
    ),
    ("manifest.toml", TOPICS),
    (
        "README.md",
        &[
            Line("A broadcast to `text.written`"),
            Replace(", has a concurrency key and answers a topic", " and has a concurrency key"),
        ],
    ),
];
const JAVASCRIPT: Edits = &[
    ("words.js", &[Paragraph("export const subscriber = ")]),
    ("build.js", BUILD_JS),
    ("manifest.js", TOPICS),
    ("wit/world.wit", WORLD),
    ("README.md", README),
];
const TYPESCRIPT: Edits = &[
    ("words.ts", &[Line("import type { Message, Subscriber }"), Paragraph("export const subscriber: ")]),
    ("build.js", BUILD_JS),
    ("manifest.ts", TOPICS),
    ("wit/world.wit", WORLD),
    ("README.md", README),
];
const JAVASCRIPT_WEB: Edits = &[
    ("words.js", &[Paragraph("export const subscriber = ")]),
    ("manifest.js", TOPICS),
    ("wit/world.wit", WORLD),
    ("README.md", README),
];
const PYTHON: Edits = &[
    ("app.py", &[Replace("Job, Message", "Job"), Paragraph("class Subscriber(")]),
    ("build.sh", WORLD),
    ("manifest.toml", TOPICS),
    ("README.md", README),
];
const GO: Edits = &[
    (
        "words.go",
        &[
            Line("\tsubscriber \""),
            Line("\tsubscriber.Receive = "),
            Paragraph("type answer struct "),
            Paragraph("func receive("),
        ],
    ),
    (
        "build.sh",
        &[
            Replace("wharf bindings go gen", "wharf bindings go gen --world handler-plugin"),
            Replace("wharf pack core.wasm", "wharf pack core.wasm --world handler-plugin"),
        ],
    ),
    ("manifest.toml", TOPICS),
    ("README.md", README),
];
const C: Edits = &[
    ("words.c", &[Paragraph("bool exports_wharf_plugin_subscriber_receive(")]),
    ("build.sh", &[Replace("wharf bindings c gen", "wharf bindings c gen --world handler-plugin")]),
    ("manifest.toml", TOPICS),
    ("README.md", README),
];

pub(super) fn edits(language: Language) -> Edits {
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

/// Takes the subscriber out of a file of an example. A test holds that each edit finds its place.
pub(super) fn without_subscriber(language: Language, path: &str, text: &str) -> String {
    let edits = edits(language).iter().filter(|(edited, _)| *edited == path).flat_map(|(_, edits)| *edits);
    edits.fold(text.to_owned(), |text, edit| edit.of(&text).unwrap_or(text))
}

impl Edit {
    /// Returns the changed text; `None` if the text has no such place.
    pub(super) fn of(&self, text: &str) -> Option<String> {
        let (from, to) = match self {
            Replace(from, to) => return text.contains(from).then(|| text.replacen(from, to, 1)),
            Line(start) => {
                let from = line(text, start)?;
                (from, text[from..].find('\n').map_or(text.len(), |length| from + length + 1))
            }
            Paragraph(start) => {
                let within = line(text, start)?;
                let end = text[within..].find("\n\n").map_or(text.len(), |length| within + length);
                let to = end + text[end..].len() - text[end..].trim_start_matches('\n').len();
                (text[..within].rfind("\n\n").map_or(0, |place| place + 2), to)
            }
        };
        match text[to..].is_empty() {
            true => Some(format!("{}\n", text[..from].trim_end())),
            false => Some(format!("{}{}", &text[..from], &text[to..])),
        }
    }
}

/// Returns where the line that begins so is.
fn line(text: &str, start: &str) -> Option<usize> {
    let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(place, _)| place + 1));
    lines.into_iter().find(|place| text[*place..].starts_with(start))
}
