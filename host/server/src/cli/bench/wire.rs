//! An HTTP client made for load: one connection each, kept open, no copy of what is sent again and again.

use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::super::cli_error::{Ending, Exit};

/// More than any answer to a bench.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Where the host is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Name and port.
    authority: String,
    token: Option<String>,
}

impl Place {
    /// Only plain HTTP: a bench through a proxy with TLS would measure the proxy.
    pub(super) fn new(address: &str, token: Option<String>) -> anyhow::Result<Place> {
        let authority = address.strip_prefix("http://").ok_or_else(|| {
            Ending::usage(format!("`{address}` is no address for a bench; one that begins with http:// is expected"))
        })?;
        Ok(Place { authority: authority.trim_end_matches('/').to_owned(), token })
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        let unreachable = |why: String| {
            Ending::new(Exit::Unreachable, format!("the host at http://{} could not be reached: {why}", self.authority))
        };
        let stream = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(&self.authority)).await;
        let stream = stream.map_err(|_| unreachable("it does not answer".to_owned()))?;
        let stream = stream.map_err(|error| unreachable(error.to_string()))?;
        stream.set_nodelay(true).context("could not set up a connection")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(e.to_string()))?;
        // It ends with the sender; what broke it off is told to who sends next.
        drop(tokio::spawn(connection));
        Ok(Connection { sender, place: self.clone() })
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Body>,
    place: Place,
}

impl Connection {
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        media_type: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.place.authority);
        if let Some(token) = &self.place.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.header(header::CONTENT_TYPE, media_type).body(Body::from(body));
        let request = request.context("could not make a request")?;
        let broken = |error: &dyn std::fmt::Display| {
            Ending::new(Exit::Unreachable, format!("the host at http://{} broke off: {error}", self.place.authority))
        };
        self.sender.ready().await.map_err(|error| broken(&error))?;
        let response = self.sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (head, body) = response.into_parts();
        let bytes = to_bytes(Body::new(body), ANSWER_BYTES_MAX).await.map_err(|error| broken(&error))?;
        Ok((head.status, bytes))
    }

    /// The same, where everything but a success is an error.
    pub(super) async fn must(
        &mut self,
        method: Method,
        path: &str,
        media_type: &str,
        body: Bytes,
    ) -> anyhow::Result<Bytes> {
        let (status, bytes) = self.ask(method, path, media_type, body).await?;
        if status.is_success() {
            return Ok(bytes);
        }
        let said: Option<Value> = serde_json::from_slice(&bytes).ok();
        let member = |name| said.as_ref().and_then(|said| said.get(name)?.as_str()).unwrap_or_default();
        let text = format!("the host answered {status}: {} ({})", member("detail"), member("code"));
        Err(Ending::new(Exit::Refused, text).into())
    }

    pub(super) async fn json(&mut self, path: &str) -> anyhow::Result<Value> {
        let bytes = self.must(Method::GET, path, "application/json", Bytes::new()).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("the host answered GET {path} with no JSON"))
    }
}
