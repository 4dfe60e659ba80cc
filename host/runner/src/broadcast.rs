//! Broadcasts: one call to every subscriber of a topic, and exactly one reply from each.
//!
//! A live one calls them now, in parallel, and needs no store. A durable one is a job for each.

mod call_chain;
mod request;
mod replies;
mod durable;
mod guest_calls;
mod subscriber_call;
mod cluster;
mod live;
mod broadcasts;
mod remote_calls;

pub(crate) use broadcasts::Broadcasts;
pub(crate) use call_chain::CallChain;
pub(crate) use cluster::Cluster;
pub(crate) use durable::prepare;
pub use durable::{Batch, BatchJob};
pub(crate) use guest_calls::{Broadcaster, Effects, GuestCalls, GuestContext};
pub(crate) use remote_calls::RemoteCalls;
pub use replies::Replies;
pub use request::{Broadcast, BroadcastError};
pub(crate) use subscriber_call::CallContext;
