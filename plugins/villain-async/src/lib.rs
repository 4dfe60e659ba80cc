//! A plugin whose `handle` is an `async func`: the host calls it like any other.

use std::{thread, time::Duration};

use exports::wharf::plugin::{
    handler::{self, Failure, Job},
    manifest,
};
use wharf::plugin::attempt;

wit_bindgen::generate!({ path: concat!(env!("OUT_DIR"), "/wit"), world: "handler-plugin" });

struct Async;

impl manifest::Guest for Async {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl handler::Guest for Async {
    async fn handle(job: Job) -> Result<Vec<u8>, Failure> {
        match job.task.as_str() {
            "echo" => {
                attempt::emit(&job.payload).map_err(Failure::Discard)?;
                Ok(job.payload)
            }
            // Of WASI 0.2, whose waiting is a blocking call also here.
            "sleep" => {
                let ms = String::from_utf8_lossy(&job.payload).trim().parse();
                let ms = ms.map_err(|e| {
                    Failure::Discard(format!("the payload is not a number of milliseconds: {e}"))
                })?;
                thread::sleep(Duration::from_millis(ms));
                Ok(job.payload)
            }
            other => Err(Failure::Discard(format!("there is no task {other}"))),
        }
    }
}

export!(Async);
