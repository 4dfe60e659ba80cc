//! An HTTP client for load: it owns one connection, keeps it open, and sends the same body repeatedly without copying it.

use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::cli_error::{CliError, ExitStatus};

/// The largest response that is read, in bytes: more than any response to a benchmark has.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The address of a host, and the token to use there.
#[derive(Clone, Debug)]
pub(super) struct HostAddress {
    /// The host name and the port.
    authority: String,
    token: Option<String>,
}

impl HostAddress {
    /// Parses an address. Only plain HTTP is supported: a benchmark through a TLS proxy would measure the proxy.
    pub(super) fn new(address: &str, token: Option<String>) -> anyhow::Result<HostAddress> {
        let authority = address.strip_prefix("http://").ok_or_else(|| {
            CliError::usage(format!("invalid host address `{address}` for a benchmark: it must start with http://"))
        })?;
        Ok(HostAddress { authority: authority.trim_end_matches('/').to_owned(), token })
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        let unreachable = |why: String| {
            CliError::new(
                ExitStatus::Unreachable,
                format!("could not reach the host at http://{}: {why}", self.authority),
            )
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.authority)).await;
        let stream = stream.map_err(|_| unreachable("the connection timed out".to_owned()))?;
        let stream = stream.map_err(|error| unreachable(error.to_string()))?;
        stream.set_nodelay(true).context("could not set up a connection")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(e.to_string()))?;
        // The task ends with the sender; an error of the connection is returned by the next request.
        drop(tokio::spawn(connection));
        Ok(Connection { sender, address: self.clone() })
    }
}

/// An open connection to a host.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Body>,
    address: HostAddress,
}

impl Connection {
    /// Sends a request and returns the status and the body of the response.
    pub(super) async fn request(
        &mut self,
        method: Method,
        path: &str,
        media_type: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.address.authority);
        if let Some(token) = &self.address.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.header(header::CONTENT_TYPE, media_type).body(Body::from(body));
        let request = request.context("could not create the request")?;
        let broken = |error: &dyn std::fmt::Display| {
            CliError::new(
                ExitStatus::Unreachable,
                format!("lost the connection to the host at http://{}: {error}", self.address.authority),
            )
        };
        self.sender.ready().await.map_err(|error| broken(&error))?;
        let response = self.sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (head, body) = response.into_parts();
        let bytes = to_bytes(Body::new(body), RESPONSE_BYTES_MAX).await.map_err(|error| broken(&error))?;
        Ok((head.status, bytes))
    }

    /// Sends a request and returns the body of the response.
    ///
    /// # Errors
    /// When the response is not a success.
    pub(super) async fn request_ok(
        &mut self,
        method: Method,
        path: &str,
        media_type: &str,
        body: Bytes,
    ) -> anyhow::Result<Bytes> {
        let (status, bytes) = self.request(method, path, media_type, body).await?;
        if status.is_success() {
            return Ok(bytes);
        }
        let problem: Option<Value> = serde_json::from_slice(&bytes).ok();
        let member = |name| problem.as_ref().and_then(|problem| problem.get(name)?.as_str()).unwrap_or_default();
        let text = format!("the host responded with {status}: {} ({})", member("detail"), member("code"));
        Err(CliError::new(ExitStatus::Refused, text).into())
    }

    /// Sends a GET request and parses the response as JSON.
    pub(super) async fn json(&mut self, path: &str) -> anyhow::Result<Value> {
        let bytes = self.request_ok(Method::GET, path, "application/json", Bytes::new()).await?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("could not parse the response of the host to GET {path} as JSON"))
    }
}
