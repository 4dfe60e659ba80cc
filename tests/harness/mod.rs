//! What the tests from outside share: the real binary, real components, a client.

mod client;
mod eventually;
mod guests;
mod host;

pub use client::{Client, Event, Reply};
pub use eventually::eventually;
pub use guests::{component, photo};
pub use host::{Host, Setup, wharf};
