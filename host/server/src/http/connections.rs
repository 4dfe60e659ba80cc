//! Accepts connections: a bounded number at once, and some more for probes alone.
//!
//! A client may be slow in three ways, each of which has its own bound: with the head of a request, with its body (`body.rs`), and
//! with taking the response. Where all places are taken, connections that wait for a head make room, the longest first. Where
//! all of them are busy, a few more are accepted, on which only probes are answered.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, Response, header};
use axum::response::IntoResponse;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection_state::{ConnectionState, OpenConnections, Registered};
use super::peer_address::note_peer;
use super::problem::{Kind, Problem};
use super::routes::Routes;
use super::timed_stream::{ClientTimeouts, TimedStream};
use super::unread_body::UnreadBody;

/// The times that clients have. Load balancers keep idle connections for up to ten minutes, and a host that closes one first makes
/// a request fail that is just being sent. Idle connections make room for others, so they may stay.
const TIMEOUTS: ClientTimeouts =
    ClientTimeouts { head: Duration::from_secs(30), idle: Duration::from_secs(620), write: Duration::from_secs(60) };
/// Number of further connections, on which only probes are answered.
const FOR_PROBES: usize = 64;
/// Largest size in bytes of a request's head, and about the size that is read and written at once.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Pause after a failure to accept: without descriptors, accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The bounds of all connections together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionBounds {
    /// Number of connections that are served at once.
    max: usize,
    /// Number of further connections, on which only probes are answered.
    for_probes: usize,
    timeouts: ClientTimeouts,
}

impl ConnectionBounds {
    /// Returns the bounds with which `max` connections are served at once.
    pub(crate) fn new(max: usize) -> ConnectionBounds {
        ConnectionBounds { max, for_probes: FOR_PROBES.min(max / 4).max(1), timeouts: TIMEOUTS }
    }
}

/// The places of one kind, and the connections that have them.
struct Places {
    free: Arc<Semaphore>,
    open: Arc<OpenConnections>,
}

/// The place of one connection.
struct Place {
    for_probes: bool,
    // In this order: who waits for the permit finds no other connection in its place.
    _registered: Registered,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn new(count: usize) -> Places {
        Places { free: Arc::new(Semaphore::new(count)), open: Arc::default() }
    }

    /// Returns a free place. If none is, connections that wait for a head make room for one.
    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        // Those that make room end at once, whatever their clients do.
        if self.open.make_room() { Arc::clone(&self.free).acquire_owned().await.ok() } else { None }
    }
}

/// Serves connections within these bounds until `stopping` is cancelled. Then it accepts no more, and each connection ends after
/// the response that it is sending.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Routes,
    bounds: ConnectionBounds,
    stopping: CancellationToken,
) {
    let epoch = Instant::now();
    let (places, for_probes) = (Places::new(bounds.max), Places::new(bounds.for_probes));
    let open = TaskTracker::new();
    let next = async || {
        let (stream, peer) = accept(&listener).await;
        let state = Arc::new(ConnectionState::new(epoch));
        let (permit, is_for_probes) = loop {
            if let Some(permit) = places.take().await {
                break (permit, false);
            }
            if let Some(permit) = for_probes.take().await {
                break (permit, true);
            }
            // All are busy.
            tokio::select! {
                Ok(permit) = Arc::clone(&places.free).acquire_owned() => break (permit, false),
                Ok(permit) = Arc::clone(&for_probes.free).acquire_owned() => break (permit, true),
                () = tokio::time::sleep(ACCEPT_PAUSE) => {}
            }
        };
        let open = if is_for_probes { &for_probes.open } else { &places.open };
        let place = Place { for_probes: is_for_probes, _registered: open.add(&state), _permit: permit };
        (stream, peer, state, place)
    };
    while let Some((stream, peer, state, place)) = stopping.run_until_cancelled(next()).await {
        let stream = TimedStream::new(stream, Arc::clone(&state), bounds.timeouts);
        let client = Client {
            routes: routes.clone(),
            state,
            place,
            peer,
            idle: bounds.timeouts.idle,
            unread: UnreadBody::default(),
        };
        open.spawn(client.serve(stream, stopping.clone()));
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip()),
            // The client closed the connection before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => {
                warn!(%error, "could not accept a connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from its first request to its last.
struct Client {
    routes: Routes,
    state: Arc<ConnectionState>,
    place: Place,
    /// The address of the other end.
    peer: IpAddr,
    idle: Duration,
    unread: UnreadBody,
}

impl Client {
    async fn serve(self, stream: TimedStream, stopping: CancellationToken) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.idle).max_buf_size(BUFFER_BYTES_MAX);
        let service = service_fn(|request| self.respond(request));
        let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = self.state.closing() => {
                debug!("a connection that waited for a request made room for another one");
                return;
            }
            () = stopping.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a connection ended with an error");
        }
    }

    async fn respond(&self, mut request: Request<Incoming>) -> Result<Response<RespondingBody>, Closing> {
        if !self.state.begin() {
            return Err(Closing);
        }
        let responding = Responding(Arc::clone(&self.state));
        note_peer(&mut request, self.peer);
        let request = self.unread.watch(request);
        let response = if self.place.for_probes {
            let mut response = match request.uri().path() {
                "/health" | "/ready" | "/metrics" => self.routes.call(request).await,
                _ => too_many_connections().into_response(),
            };
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        } else {
            let response = self.routes.call(request).await;
            self.unread.drain(response.status()).await;
            response
        };
        Ok(response.map(|body| RespondingBody { body, _responding: responding }))
    }
}

fn too_many_connections() -> Problem {
    let detail =
        "all connections of this host are busy, and only probes have more of them; nothing was changed, try again";
    Problem::new(Kind::TOO_MANY_CONNECTIONS, detail)
}

/// Error of a request on a connection that was just chosen to be closed. The request changed nothing.
#[derive(Debug)]
struct Closing;

impl std::fmt::Display for Closing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection made room for another one")
    }
}

impl std::error::Error for Closing {}

/// Marks a response that is not complete, until this is dropped.
struct Responding(Arc<ConnectionState>);

impl Drop for Responding {
    fn drop(&mut self) {
        self.0.responded();
    }
}

/// The body of a response, with the mark of its connection.
struct RespondingBody {
    body: Body,
    _responding: Responding,
}

impl HttpBody for RespondingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;
    use futures_util::{StreamExt as _, stream};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);
    const SLOW: ClientTimeouts = ClientTimeouts { head: LONG, idle: LONG, write: LONG };

    /// A host of three routes.
    struct Served {
        address: SocketAddr,
        /// Hears of each endless response that ended.
        ended: mpsc::UnboundedReceiver<()>,
        _stop: tokio_util::sync::DropGuard,
    }

    async fn start(max: usize, timeouts: ClientTimeouts) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = mpsc::unbounded_channel();
        let endless = async move || {
            let parts = stream::repeat(Bytes::from_static(&[b'x'; 65_536])).map(Ok::<_, std::convert::Infallible>);
            struct OnDrop(mpsc::UnboundedSender<()>);
            impl Drop for OnDrop {
                fn drop(&mut self) {
                    let _ = self.0.send(());
                }
            }
            let mark = OnDrop(end.clone());
            Body::from_stream(parts.inspect(move |_| {
                let _ = &mark;
            }))
        };
        let routes = Router::new()
            .route("/health", get(async || "well"))
            .route("/short", get(async || "short"))
            .route("/endless", get(endless));
        let stopping = CancellationToken::new();
        let bounds = ConnectionBounds { max, for_probes: 1, timeouts };
        tokio::spawn(serve(listener, routes.into(), bounds, stopping.clone()));
        Served { address, ended, _stop: stopping.drop_guard() }
    }

    async fn send(to: &Served, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(to.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Sends a request on a connection of its own, and returns the response.
    async fn ask(to: &Served, path: &str) -> String {
        let mut stream = send(to, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let mut response = String::new();
        // The host may close a connection that it has no place for.
        let _ = timeout(LONG, stream.read_to_string(&mut response)).await.expect("a response");
        response
    }

    /// Begins an endless response.
    async fn endless(to: &Served) -> TcpStream {
        let mut stream = send(to, "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut first = [0; 8];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1");
        stream
    }

    #[tokio::test]
    async fn a_client_that_takes_no_bytes_is_let_go() {
        let mut served = start(8, ClientTimeouts { write: SHORT, ..SLOW }).await;
        let _silent = endless(&served).await;
        timeout(LONG, served.ended.recv()).await.expect("its response ends, although the client is still there");
    }

    #[tokio::test]
    async fn a_slow_head_is_let_go_and_a_silent_connection_stays() {
        let served = start(8, ClientTimeouts { head: SHORT, ..SLOW }).await;
        let mut silent = send(&served, "").await;
        let mut slow = send(&served, "GET /short HTTP/1.1\r\nHo").await;
        let mut nothing = Vec::new();
        let _ = timeout(LONG, slow.read_to_end(&mut nothing)).await.expect("it is closed");
        assert!(nothing.is_empty());
        for _ in 0..2 {
            silent.write_all(b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut response = Vec::new();
            while !response.ends_with(b"short") {
                response.push(silent.read_u8().await.unwrap());
            }
            assert!(response.starts_with(b"HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn connections_that_wait_make_room_for_others() {
        let served = start(2, SLOW).await;
        let mut waiting = Vec::new();
        for head in ["GET /short HTTP/1.1\r\nHo", "", "G", "", "GET /short HTTP/1.1\r\nHost: a\r\n"] {
            waiting.push(send(&served, head).await);
            assert!(ask(&served, "/short").await.ends_with("short"));
            assert!(ask(&served, "/health").await.ends_with("well"));
        }
    }

    #[tokio::test]
    async fn where_all_are_busy_only_probes_are_answered() {
        let mut served = start(2, SLOW).await;
        let mut busy = vec![endless(&served).await, endless(&served).await];
        for _ in 0..3 {
            let well = ask(&served, "/health").await;
            assert!(well.starts_with("HTTP/1.1 200") && well.contains("connection: close"), "{well}");
            let refused = ask(&served, "/short").await;
            assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too-many-connections"), "{refused}");
        }
        // A slow head on the place for probes makes room, too.
        let _slow = send(&served, "GET /hea").await;
        assert!(ask(&served, "/health").await.ends_with("well"));
        drop(busy.pop());
        timeout(LONG, served.ended.recv()).await.expect("its response ends").unwrap();
        timeout(LONG, async { while !ask(&served, "/short").await.ends_with("short") {} })
            .await
            .expect("there is room");
    }
}
