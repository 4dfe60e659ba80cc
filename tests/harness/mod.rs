//! What the tests from outside share: the real binary, real components, a client.

mod client;
mod eventually;
mod guests;
mod host;
#[expect(dead_code, reason = "the tests of the store break more")]
mod proxy;
#[expect(dead_code, reason = "the tests of the store do more with a server")]
mod postgres;

pub(crate) use client::{Client, Event, Reply};
pub(crate) use eventually::eventually;
pub(crate) use guests::{component, photo};
pub(crate) use host::{Host, Setup, wharf};
pub(crate) use postgres::{Postgres, shared_address};
pub(crate) use proxy::Proxy;
