//! What a route leaves of a request's body is read and dropped before the response is sent.
//!
//! Most clients read the response only when they have sent everything. A connection that is closed before shows them no response,
//! but "broken pipe" or "connection reset": hyper closes it where the body was not read to its end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, StatusCode, header};
use futures_util::StreamExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use wharf_core::bounds;

/// Bytes of one body that are read and dropped at most.
const BYTES_MAX: u64 = 256 * bounds::MIB;
/// The longest time for which the rest of one body is read and dropped.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The place of one connection for the body that its request's route has left.
#[derive(Clone, Debug, Default)]
pub(super) struct UnreadBody(Arc<Mutex<Option<Incoming>>>);

impl UnreadBody {
    /// Returns the request with a body that comes back here when it is dropped before its end.
    pub(super) fn watch(&self, request: Request<Incoming>) -> Request<Body> {
        if request.body().is_end_stream() {
            return request.map(Body::new);
        }
        let waits_for_leave = request.headers().contains_key(header::EXPECT);
        request.map(|body| Body::new(WatchedBody { body: Some(body), unread: self.clone(), waits_for_leave }))
    }

    /// Reads and drops what the route has left; not of a client that was too slow to be waited for.
    pub(super) async fn drain(&self, status: StatusCode) {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(body) = left
            && status != StatusCode::REQUEST_TIMEOUT
        {
            Box::pin(read_and_drop(body)).await;
        }
    }
}

async fn read_and_drop(body: Incoming) {
    let mut left = BYTES_MAX;
    let mut parts = Body::new(body).into_data_stream();
    let rest = async {
        while let Some(Ok(part)) = parts.next().await {
            left = left.saturating_sub(part.len() as u64);
            if left == 0 {
                return;
            }
        }
    };
    // The response is the same if the end was not reached.
    let _ = tokio::time::timeout(TIME_MAX, rest).await;
}

/// The body of a request, as its route gets it.
struct WatchedBody {
    /// None once the end or an error was read.
    body: Option<Incoming>,
    unread: UnreadBody,
    /// True if the client sends the body only when it is asked for: one that was not asked for is not on its way.
    waits_for_leave: bool,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits_for_leave = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && !self.waits_for_leave
            && !body.is_end_stream()
        {
            *self.unread.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
