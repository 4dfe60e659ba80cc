//! Misbehaves on request: the payload says how, the task says under which policy. Broadcasts are obeyed like jobs.
//!
//! `order.rs` has everything that can be asked for; the other files do it, one file for each thing that a host must survive.

mod order;

mod crash;
mod flood;
mod hoard;
mod outside;
mod time;
mod wharf_calls;

use exports::wharf::plugin::{
    handler::{self, Failure, Job},
    manifest,
    subscriber::{self, Message},
};

wit_bindgen::generate!({ path: "../../wit", world: "plugin" });

struct Villain;

impl manifest::Guest for Villain {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl handler::Guest for Villain {
    fn handle(job: Job) -> Result<Vec<u8>, Failure> {
        let order = order::read(&job.payload)?;
        order::obey(order, &job)
    }
}

impl subscriber::Guest for Villain {
    /// A message is obeyed like a job whose task is its topic.
    fn receive(message: Message) -> Result<Vec<u8>, Failure> {
        let Message { id, topic, payload } = message;
        let job = Job { id, task: topic, key: None, payload, attempt: 1 };
        let order = order::read(&job.payload)?;
        order::obey(order, &job)
    }
}

export!(Villain);
