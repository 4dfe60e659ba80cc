//! Speaks to a running host over its HTTP API. Every answer that is no success becomes an error with an exit code.

use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use ureq::http::{Request, Response, header};
use ureq::{Agent, Body};
use wharf_core::bounds;

use super::cli_error::{Ending, Exit};
use super::progress::Progress;
use super::sse::Events;
use crate::http::encode;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The host sends something at least every 15 seconds, also where nothing happens.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// More than any result, and than any list.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A plugin that is still being made ready is waited for as long as one may be compiled.
const LOADING_PATIENCE: Duration = bounds::COMPILE_TIMEOUT;
const LOADING_PAUSE: Duration = Duration::from_secs(1);

/// A running host.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    host: String,
    token: Option<String>,
}

/// A request, without the address of the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Option<(&'static str, &'a [u8])>,
    pub(crate) last_event: Option<String>,
    /// The media type that is wanted, where there is a choice.
    pub(crate) accept: Option<&'static str>,
}

impl Client {
    pub(crate) fn new(host: &str, token: Option<String>) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(SILENCE_MAX))
            // The host is spoken to where it is said to be; what the environment says of proxies is for the web.
            .proxy(None)
            .max_redirects(0)
            .user_agent(concat!("wharf/", env!("CARGO_PKG_VERSION")))
            .build();
        Client { agent: config.new_agent(), host: host.to_owned(), token }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: String) -> anyhow::Result<T> {
        self.ask(Ask { method: "GET", path, ..Ask::default() })
    }

    /// Asks, and reads the answer as JSON.
    pub(crate) fn ask<T: DeserializeOwned>(&self, ask: Ask<'_>) -> anyhow::Result<T> {
        self.ask_whole(ask).map(|(read, _)| read)
    }

    /// The same, with the answer as it is written: what this command would print otherwise, or does not know, is in there.
    pub(crate) fn ask_whole<T: DeserializeOwned>(&self, ask: Ask<'_>) -> anyhow::Result<(T, Box<RawValue>)> {
        let what = format!("{} {}", ask.method, ask.path);
        let bytes = self.bytes(ask)?;
        let read = |bytes: &[u8]| Ok((serde_json::from_slice(bytes)?, serde_json::from_slice(bytes)?));
        read(&bytes).map_err(|error: serde_json::Error| {
            let text = format!("{} answered {what} with something else than this command understands ({error}); is it a Wharf host of this version?", self.host);
            Ending::new(Exit::Refused, text).into()
        })
    }

    /// Asks, and reads the answer as it is.
    pub(crate) fn bytes(&self, ask: Ask<'_>) -> anyhow::Result<Vec<u8>> {
        let mut response = self.send(ask)?;
        let read = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        read.map_err(|error| self.unreachable(&error).into())
    }

    /// A stream of events; `None` where the host says that there are no more.
    pub(crate) fn events(&self, ask: Ask<'_>) -> anyhow::Result<Option<Events<impl std::io::BufRead>>> {
        let response = self.send(ask)?;
        if response.status() == 204 {
            return Ok(None);
        }
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Some(Events::new(BufReader::new(Box::new(body) as Box<dyn Read>))))
    }

    fn send(&self, ask: Ask<'_>) -> Result<Response<Body>, Ending> {
        let mut request = Request::builder().method(ask.method).uri(format!("{}{}", self.host, ask.path));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(id) = ask.last_event {
            request = request.header("last-event-id", id);
        }
        if let Some(media_type) = ask.accept {
            request = request.header(header::ACCEPT, media_type);
        }
        let address =
            |error: ureq::http::Error| Ending::usage(format!("`{}` is no address of a host: {error}", self.host));
        let answer = match ask.body {
            Some((media_type, bytes)) => {
                self.agent.run(request.header(header::CONTENT_TYPE, media_type).body(bytes).map_err(address)?)
            }
            None => self.agent.run(request.body(()).map_err(address)?),
        };
        let response = answer.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response)) }
    }

    fn unreachable(&self, error: &ureq::Error) -> Ending {
        let text = match error {
            ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => format!(
                "there is no host at {}; start one with `wharf serve`, or say where it is with --host or WHARF__HOST",
                self.host
            ),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                format!("`{}` is no address of a host: {error}", self.host)
            }
            _ => format!("the host at {} could not be reached: {error}", self.host),
        };
        Ending::new(Exit::Unreachable, text)
    }

    fn refused(&self, mut response: Response<Body>) -> Ending {
        let status = response.status();
        let body = response.body_mut().read_to_vec().unwrap_or_default();
        match serde_json::from_slice::<Value>(&body) {
            Ok(Value::Object(problem)) if problem.contains_key("code") => {
                let member = |name| problem.get(name).and_then(Value::as_str).unwrap_or_default();
                let code = member("code");
                // The request was fine, and the host did what the task says: this is how the job ended.
                let exit = if code == "lane-full" { Exit::NotDone } else { Exit::Refused };
                let mut ending = Ending::new(exit, format!("{} ({code})", member("detail")));
                ending.passing = code == "store-busy";
                ending.loading = code == "plugin-loading";
                ending
            }
            _ => {
                let text =
                    format!("{} answered with status {status} and no explanation; is it a Wharf host?", self.host);
                Ending::new(Exit::Refused, text)
            }
        }
    }
}

/// Asks again while the host says that a plugin is still being made ready: it has changed nothing until then.
pub(crate) fn when_loaded<T>(ask: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let progress = Progress::new("asking the host");
    let began = Instant::now();
    loop {
        match ask() {
            Err(error) if began.elapsed() < LOADING_PATIENCE && Ending::is_loading(&error) => {
                progress.say(&format!("{error}"));
                std::thread::sleep(LOADING_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// A query of the values that are there; empty where none is.
pub(crate) fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let given = pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?))));
    let joined = given.collect::<Vec<_>>().join("&");
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

    #[test]
    fn a_host_that_is_not_there_says_how_to_start_one() {
        // A port that was just free: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error =
            Client::new(&format!("http://127.0.0.1:{port}"), None).get::<Value>("/v1/jobs".to_owned()).unwrap_err();
        assert_eq!(error.downcast_ref::<Ending>().unwrap().exit, Exit::Unreachable);
        assert!(error.to_string().contains("start one with `wharf serve`"), "{error}");
    }
}
