//! A request's body, watched for placeholders: it is sent as it is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::matcher::Place;
use super::placeholders::Placeholders;

/// Takes the place of a secret in the plugin's list, when its placeholder is first seen.
type OnStray = Box<dyn FnMut(usize) + Send>;

/// A body that is watched as it passes.
pub(crate) struct WatchedBody<B> {
    inner: B,
    watch: Option<Watch>,
}

struct Watch {
    placeholders: Arc<Placeholders>,
    place: Place,
    seen: Vec<usize>,
    on_stray: OnStray,
}

impl<B> WatchedBody<B> {
    /// Returns a body that is not watched.
    pub(crate) fn unwatched(inner: B) -> WatchedBody<B> {
        WatchedBody { inner, watch: None }
    }

    pub(crate) fn new(inner: B, placeholders: Arc<Placeholders>, on_stray: impl FnMut(usize) + Send + 'static) -> Self {
        let (place, seen, on_stray) = (Place::default(), Vec::new(), Box::new(on_stray));
        WatchedBody { inner, watch: Some(Watch { placeholders, place, seen, on_stray }) }
    }
}

impl Watch {
    fn look_at(&mut self, bytes: &[u8]) {
        let matcher = self.placeholders.matcher();
        for byte in bytes {
            self.place = matcher.step(self.place, *byte);
            if let Some((found, _)) = matcher.found(self.place).filter(|(found, _)| !self.seen.contains(found)) {
                self.seen.push(found);
                (self.on_stray)(found);
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for WatchedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(watch)) = (&frame, &mut self.watch) {
            if let Some(data) = frame.data_ref() {
                watch.look_at(data);
            }
            // What the data ends with does not go on in the trailers.
            for value in frame.trailers_ref().into_iter().flat_map(|trailers| trailers.values()) {
                watch.place = Place::default();
                watch.look_at(value.as_bytes());
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
