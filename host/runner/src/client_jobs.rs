//! The jobs of a client's requests: checked where that delays nobody, and with room for what is parsed.

use wharf_store::Store;

use crate::answer::EnqueueError;
use crate::parse_room;
use crate::plugin_view::PluginView;
use crate::request::{Prepared, Request, draw_ids, prepare, takes_long};
use crate::start::RunningHost;

impl RunningHost {
    /// Turns requests into jobs, apart from other requests if that takes long.
    pub(crate) async fn prepare(&self, view: PluginView, requests: Vec<Request>) -> Result<Prepared, EnqueueError> {
        if takes_long(&view, payloads(&requests)) {
            // In a box: the future of every request would have room for it, and is moved more than once.
            Box::pin(self.prepare_apart(view, requests)).await
        } else {
            jobs_of(&*self.store, &view, requests)
        }
    }

    async fn prepare_apart(&self, view: PluginView, mut requests: Vec<Request>) -> Result<Prepared, EnqueueError> {
        let mut room = None;
        if parse_room::takes_room(&view, payloads(&requests)) {
            let counted = view.clone();
            let count = move || (parse_room::room_needed(&counted, payloads(&requests)), requests);
            let (bytes, counted) = self.checks.run(count).await;
            requests = counted;
            room = Some(parse_room::for_client(&self.budget, bytes).await?);
        }
        let store = self.store.clone();
        let work = move || {
            let _until_parsed = room;
            jobs_of(&*store, &view, requests)
        };
        self.checks.run(work).await
    }
}

fn jobs_of(store: &dyn Store, view: &PluginView, requests: Vec<Request>) -> Result<Prepared, EnqueueError> {
    let ids = draw_ids(store, requests.len())?;
    prepare(view, requests, ids).map_err(EnqueueError::EnqueueRejection)
}

fn payloads(requests: &[Request]) -> impl Iterator<Item = (&str, &[u8])> {
    requests.iter().map(|request| (&*request.task, &*request.payload))
}
