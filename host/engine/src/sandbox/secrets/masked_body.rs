//! A response's body in which the values of secrets are masked as it passes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};

use super::mask::{Masks, Scan};

/// Frames of which nothing is passed on, in one poll: after so many, others have their turn. A server chooses how small they are.
const SILENT_FRAMES_MAX: usize = 64;

/// Takes the places of the secrets that a body had, at its end.
type OnEnd = Box<dyn FnOnce(&[usize]) + Send>;

/// A body that masks what `masks` find in another one.
pub(crate) struct MaskedBody<B> {
    inner: B,
    masks: Arc<Masks>,
    scan: Scan,
    /// The trailers, while bytes that were held back go before them.
    next: Option<Frame<Bytes>>,
    is_ended: bool,
    on_end: Option<OnEnd>,
}

impl<B> MaskedBody<B> {
    pub(crate) fn new(inner: B, masks: Arc<Masks>, on_end: impl FnOnce(&[usize]) + Send + 'static) -> MaskedBody<B> {
        let on_end: OnEnd = Box::new(on_end);
        let scan = Scan::new(&masks);
        MaskedBody { inner, masks, scan, next: None, is_ended: false, on_end: Some(on_end) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for MaskedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if let Some(next) = this.next.take() {
            return Poll::Ready(Some(Ok(next)));
        }
        let mut silent_frames = 0;
        while !this.is_ended {
            if silent_frames == SILENT_FRAMES_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            silent_frames += 1;
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let masked = this.scan.feed(&this.masks, data);
                        if !masked.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(masked))));
                        }
                    }
                    Err(frame) => {
                        let Ok(mut trailers) = frame.into_trailers() else { continue };
                        let mut found = this.masks.headers(&mut trailers);
                        this.scan.found.append(&mut found);
                        // Nothing of the data comes after them.
                        let held = this.scan.finish();
                        if held.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                        }
                        this.next = Some(Frame::trailers(trailers));
                        return Poll::Ready(Some(Ok(Frame::data(held))));
                    }
                },
                // What was held back of a body that broke off is lost with the rest.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.is_ended = true,
            }
        }
        let held = this.scan.finish();
        if !held.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(held))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended && self.scan.is_empty() && self.next.is_none()
    }
}

impl<B> Drop for MaskedBody<B> {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take().filter(|_| !self.scan.found.is_empty()) {
            on_end(&self.scan.found);
        }
    }
}
