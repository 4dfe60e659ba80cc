//! Says on which lines each word of a saved document stands.

use std::collections::{BTreeMap, BTreeSet};

use exports::wharf::plugin::{
    manifest,
    subscriber::{self, Failure, Message},
};
use serde::{Deserialize, Serialize};

wit_bindgen::generate!({ path: "../../wit", world: "subscriber-plugin" });

#[derive(Deserialize)]
struct Document {
    text: String,
}

#[derive(Serialize)]
struct Index {
    /// How many different words there are.
    words: usize,
    /// The lines of each, from 1.
    lines: BTreeMap<String, BTreeSet<usize>>,
}

/// A word is letters and digits, with an apostrophe or a hyphen inside; its case does not count.
fn words(line: &str) -> impl Iterator<Item = String> + '_ {
    line.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '-')
        .map(|word| word.trim_matches(['\'', '-']).to_lowercase())
        .filter(|word| !word.is_empty())
}

fn index(text: &str) -> Index {
    let mut lines = BTreeMap::<_, BTreeSet<_>>::new();
    for (number, line) in (1..).zip(text.lines()) {
        for word in words(line) {
            lines.entry(word).or_default().insert(number);
        }
    }
    Index {
        words: lines.len(),
        lines,
    }
}

struct WordIndex;

impl manifest::Guest for WordIndex {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl subscriber::Guest for WordIndex {
    fn receive(message: Message) -> Result<Vec<u8>, Failure> {
        let document: Document = serde_json::from_slice(&message.payload)
            .map_err(|e| Failure::Discard(format!(r#"the payload is not {{"text": "..."}}: {e}"#)))?;
        serde_json::to_vec(&index(&document.text)).map_err(|e| Failure::Discard(e.to_string()))
    }
}

export!(WordIndex);
