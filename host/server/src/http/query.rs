//! Reads bodies and queries so that a mistake is answered with its place and what is possible.

use std::collections::HashSet;
use std::string::FromUtf8Error;

use axum::extract::{Query, Request};
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use wharf_engine::toml_text::nearest;

use super::problem::Problem;

/// The query of an address. Parameters that nobody reads are refused: a misspelt one would be lost in silence.
/// So are those that are there twice, and values that are not UTF-8: of two, one would be lost or taken for the other.
pub(crate) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    legible(uri.query().unwrap_or_default())?;
    match Query::try_from_uri(uri) {
        Ok(Query(read)) => Ok(read),
        Err(error) => {
            let text = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Err(Problem::bad_request(format!("the query cannot be read: {}", with_hint(&text))))
        }
    }
}

/// For addresses that read no query: one is refused, as a parameter that nobody reads is.
pub(crate) async fn none(request: Request, next: Next) -> Response {
    match request.uri().query() {
        None | Some("") => next.run(request).await,
        Some(_) => {
            let detail = format!("{} {} reads no query; leave it out", request.method(), request.uri().path());
            Problem::bad_request(detail).into_response()
        }
    }
}

fn legible(query: &str) -> Result<(), Problem> {
    let mut names = HashSet::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let shown = name.escape_debug();
        let (Ok(name), Ok(_)) = (decoded(name), decoded(value)) else {
            return Err(Problem::bad_request(format!(
                "the query cannot be read: `{shown}` is not UTF-8; write it as UTF-8, percent-encoded"
            )));
        };
        if !names.insert(name) {
            let detail =
                format!("the query cannot be read: `{shown}` is given twice, and only one can hold; leave one out");
            return Err(Problem::bad_request(detail));
        }
    }
    Ok(())
}

/// What percent-encoded text says. A percent sign that begins no escape stands for itself, as everywhere on the web.
fn decoded(text: &str) -> Result<String, FromUtf8Error> {
    let (bytes, mut plain, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let digit = |place: usize| bytes.get(at + place).and_then(|digit| char::from(*digit).to_digit(16));
        let escaped = if byte == b'%' { digit(1).zip(digit(2)) } else { None };
        plain.push(escaped.map_or(byte, |(high, low)| (16 * high + low) as u8));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(plain)
}

/// A body that is JSON.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let text = if body.is_empty() { "it is empty".to_owned() } else { with_hint(&error.to_string()) };
        Problem::bad_request(format!("the body is not the JSON that is expected: {text}"))
    })
}

/// serde's text of an unknown field, with the nearest known one.
fn with_hint(text: &str) -> String {
    let mut names = text.split('`').skip(1).step_by(2);
    let known = text.contains("unknown field `").then(|| names.next()).flatten();
    match known.and_then(|word| nearest(word, names)) {
        Some(name) => format!("{text}; did you mean `{name}`?"),
        None => text.to_owned(),
    }
}

/// A text as one segment, or one value, of an address.
pub(crate) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::{JobAsked, ListQuery};

    #[test]
    fn what_is_quoted_of_a_request_is_short() {
        let body = format!("{{\"{}\": 1}}", "ü".repeat(1_000_000));
        let told = told(json::<JobAsked>(body.as_bytes()).unwrap_err());
        assert!(told.len() < 10_000 && told.contains("expected one of `task`"), "{} bytes", told.len());
        let twice = format!("/v1/jobs?{0}&{0}", "\"".repeat(10_000));
        let error = legible(twice.split_once('?').unwrap().1).unwrap_err();
        assert!(format!("{error:?}").len() < 20_000);
        let many: Vec<String> = (0..20_000).map(|number| format!("x{number}=1")).collect();
        assert!(legible(&many.join("&")).is_ok());
    }

    fn told(problem: Problem) -> String {
        format!("{problem:?}")
    }

    #[test]
    fn a_misspelt_parameter_is_refused_with_the_nearest() {
        let error = told(query::<ListQuery>(&"/v1/jobs?stat=running".parse().unwrap()).unwrap_err());
        assert!(error.contains("unknown field `stat`") && error.contains("did you mean `state`?"), "{error}");
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        let read = |text: &str| query::<ListQuery>(&format!("/v1/jobs?{text}").parse().unwrap()).map(|read| read.key);
        for bytes in ["key=%ff", "key=%fe", "key=a%C3", "key=%ed%a0%80", "%ff=a"] {
            let error = told(query::<ListQuery>(&format!("/v1/jobs?{bytes}").parse().unwrap()).unwrap_err());
            assert!(error.contains("is not UTF-8; write it as UTF-8"), "{bytes}: {error}");
        }
        for twice in ["key=a&key=b", "key=a&key=a", "key=a&state=failed&k%65y=b"] {
            let error = told(read(twice).unwrap_err());
            assert!(error.contains("is given twice"), "{twice}: {error}");
        }
        for (query, key) in [("key=%c3%A9+%2B", "é +"), ("key=100%", "100%"), ("&key=%zz&&", "%zz"), ("key=", "")] {
            assert_eq!(read(query).unwrap().as_deref(), Some(key), "{query}");
        }
    }

    #[test]
    fn a_misspelt_member_is_refused_with_its_place_and_the_nearest() {
        let error = told(json::<JobAsked>(b"{\"task\": \"a/b\",\n \"dealy\": \"1s\"}").unwrap_err());
        assert!(error.contains("line 2 column 8") && error.contains("did you mean `delay`?"), "{error}");
    }

    #[test]
    fn an_empty_body_is_said_to_be_empty() {
        assert!(told(json::<JobAsked>(b"").unwrap_err()).contains("it is empty"));
    }
}
