//! Misbehaves on request: the payload says how, the task says under which policy.
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
};

wit_bindgen::generate!({ path: "../../wit", world: "handler-plugin" });

struct Villain;

impl manifest::Guest for Villain {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl handler::Guest for Villain {
    fn handle(job: Job) -> Result<Vec<u8>, Failure> {
        let order = order::read(&job)?;
        order::obey(order, &job)
    }
}

export!(Villain);
