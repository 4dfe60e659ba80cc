//! Accepts connections: a bounded number at once, each with a bound on the time that the head of a request may take.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Time from the opening of a connection, or the end of its last request, until the head of a request is complete.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failure to accept: without descriptors, accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves at most `max` connections at once until `stopping` is cancelled; more wait in the backlog of the listener. Then it
/// accepts no more, and each connection ends after the response that it is sending.
pub(crate) async fn serve(listener: TcpListener, routes: Router, max: usize, stopping: CancellationToken) {
    let slots = Arc::new(Semaphore::new(max));
    let open = TaskTracker::new();
    let next = async || {
        let slot = Arc::clone(&slots).acquire_owned().await;
        (slot, accept(&listener).await)
    };
    while let Some((slot, stream)) = stopping.run_until_cancelled(next()).await {
        let (routes, stopping) = (routes.clone(), stopping.clone());
        open.spawn(async move {
            connection(stream, routes, stopping).await;
            drop(slot);
        });
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
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

async fn connection(stream: TcpStream, routes: Router, stopping: CancellationToken) {
    let service = TowerToHyperService::new(routes);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopping.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended with an error");
    }
}
