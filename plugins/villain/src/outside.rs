//! Reaching for the world outside. What is denied comes back as the error's text, so that a test can read it.

use std::{collections::BTreeMap, env, fs, io, io::Read};

use wasip2::random::random::get_random_bytes;

use crate::exports::wharf::plugin::handler::Failure;

pub(crate) fn env() -> Result<Vec<u8>, Failure> {
    json(&env::vars().collect::<BTreeMap<_, _>>())
}

pub(crate) fn env_of(name: &str) -> Result<String, Failure> {
    env::var(name).map_err(|e| Failure::Discard(format!("cannot read {name}: {e}")))
}

pub(crate) fn args() -> Result<Vec<u8>, Failure> {
    json(&env::args().collect::<Vec<_>>())
}

pub(crate) fn read_file(path: &str) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|e| denied("read", path, &e))
}

pub(crate) fn write_file(path: &str, text: &str) -> Result<Vec<u8>, Failure> {
    fs::write(path, text).map_err(|e| denied("write", path, &e))?;
    json(&text.len())
}

pub(crate) fn resize_file(path: &str, bytes: u64) -> Result<Vec<u8>, Failure> {
    let made = fs::File::create(path).and_then(|file| file.set_len(bytes));
    made.map_err(|e| denied("resize", path, &e))?;
    json(&bytes)
}

pub(crate) fn list_dir(path: &str) -> Result<Vec<u8>, Failure> {
    let entries = fs::read_dir(path).map_err(|e| denied("list", path, &e))?;
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    json(&names)
}

pub(crate) fn random(bytes: u64) -> Result<Vec<u8>, Failure> {
    Ok(get_random_bytes(bytes))
}

pub(crate) fn stdin() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    io::stdin()
        .read_to_end(&mut text)
        .map_err(|e| denied("read", "stdin", &e))?;
    json(&text.len())
}

#[cfg(feature = "http")]
pub(crate) use http::{get as http_get, send as http_send};

#[cfg(not(feature = "http"))]
pub(crate) fn http_send(
    _: &str,
    _: &BTreeMap<String, String>,
    _: &str,
) -> Result<Vec<u8>, Failure> {
    http_get("", 0)
}

#[cfg(not(feature = "http"))]
pub(crate) fn http_get(_: &str, _: u32) -> Result<Vec<u8>, Failure> {
    Err(Failure::Discard(
        "this villain has no HTTP; ask villain-http".into(),
    ))
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|e| Failure::Discard(e.to_string()))
}

fn denied(verb: &str, what: &str, error: &io::Error) -> Failure {
    Failure::Discard(format!("cannot {verb} {what}: {error}"))
}

#[cfg(feature = "http")]
mod http {
    use std::collections::BTreeMap;

    use wasip2::{
        http::{
            outgoing_handler::handle,
            types::{Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme},
        },
        io::streams::StreamError,
    };

    use super::{Failure, json};

    /// Returns `{"status": 200, "body": "..."}` of the last, or fails with the host's own word for what went wrong and when.
    pub(crate) fn get(url: &str, times: u32) -> Result<Vec<u8>, Failure> {
        let (mut status, mut body) = (0, Vec::new());
        for time in 1..=times {
            (status, body) = fetch(url).map_err(|e| Failure::Discard(format!("GET {url}, {time}: {e}")))?;
        }
        json(&serde_json::json!({ "status": status, "body": String::from_utf8_lossy(&body) }))
    }

    fn fetch(url: &str) -> Result<(u16, Vec<u8>), String> {
        let response = exchange(url, Fields::new(), "")?;
        Ok((response.status(), read(&response)?))
    }

    /// Returns `{"status": 200, "headers": {"a": "..."}, "body": "..."}`, and tells it to everybody who reads the log.
    pub(crate) fn send(
        url: &str,
        headers: &BTreeMap<String, String>,
        body: &str,
    ) -> Result<Vec<u8>, Failure> {
        let sent = || {
            let fields = Fields::new();
            for (name, value) in headers {
                let value = filled(value);
                let value = match value.strip_prefix("Basic ") {
                    Some(plain) => format!("Basic {}", base64(plain.as_bytes())),
                    None => value,
                };
                fields
                    .append(&filled(name), value.as_bytes())
                    .map_err(|e| format!("{e:?}"))?;
            }
            let response = exchange(&filled(url), fields, &filled(body))?;
            let headers: BTreeMap<String, String> = response
                .headers()
                .entries()
                .into_iter()
                .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
                .collect();
            let body = String::from_utf8_lossy(&read(&response)?).into_owned();
            println!("{headers:?} {body}");
            Ok::<_, String>(
                serde_json::json!({ "status": response.status(), "headers": headers, "body": body }),
            )
        };
        json(&sent().map_err(|e| Failure::Discard(format!("{url}: {e}")))?)
    }

    /// Puts variables of the environment in place of their names in braces.
    fn filled(text: &str) -> String {
        std::env::vars().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), &value)
        })
    }

    fn base64(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let all = group.iter().fold(0u32, |all, byte| all << 8 | u32::from(*byte))
                << (8 * (3 - group.len()));
            for place in 0..4 {
                let index = (all >> (18 - 6 * place)) as usize & 63;
                text.push(if place <= group.len() { ALPHABET[index] as char } else { '=' });
            }
        }
        text
    }

    fn exchange(url: &str, headers: Fields, text: &str) -> Result<IncomingResponse, String> {
        let (scheme, rest) = url.split_once("://").ok_or("no scheme")?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let request = OutgoingRequest::new(headers);
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => Scheme::Other(other.into()),
        };
        request
            .set_scheme(Some(&scheme))
            .map_err(|()| "the scheme was refused")?;
        request
            .set_authority(Some(authority))
            .map_err(|()| "the authority was refused")?;
        request
            .set_path_with_query(Some(path))
            .map_err(|()| "the path was refused")?;
        let body = match text {
            "" => None,
            _ => {
                request
                    .set_method(&Method::Post)
                    .map_err(|()| "the method was refused")?;
                Some(request.body().map_err(|()| "the body was taken before")?)
            }
        };
        let pending = handle(request, None).map_err(|e| format!("{e:?}"))?;
        if let Some(body) = body {
            let stream = body.write().map_err(|()| "the body has no stream")?;
            stream
                .blocking_write_and_flush(text.as_bytes())
                .map_err(|e| format!("while writing: {e}"))?;
            drop(stream);
            OutgoingBody::finish(body, None).map_err(|e| format!("{e:?}"))?;
        }
        pending.subscribe().block();
        let answer = pending.get().ok_or("no answer although it was ready")?;
        let response = answer
            .map_err(|()| "the answer was taken before")?
            .map_err(|e| format!("{e:?}"))?;
        Ok(response)
    }

    fn read(response: &IncomingResponse) -> Result<Vec<u8>, String> {
        let body = response.consume().map_err(|()| "the response has no body")?;
        let stream = body.stream().map_err(|()| "the body has no stream")?;
        let mut bytes = Vec::new();
        loop {
            match stream.blocking_read(64 * 1024) {
                Ok(more) => bytes.extend(more),
                Err(StreamError::Closed) => return Ok(bytes),
                Err(StreamError::LastOperationFailed(e)) => {
                    return Err(format!("while reading: {}", e.to_debug_string()));
                }
            }
        }
    }
}
