//! What `functions` does, as a plugin of the contract: payloads are read and results are written here, by serde.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use exports::wharf::plugin::{
    handler::{self, Failure, Job},
    manifest,
};
use serde::{Deserialize, Serialize};

wit_bindgen::generate!({ path: "../../wit", world: "handler-plugin" });

#[derive(Deserialize, Serialize)]
struct Row {
    id: u64,
    name: String,
    score: Option<f32>,
    level: Level,
    marks: Vec<Mark>,
    #[serde(rename = "seen-at")]
    seen_at: (i32, char),
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Low,
    Middle,
    High,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Read,
    Starred,
    Hidden,
}

#[derive(Deserialize)]
struct Move {
    row: Row,
    by: i32,
}

#[derive(Deserialize)]
struct Bytes {
    bytes: String,
}

#[derive(Deserialize)]
struct Rows {
    rows: Vec<Row>,
}

fn parsed<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(payload).map_err(|error| Failure::Discard(error.to_string()))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data always fits JSON")
}

struct Functions;

impl manifest::Guest for Functions {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl handler::Guest for Functions {
    fn handle(job: Job) -> Result<Vec<u8>, Failure> {
        match job.task.as_str() {
            "move" => {
                let Move { row, by } = parsed(&job.payload)?;
                match row.seen_at.0.checked_add(by) {
                    Some(place) => Ok(json(&Row { seen_at: (place, row.seen_at.1), ..row })),
                    None => Err(Failure::Retry(String::from_utf8_lossy(&json(&row)).into_owned())),
                }
            }
            "reverse" => {
                let Bytes { bytes } = parsed(&job.payload)?;
                let bytes = BASE64_STANDARD.decode(bytes).map_err(|error| Failure::Discard(error.to_string()))?;
                Ok(bytes.into_iter().rev().collect())
            }
            "reverse-raw" => Ok(job.payload.into_iter().rev().collect()),
            _ => {
                let Rows { mut rows } = parsed(&job.payload)?;
                rows.reverse();
                Ok(json(&rows))
            }
        }
    }
}

export!(Functions);
