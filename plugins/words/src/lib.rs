//! Counts the words of a text: one chunk for each line as it is counted, the totals as the result.

use std::{thread, time::Duration};

use exports::wharf::plugin::{
    handler::{self, Failure, Job},
    manifest,
    subscriber::{self, Message},
};
use serde::{Deserialize, Serialize};
use wharf::plugin::attempt;

wit_bindgen::generate!({ path: "../../wit", world: "plugin" });

#[derive(Deserialize)]
struct Order {
    text: String,
    /// Waits this long after each line: for watching a job while it runs.
    #[serde(default, rename = "pause-ms")]
    pause_ms: u64,
    /// How to fail, for seeing what the host makes of it.
    fail: Option<String>,
}

#[derive(Serialize)]
struct Line {
    line: usize,
    words: usize,
}

#[derive(Default, Serialize)]
struct Totals {
    lines: usize,
    words: usize,
    characters: usize,
}

#[derive(Serialize)]
struct Answer {
    words: usize,
    language: &'static str,
}

fn count(order: &Order) -> Result<Totals, Failure> {
    let lines = order.text.lines().count();
    let mut totals = Totals { characters: order.text.chars().count(), ..Totals::default() };
    for text in order.text.lines() {
        if attempt::cancelled() {
            return Err(Failure::Discard(format!("cancelled after line {} of {lines}", totals.lines)));
        }
        let words = text.split_whitespace().count();
        totals.lines += 1;
        totals.words += words;
        attempt::emit(&json(&Line { line: totals.lines, words })).map_err(Failure::Discard)?;
        attempt::progress(totals.lines as f32 / lines as f32, &format!("line {} of {lines}", totals.lines));
        if order.pause_ms > 0 {
            thread::sleep(Duration::from_millis(order.pause_ms));
        }
    }
    Ok(totals)
}

fn fail(how: &str) -> Failure {
    eprintln!("failing on request: {how}");
    let why = "asked to fail".to_owned();
    match how {
        "retry" => Failure::Retry(why),
        "retry-after" => Failure::RetryAfter((why, 1000)),
        "discard" => Failure::Discard(why),
        _ => panic!("asked to panic"),
    }
}

fn parsed(payload: &[u8]) -> Result<Order, Failure> {
    serde_json::from_slice(payload)
        .map_err(|e| Failure::Discard(format!(r#"the payload is not {{"text": "..."}}: {e}"#)))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("numbers always fit JSON");
    line.push(b'\n');
    line
}

struct Words;

impl manifest::Guest for Words {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl handler::Guest for Words {
    fn handle(job: Job) -> Result<Vec<u8>, Failure> {
        // `count` is the only task that the manifest declares: the host sends no other.
        let order = parsed(&job.payload)?;
        match &order.fail {
            Some(how) => Err(fail(how)),
            None => Ok(json(&count(&order)?)),
        }
    }
}

impl subscriber::Guest for Words {
    fn receive(message: Message) -> Result<Vec<u8>, Failure> {
        let words = parsed(&message.payload)?.text.split_whitespace().count();
        Ok(json(&Answer { words, language: "rust" }))
    }
}

export!(Words);
