//! Says what a saved Markdown document is about: its title, its headings, its first sentence, how long it takes to read.

use exports::wharf::plugin::{
    manifest,
    subscriber::{self, Failure, Message},
};
use serde::{Deserialize, Serialize};

wit_bindgen::generate!({ path: "../../wit", world: "subscriber-plugin" });

/// People read about so many words of prose in a minute.
const WORDS_PER_MINUTE: usize = 230;

#[derive(Deserialize)]
struct Document {
    text: String,
}

#[derive(Default, Serialize)]
struct Summary {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    headings: Vec<String>,
    words: usize,
    minutes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    opening: Option<String>,
}

fn summary(text: &str) -> Summary {
    let mut summary = Summary::default();
    let mut opening = String::new();
    let (mut in_code, mut opened) = (false, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if in_code {
            continue;
        }
        summary.words += line.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).count();
        if let Some(heading) = heading(line) {
            summary.headings.push(heading.to_owned());
            opened |= !opening.is_empty();
        } else if line.is_empty() {
            opened |= !opening.is_empty();
        } else if !opened {
            opening.push_str(if opening.is_empty() { "" } else { " " });
            opening.push_str(line);
        }
    }
    summary.title = summary.headings.first().cloned();
    summary.minutes = summary.words.div_ceil(WORDS_PER_MINUTE);
    summary.opening = (!opening.is_empty()).then(|| first_sentence(&opening).to_owned());
    summary
}

fn heading(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches('#');
    let level = line.len() - rest.len();
    ((1..=6).contains(&level) && rest.starts_with(' ')).then(|| rest.trim().trim_end_matches('#').trim_end())
}

/// Up to the first full stop, question or exclamation mark that a space or the end follows.
fn first_sentence(text: &str) -> &str {
    let ends = text.match_indices(['.', '?', '!']).map(|(at, mark)| at + mark.len());
    let end = ends.into_iter().find(|end| text[*end..].is_empty() || text[*end..].starts_with(' '));
    &text[..end.unwrap_or(text.len())]
}

struct Summaries;

impl manifest::Guest for Summaries {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl subscriber::Guest for Summaries {
    fn receive(message: Message) -> Result<Vec<u8>, Failure> {
        let document: Document = serde_json::from_slice(&message.payload)
            .map_err(|e| Failure::Discard(format!(r#"the payload is not {{"text": "..."}}: {e}"#)))?;
        serde_json::to_vec(&summary(&document.text)).map_err(|e| Failure::Discard(e.to_string()))
    }
}

export!(Summaries);
