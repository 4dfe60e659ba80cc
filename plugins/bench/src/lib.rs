//! What `wharf bench` runs: a task that does as little as can be, one that waits, one that never ends.
//!
//! Without the standard library, which imports twenty functions of WASI into every component whether they are used or
//! not: of WASI this one imports the clock that it waits by.

#![no_std]

extern crate alloc;

mod heap;

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{arch::wasm32, hint::black_box, panic::PanicInfo, time::Duration};

use exports::wharf::plugin::{
    handler::{self, Failure, Job},
    manifest,
    subscriber::{self, Message},
};
use wasi::clocks::monotonic_clock;

wit_bindgen::generate!({ path: ["../../wit", "wit"], world: "wharf:bench/bench", generate_all });

/// Waits as many milliseconds as the payload says, not at all where it is empty.
fn wait(payload: &[u8]) -> Result<(), Failure> {
    if payload.is_empty() {
        return Ok(());
    }
    let millis = str::from_utf8(payload).ok().and_then(|text| text.trim().parse().ok());
    let millis = millis.ok_or_else(|| Failure::Discard("the payload is no number of milliseconds".to_owned()))?;
    let nanos = u64::try_from(Duration::from_millis(millis).as_nanos()).unwrap_or(u64::MAX);
    monotonic_clock::subscribe_duration(nanos).block();
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

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    wasm32::unreachable()
}
