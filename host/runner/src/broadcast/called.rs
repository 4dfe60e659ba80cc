//! What a subscriber may ask of its host while it answers a live broadcast.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use wharf_core::job::{NewJob, Stream};
use wharf_core::rollcall::Reply;
use wharf_core::topic::Topic;
use wharf_engine::{Attending, GuestJob, Plugin};

use super::{Broadcasts, Chain};
use crate::catalog::Catalog;
use crate::notice::Notice;
use crate::request::add_children;

pub(super) struct Called {
    pub(super) broadcasts: Arc<Broadcasts>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) plugin: Arc<Plugin>,
    pub(super) topic: Topic,
    /// With this subscriber as its last.
    pub(super) chain: Chain,
    /// Locked by the one guest while it enqueues, and by its end.
    pub(super) children: Mutex<Vec<NewJob>>,
}

impl Called {
    /// The jobs that it enqueued.
    pub(super) fn children(&self) -> Vec<NewJob> {
        std::mem::take(&mut *self.children.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, notice: &Notice) {
        (self.broadcasts.inserting.shared.tell)(notice);
    }
}

impl Attending for Called {
    fn emit(&self, _chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        let why = "nobody can follow a live broadcast; return what there is to say as the reply";
        Box::pin(ready(Err(why.to_owned())))
    }

    fn log(&self, stream: Stream, line: String) {
        let (plugin, topic) = (self.plugin.id.clone(), self.topic.clone());
        self.tell(&Notice::SubscriberLog { plugin, topic, stream, line });
    }

    fn log_dropped(&self, lines: u64) {
        let (plugin, topic) = (self.plugin.id.clone(), self.topic.clone());
        self.tell(&Notice::SubscriberLogDropped { plugin, topic, lines });
    }

    fn progress(&self, _fraction: f32, _note: String) {}

    fn enqueue(&self, jobs: Vec<GuestJob>) -> Result<Vec<String>, String> {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        add_children(&self.catalog, &*self.broadcasts.inserting.shared.store, jobs, &mut children)
    }

    fn broadcast(
        &self,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
        remaining: Duration,
    ) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        self.broadcasts.from_guest(topic, payload, timeout.min(remaining), &self.chain)
    }
}
