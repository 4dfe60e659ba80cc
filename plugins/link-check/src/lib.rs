//! Finds the links of a saved Markdown document that lead nowhere, as far as that can be told without a network.

mod links;

use exports::wharf::plugin::{
    manifest,
    subscriber::{self, Failure, Message},
};
use serde::Deserialize;

wit_bindgen::generate!({ path: "../../wit", world: "subscriber-plugin" });

#[derive(Deserialize)]
struct Document {
    /// Where it stands, from the root of all documents: relative links begin there.
    #[serde(default)]
    path: String,
    text: String,
}

struct LinkCheck;

impl manifest::Guest for LinkCheck {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl subscriber::Guest for LinkCheck {
    fn receive(message: Message) -> Result<Vec<u8>, Failure> {
        let document: Document = serde_json::from_slice(&message.payload).map_err(|e| {
            Failure::Discard(format!(
                r#"the payload is not {{"path": "...", "text": "..."}}: {e}"#
            ))
        })?;
        let checked = links::check(&document.path, &document.text);
        serde_json::to_vec(&checked).map_err(|e| Failure::Discard(e.to_string()))
    }
}

export!(LinkCheck);
