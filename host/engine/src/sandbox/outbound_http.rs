//! HTTP requests of plugins: only to places that the operator granted, only to addresses that were checked, and on the
//! host's own runtime, where a guest that computes cannot delay them.

mod secret_headers;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};
use wharf_core::bounds;
use wharf_core::outcome::Interruption;

use crate::call::HostCalls;
use crate::sandbox::log::Log;
use crate::sandbox::plugin_env::{PluginEnv, RequestEnv};
use crate::sandbox::retry_after;
use crate::sandbox::secrets::masked_body::MaskedBody;
use crate::sandbox::secrets::placeholders::Placeholders;
use crate::schedule::attempt_handle::AttemptHandle;
use crate::spec::http_grant::default_port;

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Io), Error>;

/// Time within which a hold for a `Retry-After` must be durable: the guest waits for its response meanwhile.
const HOLD_TIMEOUT: Duration = Duration::from_secs(10);

/// The HTTP requests of one attempt.
pub(crate) struct Outbound {
    pub(crate) env: Arc<PluginEnv>,
    pub(crate) handle: AttemptHandle,
    pub(crate) log: Log,
    /// The timeout of the attempt, which no wait of a request exceeds.
    pub(crate) timeout_max: Duration,
    pub(crate) requests: u32,
    pub(crate) host_calls: Arc<dyn HostCalls>,
    /// The placeholders of the plugin's secrets; `None` if it has none.
    pub(crate) placeholders: Option<Arc<Placeholders>>,
}

/// A request to a granted place.
struct GrantedRequest {
    env: RequestEnv,
    log: Log,
    tls: bool,
    host: String,
    port: u16,
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
    handle: AttemptHandle,
    host_calls: Arc<dyn HostCalls>,
    placeholders: Option<Arc<Placeholders>>,
}

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        match self.granted(request.uri(), options.unwrap_or_default()) {
            Err(refused) => Box::new(async move { Err(refused) }),
            Ok(granted) => {
                let run = AbortOnDropJoinHandle::from(self.env.runtime.spawn(granted.run(request)));
                Box::new(run)
            }
        }
    }
}

impl Outbound {
    /// Returns true if the attempt was ended. The loss of a grant of its plugin ends it here.
    pub(crate) fn is_ended(&self) -> bool {
        if let Some(why) = self.env.revoked() {
            self.handle.stop(Interruption::Host, why.to_owned());
        }
        self.handle.end_reason().is_some()
    }

    fn granted(&mut self, uri: &Uri, options: RequestOptions) -> Result<GrantedRequest, Error> {
        if self.is_ended() {
            return Err(Error::HttpRequestDenied);
        }
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        if authority.as_str().contains('@') {
            return Err(Error::HttpRequestUriInvalid);
        }
        let tls = uri.scheme() != Some(&Scheme::HTTP);
        let port = authority.port_u16().unwrap_or(default_port(tls));
        let host = authority.host().to_owned();
        if !self.env.settings.grants_request(tls, &host, port) {
            let place = format!("{}://{host}:{port}", if tls { "https" } else { "http" });
            self.log.host_line(&format!(
                "wharf: request to {place} refused: not granted; to grant it, set http = [\"{place}\"] under [plugins.{}] in wharf.toml",
                self.env.plugin
            ));
            return Err(Error::HttpRequestDenied);
        }
        if self.requests == bounds::HTTP_REQUESTS_MAX {
            self.log.host_line(&format!(
                "wharf: request refused, as all later ones: the limit is {} for an attempt",
                bounds::HTTP_REQUESTS_MAX
            ));
        }
        if self.requests >= bounds::HTTP_REQUESTS_MAX {
            self.requests += 1;
            return Err(Error::ConnectionLimitReached);
        }
        self.requests += 1;
        let timeout_max =
            |requested: Option<Duration>, max: Duration| requested.unwrap_or(max).min(max).min(self.timeout_max);
        Ok(GrantedRequest {
            env: RequestEnv::new(&self.env),
            log: self.log.clone(),
            tls,
            host,
            port,
            connect: timeout_max(options.connect_timeout, bounds::HTTP_CONNECT_TIMEOUT),
            first_byte: timeout_max(options.first_byte_timeout, self.timeout_max),
            between_bytes: timeout_max(options.between_bytes_timeout, self.timeout_max),
            handle: self.handle.clone(),
            host_calls: Arc::clone(&self.host_calls),
            placeholders: self.placeholders.clone(),
        })
    }
}

impl GrantedRequest {
    async fn run(self, request: Request<WasiBody>) -> Sent {
        let addresses = timeout(self.connect, self.resolve()).await.map_err(|_| Error::DnsTimeout)??;
        let stream = self.connect_any(&addresses).await?;
        if self.tls {
            let name = ServerName::try_from(self.host.trim_matches(['[', ']']).to_owned())
                .map_err(|_| Error::HttpRequestUriInvalid)?;
            let connector = TlsConnector::from(Arc::clone(&self.env.tls));
            let stream = timeout(self.connect, connector.connect(name, stream))
                .await
                .map_err(|_| Error::ConnectionTimeout)?
                .map_err(Error::Tls)?;
            self.exchange(stream, request).await
        } else {
            self.exchange(stream, request).await
        }
    }

    /// Resolves the host's name once. The connection is made to the very address that was checked, so that a name
    /// cannot lead to one place when it is checked and to another when it is used.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let dns = |error: io::Error| Error::DnsError { rcode: Some(error.to_string()), info_code: None };
        let bare = self.host.trim_matches(['[', ']']);
        let found = match bare.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, self.port)],
            Err(_) => lookup(bare.to_owned(), self.port).await.map_err(dns)?,
        };
        let granted =
            |address: &SocketAddr| self.env.settings.grants_address(self.tls, &self.host, self.port, address.ip());
        let allowed: Vec<SocketAddr> = found.iter().copied().filter(granted).collect();
        if !allowed.is_empty() {
            return Ok(allowed);
        }
        if let Some(address) = found.first() {
            self.log.host_line(&format!(
                "wharf: request to {bare} refused: it leads to {address}, which is not on the public internet; to grant it, set addresses = [\"{address}\"] under [plugins.{}] in wharf.toml",
                self.env.plugin,
                address = address.ip()
            ));
            return Err(Error::DestinationIpProhibited);
        }
        Err(Error::DestinationNotFound)
    }

    /// Tries one address after the other, each for its share of the time that is left.
    async fn connect_any(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
        let until = tokio::time::Instant::now() + self.connect;
        let mut failed = Error::ConnectionTimeout;
        for (tried, address) in addresses.iter().enumerate() {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = Error::Connect(error),
                Err(_) => failed = Error::ConnectionTimeout,
            }
        }
        Err(failed)
    }

    /// Holds the job's key, since the other side asks not to be called for so long. The guest gets the response when that is durable.
    async fn hold_key(&self, status: StatusCode, length: Duration) {
        let reason = format!("{} answered {} and Retry-After", self.host, status.as_u16());
        let held = timeout(HOLD_TIMEOUT, self.host_calls.hold_key(length, reason)).await;
        match held.unwrap_or_else(|_| Err("the store did not respond".to_owned())) {
            Ok(()) => {}
            Err(why) => self.log.host_line(&format!("wharf: the key was not held for a Retry-After: {why}")),
        }
    }

    async fn exchange(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        mut request: Request<WasiBody>,
    ) -> Sent {
        let max = bounds::HTTP_BODY_BYTES_MAX as usize;
        // The grant, the address and the other side's certificate are checked by now.
        self.put_secrets(&mut request)?;
        // HTTP/1.1 sends the scheme and the host in the request line only to a proxy.
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        let request = request.map(|body| self.watched(Limited::new(body, max)));
        let handshake = timeout(self.connect, http1::handshake(TokioIo::new(stream)));
        let (mut sender, connection) = handshake.await.map_err(|_| Error::ConnectionTimeout)??;
        let connection = AbortOnDropJoinHandle::from(tokio::spawn(connection));
        let mut response = timeout(self.first_byte, sender.send_request(request))
            .await
            .map_err(|_| Error::ConnectionReadTimeout)??;
        if let Some(length) =
            self.env.settings.retry_after_max().and_then(|max| retry_after::hold_length(&response, max))
        {
            self.hold_key(response.status(), length).await;
        }
        let masks = self.masks().await?;
        if let Some(masks) = &masks {
            self.mask_headers(masks, &mut response)?;
        }
        let on_masked = self.on_masked();
        let body = |incoming| {
            let timed = TimedBody {
                incoming,
                between_bytes: self.between_bytes,
                idle_timer: Box::pin(sleep(self.between_bytes)),
                handle: self.handle,
            };
            let limited = Limited::new(timed, max).map_err(body_error);
            match masks {
                Some(masks) => MaskedBody::new(limited, masks, on_masked).boxed_unsync(),
                None => limited.boxed_unsync(),
            }
        };
        let io: Io = Box::new(async move { Ok(connection.await?) });
        Ok((response.map(body), io))
    }
}

/// Resolves a name by the system's resolver, which cannot be interrupted: the permit moves onto the lookup's thread, so
/// that lookups whose caller is gone still count and cannot take all threads of the host.
async fn lookup(name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let permit = Arc::clone(&LOOKUPS).acquire_owned().await.map_err(io::Error::other)?;
    let resolved = tokio::task::spawn_blocking(move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        drop(permit);
        found
    });
    resolved.await.map_err(io::Error::other)?
}

static LOOKUPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(bounds::HTTP_LOOKUPS_MAX)));

/// Converts an error of `Limited`: either its own limit or the error of the body below.
fn body_error(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    if error.is::<LengthLimitError>() {
        return Error::HttpResponseBodySize(Some(bounds::HTTP_BODY_BYTES_MAX));
    }
    match error.downcast::<Error>() {
        Ok(own) => *own,
        Err(other) => Error::InternalError(Some(other.to_string())),
    }
}

/// A response's body that fails if no data arrives for too long, and counts the bytes that arrive.
struct TimedBody {
    incoming: Incoming,
    between_bytes: Duration,
    /// Made on the host's runtime, so that its timer runs there too.
    idle_timer: Pin<Box<Sleep>>,
    handle: AttemptHandle,
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
                    self.handle.meter().receive(data.len() as u64);
                }
                let next = tokio::time::Instant::now() + self.between_bytes;
                self.idle_timer.as_mut().reset(next);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending if self.idle_timer.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }
}
