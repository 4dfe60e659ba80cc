//! What `wharf bench` runs: a task that does as little as can be, one that waits, one that never ends.

use std::{hint::black_box, thread, time::Duration};

use exports::wharf::plugin::{
    handler::{self, Failure, Job},
    manifest,
    subscriber::{self, Message},
};

wit_bindgen::generate!({ path: "../../wit", world: "plugin" });

/// Waits as many milliseconds as the payload says, not at all where it is empty.
fn wait(payload: &[u8]) -> Result<(), Failure> {
    if payload.is_empty() {
        return Ok(());
    }
    let millis = str::from_utf8(payload).ok().and_then(|text| text.trim().parse().ok());
    let millis = millis.ok_or_else(|| Failure::Discard("the payload is no number of milliseconds".to_owned()))?;
    thread::sleep(Duration::from_millis(millis));
    Ok(())
}

struct Bench;

impl manifest::Guest for Bench {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl handler::Guest for Bench {
    fn handle(job: Job) -> Result<Vec<u8>, Failure> {
        match job.task.as_str() {
            "wait" => wait(&job.payload)?,
            "loop" => loop {
                black_box(&job);
            },
            _ => {}
        }
        Ok(Vec::new())
    }
}

impl subscriber::Guest for Bench {
    fn receive(message: Message) -> Result<Vec<u8>, Failure> {
        wait(&message.payload)?;
        Ok(Vec::new())
    }
}

export!(Bench);
