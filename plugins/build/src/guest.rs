//! The plugins that can be built. A new one is a row here and a line in `for_each_plugin!`.

use anyhow::{Result, bail};
use plugin_kit::language::Language;

pub(crate) struct Guest {
    /// The component's name: its file stem, and so the plugin's id.
    pub(crate) name: &'static str,
    /// Its folder in `plugins/`; for Rust also the package of the workspace there.
    pub(crate) package: &'static str,
    pub(crate) language: Language,
    /// One package can be several components, told apart by a feature.
    pub(crate) feature: Option<&'static str>,
    /// It knows nothing of the contract: its command makes the component, or the core module, as it is.
    pub(crate) is_plain: bool,
    /// Memories of one MiB each that are put into the component beside the guest's own.
    pub(crate) more_memories: u32,
}

/// A component that has its package's name.
const fn guest(name: &'static str) -> Guest {
    made_from(name, name)
}

const fn made_from(package: &'static str, name: &'static str) -> Guest {
    Guest { name, package, language: Language::Rust, feature: None, is_plain: false, more_memories: 0 }
}

/// A project that knows nothing of the contract.
const fn plain(guest: Guest) -> Guest {
    Guest { is_plain: true, ..guest }
}

const fn with_feature(feature: &'static str, guest: Guest) -> Guest {
    Guest { feature: Some(feature), ..guest }
}

const fn with_memories(more_memories: u32, guest: Guest) -> Guest {
    Guest { more_memories, ..guest }
}

const fn written_in(language: Language, guest: Guest) -> Guest {
    Guest { language, ..guest }
}

pub(crate) const GUESTS: [Guest; 32] = [
    guest("words"),
    written_in(Language::JavaScript, guest("words-js")),
    written_in(Language::TypeScript, guest("words-ts")),
    written_in(Language::JavaScriptWeb, guest("words-web")),
    written_in(Language::Python, guest("words-python")),
    written_in(Language::Go, guest("words-go")),
    written_in(Language::C, guest("words-c")),
    written_in(Language::Python, guest("outside-python")),
    written_in(Language::JavaScript, guest("outside-js")),
    written_in(Language::Go, guest("outside-go")),
    written_in(Language::JavaScriptWeb, guest("outside-web")),
    guest("thumbnail"),
    guest("word-index"),
    guest("link-check"),
    guest("summary"),
    guest("changes"),
    guest("bench"),
    guest("villain"),
    with_feature("http", made_from("villain", "villain-http")),
    with_memories(16, made_from("villain", "villain-memories")),
    guest("villain-kv"),
    guest("villain-async"),
    with_feature("slow", made_from("villain-at-load", "villain-slow")),
    made_from("villain-at-load", "villain-bad-manifest"),
    with_feature("trap", made_from("villain-at-load", "villain-trap")),
    guest("functions"),
    guest("functions-contract"),
    plain(written_in(Language::JavaScript, guest("functions-js"))),
    plain(written_in(Language::Python, guest("functions-python"))),
    guest("program"),
    plain(written_in(Language::C, guest("program-c"))),
    plain(written_in(Language::Go, guest("program-go"))),
];

/// The name of each plugin.
pub const ALL: [&str; GUESTS.len()] = {
    let mut names = [""; GUESTS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = GUESTS[at].name;
        at += 1;
    }
    names
};

pub(crate) fn named(name: &str) -> Result<&'static Guest> {
    match GUESTS.iter().find(|guest| guest.name == name) {
        Some(guest) => Ok(guest),
        None => bail!("there is no plugin {name} to build; there are {}", ALL.join(", ")),
    }
}
