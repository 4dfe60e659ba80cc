//! Reads bodies and queries so that a mistake is answered with its place and what is possible.

use axum::extract::Query;
use axum::http::Uri;
use serde::de::DeserializeOwned;
use wharf_engine::toml_text::nearest;

use super::problem::Problem;

/// The query of an address. Parameters that nobody reads are refused: a misspelt one would be lost in silence.
pub(crate) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    match Query::try_from_uri(uri) {
        Ok(Query(read)) => Ok(read),
        Err(error) => {
            let text = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Err(Problem::bad_request(format!("the query cannot be read: {}", with_hint(&text))))
        }
    }
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

    fn told(problem: Problem) -> String {
        format!("{problem:?}")
    }

    #[test]
    fn a_misspelt_parameter_is_refused_with_the_nearest() {
        let error = told(query::<ListQuery>(&"/v1/jobs?stat=running".parse().unwrap()).unwrap_err());
        assert!(error.contains("unknown field `stat`") && error.contains("did you mean `state`?"), "{error}");
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
