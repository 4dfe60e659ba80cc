//! A client of a running host's HTTP API. Every response that is not a success becomes an error with an exit status.

use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use ureq::http::{Request, Response, header};
use ureq::{Agent, Body};
use wharf_core::bounds;
use wharf_store::without_password;

use super::sse::Events;
use crate::cli_error::{CliError, ExitStatus};
use crate::http::encode;
use crate::progress::Progress;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause within a response. A host sends something at least every 15 seconds, even if nothing happens.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest response that is read, in bytes: more than any result or list has.
const RESPONSE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The time for which commands wait for a plugin that is still loading: as long as its compilation may take.
const LOADING_TIMEOUT: Duration = bounds::COMPILE_TIMEOUT;
const LOADING_PAUSE: Duration = Duration::from_secs(1);
/// The time for which a lost host is waited for: a host that restarts is back within it.
pub(crate) const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two tries to reach it again.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// A running host.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    host: String,
    /// The address without a password that is written in it, for errors.
    shown: String,
    token: Option<String>,
}

/// A request, without the address of the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApiRequest<'a> {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Option<(&'static str, &'a [u8])>,
    pub(crate) last_event: Option<String>,
    /// The media type of the response, for routes that offer several.
    pub(crate) accept: Option<&'static str>,
}

impl Client {
    pub(crate) fn new(host: &str, token: Option<String>) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            // No proxy: the proxies in the environment are for the web, and the host is at the address that the user gave.
            .proxy(None)
            .max_redirects(0)
            .user_agent(concat!("wharf/", env!("CARGO_PKG_VERSION")))
            .build();
        Client { agent: config.new_agent(), host: host.to_owned(), shown: without_password(host), token }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: String) -> anyhow::Result<T> {
        self.request(ApiRequest { method: "GET", path, ..ApiRequest::default() })
    }

    /// Sends a request and parses the response as JSON.
    pub(crate) fn request<T: DeserializeOwned>(&self, request: ApiRequest<'_>) -> anyhow::Result<T> {
        self.request_with_raw(request).map(|(read, _)| read)
    }

    /// Sends a request and returns the response both parsed and as raw JSON, which keeps the formatting of values and members
    /// that this command does not know.
    pub(crate) fn request_with_raw<T: DeserializeOwned>(
        &self,
        request: ApiRequest<'_>,
    ) -> anyhow::Result<(T, Box<RawValue>)> {
        let call = format!("{} {}", request.method, request.path);
        let bytes = self.bytes(request)?;
        let read = |bytes: &[u8]| Ok((serde_json::from_slice(bytes)?, serde_json::from_slice(bytes)?));
        read(&bytes).map_err(|error: serde_json::Error| {
            let text = format!("could not understand the response of {} to {call}: {error}; check that it is a Wharf host of this version", self.shown);
            CliError::new(ExitStatus::Refused, text).into()
        })
    }

    /// Sends a request and returns the bytes of the response.
    pub(crate) fn bytes(&self, request: ApiRequest<'_>) -> anyhow::Result<Vec<u8>> {
        let mut response = self.send(request)?;
        let read = response.body_mut().with_config().limit(RESPONSE_BYTES_MAX).read_to_vec();
        read.map_err(|error| self.unreachable(&error).into())
    }

    /// Sends a request and returns its stream of events, or `None` if the host reports that there are no more.
    pub(crate) fn events(&self, request: ApiRequest<'_>) -> anyhow::Result<Option<Events<impl std::io::BufRead>>> {
        let response = self.send(request)?;
        if response.status() == 204 {
            return Ok(None);
        }
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Some(Events::new(BufReader::new(Box::new(body) as Box<dyn Read>))))
    }

    fn send(&self, request: ApiRequest<'_>) -> Result<Response<Body>, CliError> {
        let mut builder = Request::builder().method(request.method).uri(format!("{}{}", self.host, request.path));
        if let Some(token) = &self.token {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(id) = request.last_event {
            builder = builder.header("last-event-id", id);
        }
        if let Some(media_type) = request.accept {
            builder = builder.header(header::ACCEPT, media_type);
        }
        let address =
            |error: ureq::http::Error| CliError::usage(format!("invalid host address `{}`: {error}", self.shown));
        let response = match request.body {
            Some((media_type, bytes)) => {
                self.agent.run(builder.header(header::CONTENT_TYPE, media_type).body(bytes).map_err(address)?)
            }
            None => self.agent.run(builder.body(()).map_err(address)?),
        };
        let response = response.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response)) }
    }

    fn unreachable(&self, error: &ureq::Error) -> CliError {
        let text = match error {
            ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => format!(
                "no host listens at {}; start one with `wharf serve`, or set its address with --host or WHARF__HOST",
                self.shown
            ),
            // Its text quotes the address.
            ureq::Error::BadUri(_) => {
                format!("invalid host address `{}`: expected a URL such as \"http://127.0.0.1:7070\"", self.shown)
            }
            ureq::Error::Http(error) => format!("invalid host address `{}`: {error}", self.shown),
            _ => format!("could not reach the host at {}: {error}", self.shown),
        };
        CliError::new(ExitStatus::Unreachable, text)
    }

    fn refused(&self, mut response: Response<Body>) -> CliError {
        let status = response.status();
        let body = response.body_mut().read_to_vec().unwrap_or_default();
        match serde_json::from_slice::<Value>(&body) {
            Ok(Value::Object(problem)) if problem.contains_key("code") => {
                let member = |name| problem.get(name).and_then(Value::as_str).unwrap_or_default();
                let code = member("code");
                // Not a refused request: the task's `on-conflict` says to discard the job.
                let exit = if code == "lane-full" { ExitStatus::NotDone } else { ExitStatus::Refused };
                // The host speaks of a header, which a command line has not.
                let more =
                    if code == "unauthorized" { "; a command sends that of WHARF__TOKEN or --bearer" } else { "" };
                let mut error = CliError::new(exit, format!("{}{more} ({code})", member("detail")));
                error.retryable = matches!(code, "store-busy" | "too-many-connections");
                error.plugin_loading = code == "plugin-loading";
                error
            }
            // Wharf describes its own with a problem document.
            _ if matches!(status.as_u16(), 502..=504) => {
                let text = format!(
                    "could not reach the host at {}: a proxy there responded with status {status}; check that the host runs, and \
                     that the proxy leads to it",
                    self.shown
                );
                CliError::new(ExitStatus::Unreachable, text)
            }
            _ => {
                let text = format!(
                    "{} responded with status {status} and without a problem document; check that it is a Wharf host",
                    self.shown
                );
                CliError::new(ExitStatus::Refused, text)
            }
        }
    }
}

/// Repeats a request while the host reports that a plugin is still loading. Until then the host has changed nothing, so
/// repeating is safe.
pub(crate) fn retry_while_loading<T>(request: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let progress = Progress::new("waiting for the host");
    let started = Instant::now();
    loop {
        match request() {
            Err(error) if started.elapsed() < LOADING_TIMEOUT && CliError::is_plugin_loading(&error) => {
                progress.set_message(&format!("{error}"));
                std::thread::sleep(LOADING_PAUSE);
            }
            result => return result,
        }
    }
}

/// Repeats a request that changes nothing while the host is away, for as long as a host takes to restart. The host was reached
/// before.
pub(crate) fn retry_while_away<T>(request: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        match request() {
            Err(error) if started.elapsed() < RECONNECT_TIMEOUT && CliError::is_away(&error) => {
                std::thread::sleep(RECONNECT_PAUSE);
            }
            result => return result,
        }
    }
}

/// Returns the query string of the values that are present, or an empty string if none is.
pub(crate) fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let present = pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?))));
    let joined = present.collect::<Vec<_>>().join("&");
    if joined.is_empty() { joined } else { format!("?{joined}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_carry_any_text() {
        assert_eq!(encode("words/count"), "words%2Fcount");
        assert_eq!(encode("a b&ü"), "a%20b%26%C3%BC");
        assert_eq!(query([("task", Some("a/b".to_owned())), ("key", None)]), "?task=a%2Fb");
        assert_eq!(query([("key", None)]), "");
    }

    /// Answers each connection with the next of these responses.
    fn server(responses: Vec<&'static str>) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for response in responses {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).unwrap();
                std::io::Write::write_all(&mut stream, response.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn a_proxy_that_does_not_reach_the_host_is_no_answer_of_the_host() {
        const GATEWAY: [&str; 3] = [
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>",
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        ];
        for response in GATEWAY {
            let client = Client::new(&server(vec![response]), None);
            let error = client.get::<Value>("/v1/jobs".to_owned()).unwrap_err();
            assert_eq!(error.downcast_ref::<CliError>().unwrap().exit, ExitStatus::Unreachable);
            assert!(CliError::is_away(&error) && error.to_string().contains("check that the host runs"), "{error}");
        }
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n7";
        let client = Client::new(&server(GATEWAY.into_iter().chain([ok]).collect()), None);
        assert_eq!(retry_while_away(|| client.get::<u32>("/v1/jobs".to_owned())).unwrap(), 7);
        let refused = "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let error = Client::new(&server(vec![refused]), None).get::<Value>("/".to_owned()).unwrap_err();
        assert!(!CliError::is_away(&error));
    }

    #[test]
    fn the_error_for_an_absent_host_says_how_to_start_one() {
        // A port that was just free: nothing listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error =
            Client::new(&format!("http://127.0.0.1:{port}"), None).get::<Value>("/v1/jobs".to_owned()).unwrap_err();
        assert_eq!(error.downcast_ref::<CliError>().unwrap().exit, ExitStatus::Unreachable);
        assert!(error.to_string().contains("start one with `wharf serve`"), "{error}");
    }
}
