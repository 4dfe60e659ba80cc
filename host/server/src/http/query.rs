//! Reads queries and JSON bodies. An error names the place of the mistake and what is expected there.

use std::collections::HashSet;
use std::str::{FromStr, Utf8Error};

use axum::extract::{Query, Request};
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::de::DeserializeOwned;
use wharf_core::ids::ParseIdError;
use wharf_engine::spec::toml_diagnostics::nearest;

use super::api::AfterQuery;
use super::problem::Problem;

/// Reads the query of an address.
///
/// # Errors
/// If a parameter is unknown, as a misspelt one would be lost in silence; if one is given twice, as one of the two would be
/// lost; if one is not UTF-8, as it could be taken for another; if a value is malformed.
pub(crate) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    check_parameters(uri.query().unwrap_or_default())?;
    match Query::try_from_uri(uri) {
        Ok(Query(query)) => Ok(query),
        Err(error) => {
            let text = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Err(Problem::bad_request(format!("invalid query: {}", with_hint(&text))))
        }
    }
}

/// Reads the number of entries on a page of a list, which has `default` of them if the query does not set it.
///
/// # Errors
/// If it is none, or more than `most`.
pub(crate) fn page_size(limit: Option<u32>, default: u32, most: u32) -> Result<u32, Problem> {
    match limit.unwrap_or(default) {
        max if (1..=most).contains(&max) => Ok(max),
        max => Err(Problem::bad_request(format!("`limit`: expected 1 to {most}, got {max}"))),
    }
}

/// Reads the query of a list in the order of its IDs: the last ID of the page before, and the number of entries.
///
/// # Errors
/// If a parameter is not valid.
pub(crate) fn page_after<T>(uri: &Uri, default: u32, most: u32) -> Result<(Option<T>, u32), Problem>
where
    T: FromStr<Err = ParseIdError>,
{
    let AfterQuery { after, limit } = query(uri)?;
    let bad = |error: ParseIdError| Problem::bad_request(format!("`after`: {error}"));
    Ok((after.as_deref().map(str::parse).transpose().map_err(bad)?, page_size(limit, default, most)?))
}

/// Refuses a request that has a query, on routes that do not read one: its parameters would be lost in silence.
pub(crate) async fn refuse(request: Request, next: Next) -> Response {
    match request.uri().query() {
        None | Some("") => next.run(request).await,
        Some(_) => {
            let detail = format!("{} {} does not read a query; leave it out", request.method(), request.uri().path());
            Problem::bad_request(detail).into_response()
        }
    }
}

fn check_parameters(query: &str) -> Result<(), Problem> {
    let mut names = HashSet::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let shown = name.escape_debug();
        let (Ok(name), Ok(_)) = (decode(name), decode(value)) else {
            return Err(Problem::bad_request(format!(
                "invalid query: `{shown}` is not UTF-8; write it as percent-encoded UTF-8"
            )));
        };
        if !names.insert(name) {
            return Err(Problem::bad_request(format!("invalid query: `{shown}` is given twice; leave one out")));
        }
    }
    Ok(())
}

/// Decodes percent-encoded text. A percent sign without two hexadecimal digits after it stays, as everywhere on the web.
fn decode(text: &str) -> Result<String, Utf8Error> {
    percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned)
}

/// Reads a JSON body.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let text = if body.is_empty() { "it is empty".to_owned() } else { with_hint(&error.to_string()) };
        Problem::bad_request(format!("invalid JSON body: {text}"))
    })
}

/// Adds the nearest known name to a text about an unknown field or value that lists the known ones.
pub(crate) fn with_hint(text: &str) -> String {
    let mut names = text.split('`').skip(1).step_by(2);
    let unknown = ["field", "variant", "state", "outcome"];
    let is_unknown = unknown.iter().any(|what| text.contains(&format!("unknown {what} `")));
    let unknown = is_unknown.then(|| names.next()).flatten();
    match unknown.and_then(|word| nearest(word, names)) {
        Some(name) => format!("{text}; did you mean `{name}`?"),
        None => text.to_owned(),
    }
}

/// Characters that [`encode`] escapes: all but the unreserved ones of RFC 3986.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes a text as one segment, or one value, of an address.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, &RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::{JobRequest, ListQuery};

    #[test]
    fn quotes_of_a_request_are_short() {
        let body = format!("{{\"{}\": 1}}", "ü".repeat(1_000_000));
        let problem = text(json::<JobRequest>(body.as_bytes()).unwrap_err());
        assert!(problem.len() < 10_000 && problem.contains("expected one of `task`"), "{} bytes", problem.len());
        let twice = format!("{0}&{0}", "\"".repeat(10_000));
        assert!(text(check_parameters(&twice).unwrap_err()).len() < 20_000);
        let many: Vec<String> = (0..20_000).map(|number| format!("x{number}=1")).collect();
        assert!(check_parameters(&many.join("&")).is_ok());
    }

    fn text(problem: Problem) -> String {
        format!("{problem:?}")
    }

    #[test]
    fn a_misspelt_parameter_is_refused_with_the_nearest() {
        let error = text(query::<ListQuery>(&"/v1/jobs?stat=running".parse().unwrap()).unwrap_err());
        assert!(error.contains("unknown field `stat`") && error.contains("did you mean `state`?"), "{error}");
    }

    #[test]
    fn an_unknown_value_of_a_closed_set_is_refused_with_all_values_and_the_nearest() {
        let error = text(query::<ListQuery>(&"/v1/jobs?order=finishd".parse().unwrap()).unwrap_err());
        assert!(error.contains("order: unknown variant `finishd`, expected `newest` or `finished`"), "{error}");
        assert!(error.contains("did you mean `finished`?"), "{error}");
    }

    #[test]
    fn parameters_that_could_be_confused_are_refused() {
        let read = |pairs: &str| query::<ListQuery>(&format!("/v1/jobs?{pairs}").parse().unwrap()).map(|read| read.key);
        for bytes in ["key=%ff", "key=%fe", "key=a%C3", "key=%ed%a0%80", "%ff=a"] {
            let error = text(query::<ListQuery>(&format!("/v1/jobs?{bytes}").parse().unwrap()).unwrap_err());
            assert!(error.contains("is not UTF-8; write it as percent-encoded UTF-8"), "{bytes}: {error}");
        }
        for twice in ["key=a&key=b", "key=a&key=a", "key=a&state=failed&k%65y=b"] {
            let error = text(read(twice).unwrap_err());
            assert!(error.contains("is given twice"), "{twice}: {error}");
        }
        for (query, key) in [("key=%c3%A9+%2B", "é +"), ("key=100%", "100%"), ("&key=%zz&&", "%zz"), ("key=", "")] {
            assert_eq!(read(query).unwrap().as_deref(), Some(key), "{query}");
        }
    }

    #[test]
    fn a_misspelt_member_is_refused_with_its_place_and_the_nearest() {
        let error = text(json::<JobRequest>(b"{\"task\": \"a/b\",\n \"dealy\": \"1s\"}").unwrap_err());
        assert!(error.contains("line 2 column 8") && error.contains("did you mean `delay`?"), "{error}");
    }

    #[test]
    fn the_error_of_an_empty_body_says_that_it_is_empty() {
        assert!(text(json::<JobRequest>(b"").unwrap_err()).contains("it is empty"));
    }
}
