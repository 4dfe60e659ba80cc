//! Makes a small PNG of a JPEG, PNG or WebP picture.

mod order;
mod picture;

use exports::wharf::plugin::{
    handler::{self, Failure, Job},
    manifest,
};
use wharf::plugin::attempt;

wit_bindgen::generate!({ path: "../../wit", world: "handler-plugin" });

struct Thumbnail;

impl manifest::Guest for Thumbnail {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl handler::Guest for Thumbnail {
    /// `make` is the only task that the manifest declares: the host sends no other.
    fn handle(job: Job) -> Result<Vec<u8>, Failure> {
        make(job).map_err(Failure::Discard)
    }
}

/// All that can go wrong here is in the picture or the order, and would go wrong again: none of it is worth a retry.
fn make(job: Job) -> Result<Vec<u8>, String> {
    let (size, bytes) = order::read(&job.payload)?;
    let picture = picture::open(bytes)?;
    step(
        0.1,
        &format!("decoding {} × {} pixels", picture.width, picture.height),
    )?;
    let picture = picture.decode()?;
    // The encoded form is not needed any more, and memory is what runs out first.
    drop(job);
    step(0.6, "shrinking")?;
    let small = picture.shrink(size);
    step(0.9, "encoding")?;
    small.png()
}

fn step(fraction: f32, note: &str) -> Result<(), String> {
    attempt::progress(fraction, note);
    if attempt::cancelled() {
        Err(format!("cancelled before {note}"))
    } else {
        Ok(())
    }
}

export!(Thumbnail);
