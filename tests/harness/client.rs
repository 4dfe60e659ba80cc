//! A plain client of the HTTP API: it knows JSON and server-sent events, and no type of the host.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde_json::Value;

#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    address: String,
    token: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) location: Option<String>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no JSON ({e}): {}", String::from_utf8_lossy(&self.body)))
    }

    /// The JSON of an answer that must be a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        self.json()
    }
}

/// Resolves a relative reference in the answer from `path`, as RFC 3986 says; returns the path that it names.
pub(crate) fn resolve(path: &str, reference: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    if reference.starts_with('?') {
        return format!("{path}{reference}");
    }
    assert!(!reference.starts_with('/') && !reference.contains(':'), "a relative reference: {reference}");
    let mut segments: Vec<&str> = path.split('/').collect();
    segments.pop();
    let mut rest = reference;
    while let Some(after) = rest.strip_prefix("../") {
        segments.pop();
        rest = after;
    }
    segments.push(rest);
    segments.join("/")
}

/// One server-sent event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: Option<u64>,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

impl Client {
    pub(crate) fn new(address: &str) -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Client { agent: config.into(), address: address.to_owned(), token: None }
    }

    pub(crate) fn with_token(mut self, token: Option<&str>) -> Client {
        self.token = token.map(str::to_owned);
        self
    }

    fn signed<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn reply(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Reply, ureq::Error> {
        let response = result?;
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (content_type, retry_after) = (header("content-type").unwrap_or_default(), header("retry-after"));
        let location = header("location");
        let mut body = Vec::new();
        response.into_body().into_reader().read_to_end(&mut body)?;
        Ok(Reply { status, body, content_type, retry_after, location })
    }

    pub(crate) fn try_get(&self, path: &str) -> Result<Reply, ureq::Error> {
        Self::reply(self.signed(self.agent.get(format!("{}{path}", self.address))).call())
    }

    pub(crate) fn try_post(&self, path: &str, body: &Value) -> Result<Reply, ureq::Error> {
        Self::reply(self.signed(self.agent.post(format!("{}{path}", self.address))).send_json(body))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.try_get(path).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.try_post(path, body).unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    #[track_caller]
    pub(crate) fn post_bytes(&self, path: &str, content_type: &str, body: &[u8]) -> Reply {
        let request =
            self.signed(self.agent.post(format!("{}{path}", self.address))).header("content-type", content_type);
        Self::reply(request.send(body)).unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: &Value) -> Reply {
        Self::reply(self.signed(self.agent.put(format!("{}{path}", self.address))).send_json(body))
            .unwrap_or_else(|e| panic!("PUT {path}: {e}"))
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Reply {
        Self::reply(self.signed(self.agent.delete(format!("{}{path}", self.address))).call())
            .unwrap_or_else(|e| panic!("DELETE {path}: {e}"))
    }

    /// Follows a job's events after number `after`. Ends when the host closes the stream, or goes away.
    #[track_caller]
    pub(crate) fn events(&self, job: &str, after: Option<u64>) -> impl Iterator<Item = Event> + use<> {
        let mut request = self.signed(self.agent.get(format!("{}/v1/jobs/{job}/events", self.address)));
        if let Some(after) = after {
            request = request.header("last-event-id", after.to_string());
        }
        let response = request.call().unwrap_or_else(|e| panic!("following {job}: {e}"));
        assert_eq!(response.status().as_u16(), 200, "following {job}");
        let mut lines = BufReader::new(response.into_body().into_reader()).lines();
        std::iter::from_fn(move || {
            let (mut id, mut kind, mut data) = (None, "message".to_owned(), String::new());
            loop {
                let line = lines.next()?.ok()?;
                match line.split_once(':').map(|(field, value)| (field, value.strip_prefix(' ').unwrap_or(value))) {
                    None if line.is_empty() && data.is_empty() => {}
                    None if line.is_empty() => {
                        let data = serde_json::from_str(&data).unwrap_or(Value::String(data));
                        return Some(Event { id, kind, data });
                    }
                    Some(("id", value)) => id = value.parse().ok(),
                    Some(("event", value)) => kind = value.to_owned(),
                    Some(("data", value)) => data.push_str(value),
                    _ => {}
                }
            }
        })
    }
}
