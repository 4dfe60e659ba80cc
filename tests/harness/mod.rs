//! What the tests from outside share: the real binary, real components, a client.

mod browser;
mod client;
mod clock;
mod eventually;
mod guests;
mod host;
mod link;
#[expect(dead_code, reason = "the tests of the store break more")]
mod proxy;
#[path = "postgres.rs"]
#[expect(dead_code, reason = "the tests of the store do more with a server")]
mod server;
mod pooler;
mod promtool;
mod reverse_proxy;
mod terminal;
#[expect(dead_code, reason = "the tests of the store hold commits in more ways")]
mod valve;

pub(crate) use browser::Browser;
pub(crate) use client::{Client, Event, Reply, resolve};
pub(crate) use clock::MachineClock;
pub(crate) use eventually::{eventually, eventually_within};
pub(crate) use guests::{component, photo};
pub(crate) use host::{Hears, Host, Setup, wharf, wharf_under};
pub(crate) use link::link;
pub(crate) use pooler::Pooler;
pub(crate) use promtool::promtool;
pub(crate) use proxy::Proxy;
pub(crate) use reverse_proxy::ReverseProxy;
pub(crate) use server::{Postgres, shared_address};
pub(crate) use terminal::on_a_terminal;
pub(crate) use valve::Standby;
