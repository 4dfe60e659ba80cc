//! HTTP requests of plugins: only to places that the operator granted, only to addresses that were vetted,
//! and all of it on the host's own threads, where a guest that computes cannot delay it.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri};
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
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};
use wharf_core::bounds;

use crate::sandbox::log::Log;
use crate::sandbox::plugin_env::Premises;
use crate::schedule::attempt_handle::AttemptHandle;

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Io), Error>;

/// The requests of one attempt.
pub(crate) struct Outbound {
    pub(crate) premises: Arc<Premises>,
    pub(crate) control: AttemptHandle,
    pub(crate) log: Log,
    /// No wait of a request is longer than its attempt may be.
    pub(crate) patience: Duration,
    pub(crate) requests: u32,
}

/// A request that was granted.
struct Errand {
    premises: Arc<Premises>,
    log: Log,
    tls: bool,
    host: String,
    port: u16,
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
    control: AttemptHandle,
}

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        match self.errand(request.uri(), options.unwrap_or_default()) {
            Err(refused) => Box::new(async move { Err(refused) }),
            Ok(errand) => {
                let run = AbortOnDropJoinHandle::from(self.premises.home.spawn(errand.run(request)));
                Box::new(run)
            }
        }
    }
}

impl Outbound {
    fn errand(&mut self, uri: &Uri, options: RequestOptions) -> Result<Errand, Error> {
        if self.control.ending().is_some() {
            return Err(Error::HttpRequestDenied);
        }
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        if authority.as_str().contains('@') {
            return Err(Error::HttpRequestUriInvalid);
        }
        let tls = uri.scheme() != Some(&Scheme::HTTP);
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = authority.host().to_owned();
        if !self.premises.settings.grants_request(tls, &host, port) {
            let place = format!("{}://{host}:{port}", if tls { "https" } else { "http" });
            self.log.host_line(&format!(
                "wharf: the request to {place} is refused, since it is not granted; to grant it: http = [\"{place}\"] under [plugins.{}] in wharf.toml",
                self.premises.plugin
            ));
            return Err(Error::HttpRequestDenied);
        }
        if self.requests == bounds::HTTP_REQUESTS_MAX {
            self.log.host_line(&format!(
                "wharf: an attempt may send {} requests; this and later ones are refused",
                bounds::HTTP_REQUESTS_MAX
            ));
        }
        if self.requests >= bounds::HTTP_REQUESTS_MAX {
            self.requests += 1;
            return Err(Error::ConnectionLimitReached);
        }
        self.requests += 1;
        let patience = |asked: Option<Duration>, max: Duration| asked.unwrap_or(max).min(max).min(self.patience);
        Ok(Errand {
            premises: Arc::clone(&self.premises),
            log: self.log.clone(),
            tls,
            host,
            port,
            connect: patience(options.connect_timeout, bounds::HTTP_CONNECT_TIMEOUT),
            first_byte: patience(options.first_byte_timeout, self.patience),
            between_bytes: patience(options.between_bytes_timeout, self.patience),
            control: self.control.clone(),
        })
    }
}

impl Errand {
    async fn run(self, request: Request<WasiBody>) -> Sent {
        let addresses = timeout(self.connect, self.resolve()).await.map_err(|_| Error::DnsTimeout)??;
        let stream = self.reach(&addresses).await?;
        if self.tls {
            let name = ServerName::try_from(self.host.trim_matches(['[', ']']).to_owned())
                .map_err(|_| Error::HttpRequestUriInvalid)?;
            let connector = TlsConnector::from(Arc::clone(&TRUST));
            let stream = timeout(self.connect, connector.connect(name, stream))
                .await
                .map_err(|_| Error::ConnectionTimeout)?
                .map_err(Error::Tls)?;
            self.exchange(stream, request).await
        } else {
            self.exchange(stream, request).await
        }
    }

    /// Resolves once; the connection is made to the very address that was vetted, so that a name cannot
    /// lead to one place when it is looked at and to another when it is used.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let dns = |error: io::Error| Error::DnsError { rcode: Some(error.to_string()), info_code: None };
        let bare = self.host.trim_matches(['[', ']']);
        let found = match bare.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, self.port)],
            Err(_) => look_up(bare.to_owned(), self.port).await.map_err(dns)?,
        };
        let granted =
            |address: &SocketAddr| self.premises.settings.grants_address(self.tls, &self.host, self.port, address.ip());
        let allowed: Vec<SocketAddr> = found.iter().copied().filter(granted).collect();
        if !allowed.is_empty() {
            return Ok(allowed);
        }
        if let Some(address) = found.first() {
            self.log.host_line(&format!(
                "wharf: the request to {bare} is refused: it leads to {}, which is not of the public internet; to grant it: addresses = [\"{}\"]",
                address.ip(),
                address.ip()
            ));
            return Err(Error::DestinationIpProhibited);
        }
        Err(Error::DestinationNotFound)
    }

    /// Tries one address after the other, each for its share of the time that is left.
    async fn reach(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
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

    async fn exchange(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        mut request: Request<WasiBody>,
    ) -> Sent {
        let max = bounds::HTTP_BODY_BYTES_MAX as usize;
        // On the wire only a proxy is told the scheme and the host.
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        let request = request.map(|body| Limited::new(body, max));
        let handshake = timeout(self.connect, http1::handshake(TokioIo::new(stream)));
        let (mut sender, connection) = handshake.await.map_err(|_| Error::ConnectionTimeout)??;
        let connection = AbortOnDropJoinHandle::from(tokio::spawn(connection));
        let response = timeout(self.first_byte, sender.send_request(request))
            .await
            .map_err(|_| Error::ConnectionReadTimeout)??;
        let body = |incoming| {
            let paced = Paced {
                incoming,
                between_bytes: self.between_bytes,
                silence: Box::pin(sleep(self.between_bytes)),
                control: self.control,
            };
            Limited::new(paced, max).map_err(body_error).boxed_unsync()
        };
        let io: Io = Box::new(async move { Ok(connection.await?) });
        Ok((response.map(body), io))
    }
}

/// The system's resolver cannot be interrupted: the permit goes with the lookup onto its thread, so that lookups which
/// nobody waits for any more still count and cannot take all threads of the host.
async fn look_up(name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let permit = Arc::clone(&LOOKUPS).acquire_owned().await.map_err(io::Error::other)?;
    let looked = tokio::task::spawn_blocking(move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        drop(permit);
        found
    });
    looked.await.map_err(io::Error::other)?
}

static LOOKUPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(bounds::HTTP_LOOKUPS_MAX)));

/// What `Limited` says is either its own bound or the error of the body below.
fn body_error(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    if error.is::<LengthLimitError>() {
        return Error::HttpResponseBodySize(Some(bounds::HTTP_BODY_BYTES_MAX));
    }
    match error.downcast::<Error>() {
        Ok(own) => *own,
        Err(other) => Error::InternalError(Some(other.to_string())),
    }
}

/// A response's body that fails when it falls silent for too long, and counts what came.
struct Paced {
    incoming: Incoming,
    between_bytes: Duration,
    /// Made on the host's runtime, so that its timer is there too.
    silence: Pin<Box<Sleep>>,
    control: AttemptHandle,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
                    self.control.meter().receive(data.len() as u64);
                }
                let next = tokio::time::Instant::now() + self.between_bytes;
                self.silence.as_mut().reset(next);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending if self.silence.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }
}

/// The authorities that browsers trust.
static TRUST: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
});
