//! What the host itself reads of a payload: whether it fits the task's schema, and on whose account it runs.

use std::fmt;
use std::sync::Arc;

use jsonschema::PatternOptions;
use serde_json::Value;
use wharf_core::ids::ParseIdError;
use wharf_core::key::Key;

use crate::spec::schema_cost;

mod pointer;

use pointer::{Pointer, Unfound};

/// How many errors of one payload are told.
const ERRORS_MAX: usize = 10;
/// Of a larger payload only the first error is told.
const ALL_ERRORS_BYTES_MAX: usize = 64 * 1024;
/// Of one pattern of a schema, made ready.
const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// A value quoted in an error is cut after this many characters.
const QUOTE_CHARS_MAX: usize = 80;

/// Why a payload is refused. Fits "the payload of `words/count` is refused: {error}".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("it is not JSON, which this task's {0} needs: {1}")]
    NotJson(&'static str, String),
    #[error("{}", .0.join("\n"))]
    Schema(Vec<String>),
    #[error(
        "at `{pointer}`, where this task finds the job's key, it has {found}: a string, a number or a boolean is expected"
    )]
    KeyKind { pointer: String, found: &'static str },
    #[error("at `{pointer}`, where this task finds the job's key: {reason}")]
    Key { pointer: String, reason: String },
    #[error(
        "the member `{member}` is there twice {}, on the way to `{pointer}`, where this task finds the job's key; leave one out: readers differ in which they take",
        if .at.is_empty() { "at its top".to_owned() } else { format!("at `{at}`") }
    )]
    KeyTwice { pointer: String, at: String, member: String },
}

/// A JSON pointer that finds a job's key in its payload: "/tenant".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPointer(Pointer);

impl KeyPointer {
    /// # Errors
    /// When `text` is no JSON pointer.
    pub fn parse(text: &str) -> Result<KeyPointer, String> {
        Pointer::parse(text).map(KeyPointer)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The key in `payload`: a string as it reads, a number or a boolean as it is written; none where it is missing or null.
    ///
    /// # Errors
    /// When the payload is not JSON, or has there what cannot be a key, or does not say without doubt what it has there.
    pub fn find(&self, payload: &[u8]) -> Result<Option<Key>, PayloadError> {
        let pointer = || self.as_str().to_owned();
        let bad = |reason: String| PayloadError::Key { pointer: pointer(), reason };
        let found = self.0.find(payload).map_err(|unfound| match unfound {
            Unfound::NotJson(why) => PayloadError::NotJson("key", why),
            Unfound::Twice { at, member } => PayloadError::KeyTwice { pointer: pointer(), at, member },
        })?;
        let key: Result<Key, ParseIdError> = match (found, found.and_then(|text| text.bytes().next())) {
            (None, _) | (_, None | Some(b'n')) => return Ok(None),
            (_, Some(b'[')) => return Err(PayloadError::KeyKind { pointer: pointer(), found: "an array" }),
            (_, Some(b'{')) => return Err(PayloadError::KeyKind { pointer: pointer(), found: "an object" }),
            // All that can be wrong with a string of JSON is half of a surrogate pair.
            (Some(string), Some(b'"')) => {
                let no_text = |_| bad("its string has half of a surrogate pair, which is no text".to_owned());
                serde_json::from_str::<String>(string).map_err(no_text)?.parse()
            }
            (Some(plain), _) => plain.parse(),
        };
        key.map(Some).map_err(|error| bad(error.to_string()))
    }
}

/// A JSON Schema, ready to use.
#[derive(Clone)]
pub struct Schema {
    text: Arc<str>,
    validator: Arc<jsonschema::Validator>,
}

impl Schema {
    /// # Errors
    /// When `text` is not JSON or no schema.
    pub fn parse(text: &str) -> Result<Schema, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        schema_cost::check(&value)?;
        // Patterns come from plugins and run on the host: an engine that never backtracks cannot be made to hang,
        // and one that is bounded cannot be made to eat memory.
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let validator = jsonschema::options()
            .with_pattern_options(patterns)
            .build(&value)
            .map_err(|error| not_built(&error.to_string()))?;
        Ok(Schema { text: text.into(), validator: Arc::new(validator) })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// # Errors
    /// The first ten places where `payload` does not fit; of a large one the first.
    pub fn check(&self, payload: &[u8]) -> Result<(), PayloadError> {
        let value = json(payload, "schema")?;
        // All errors are found before the first is told: of a large payload they may be millions.
        if payload.len() > ALL_ERRORS_BYTES_MAX {
            return self.validator.validate(&value).map_err(|error| PayloadError::Schema(vec![told(&error)]));
        }
        let errors: Vec<String> =
            self.validator.iter_errors(&value).take(ERRORS_MAX).map(|error| told(&error)).collect();
        if errors.is_empty() { Ok(()) } else { Err(PayloadError::Schema(errors)) }
    }
}

/// How many regular expressions a schema has, as text; none if it is no JSON, which is told when it is read.
pub(crate) fn patterns_in(schema: &str) -> usize {
    fn within(value: &Value) -> usize {
        match value {
            Value::Array(items) => items.iter().map(within).sum(),
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| {
                    let here = match (key.as_str(), value) {
                        ("pattern", Value::String(_)) => 1,
                        ("patternProperties", Value::Object(by_pattern)) => by_pattern.len(),
                        _ => 0,
                    };
                    here + within(value)
                })
                .sum(),
            _ => 0,
        }
    }
    serde_json::from_str(schema).map_or(0, |value| within(&value))
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.text).finish()
    }
}

fn not_built(why: &str) -> String {
    // Of a pattern that is not taken, the cause is not told.
    let hint = if why.ends_with("is not a \"regex\"") {
        format!(
            ": a pattern looks neither ahead nor back, and made ready it has {} KiB at most; [a-z0-9] is much smaller than \\w",
            PATTERN_BYTES_MAX / 1024
        )
    } else {
        String::new()
    };
    format!("is no JSON Schema: {why}{hint}")
}

fn told(error: &jsonschema::ValidationError<'_>) -> String {
    let path = error.instance_path().to_string();
    let place = if path.is_empty() { "at its top".to_owned() } else { format!("at `{path}`") };
    let whole = error.to_string();
    let quoted = error.instance().to_string();
    // The text begins with the value itself, which may be the whole payload.
    let what = match whole.strip_prefix(&quoted) {
        Some(rest) if quoted.chars().count() > QUOTE_CHARS_MAX => {
            format!("{}...{rest}", quoted.chars().take(QUOTE_CHARS_MAX).collect::<String>())
        }
        _ => whole,
    };
    format!("{place}: {what}")
}

fn json(payload: &[u8], needed_for: &'static str) -> Result<Value, PayloadError> {
    serde_json::from_slice(payload).map_err(|error| PayloadError::NotJson(needed_for, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_scalar_or_nothing() {
        let pointer = KeyPointer::parse("/a/b").unwrap();
        let find = |text: &str| {
            pointer.find(text.as_bytes()).map(|key| key.map(|key| key.to_string())).map_err(|bad| bad.to_string())
        };
        assert_eq!(find(r#"{"a":{"b":"x"}}"#), Ok(Some("x".into())));
        assert_eq!(find(r#"{"a":{"b":7}}"#), Ok(Some("7".into())));
        assert_eq!(find(r#"{"a":{"b":true}}"#), Ok(Some("true".into())));
        assert_eq!(find(r#"{"a":{"b":null}}"#), Ok(None));
        assert_eq!(find("[]"), Ok(None));
        assert!(find(r#"{"a":{"b":[]}}"#).unwrap_err().contains("at `/a/b`"));
        assert!(find(r#"{"a":{"b":""}}"#).unwrap_err().contains("it is empty"));
        assert!(find("\u{89}PNG").unwrap_err().starts_with("it is not JSON, which this task's key needs"));
    }

    #[test]
    fn different_values_are_different_keys() {
        let pointer = KeyPointer::parse("/tenant").unwrap();
        let key =
            |value: &str| pointer.find(format!(r#"{{"tenant":{value}}}"#).as_bytes()).unwrap().unwrap().to_string();
        for number in
            ["12345678901234567890123", "18446744073709551617", "1e2", "100", "1.0", "-0", "0.1e-400", "1E400"]
        {
            assert_eq!(key(number), number);
        }
        assert_eq!(key(r#""\u00e9\ud83d\ude00""#), "\u{e9}\u{1f600}");
        let told = |json: &str| pointer.find(json.as_bytes()).unwrap_err().to_string();
        let half = told(r#"{"tenant":"a\ud800"}"#);
        assert!(half.contains("at `/tenant`") && half.contains("half of a surrogate pair"), "{half}");
        let twice = told(r#"{"tenant":"a","\u0074enant":"b"}"#);
        assert!(twice.starts_with("the member `tenant` is there twice at its top"), "{twice}");
        assert!(told(&format!(r#"{{"tenant":{}}}"#, "1".repeat(257))).contains("longer than 256 bytes"));
    }

    #[test]
    fn a_schema_names_every_place_that_does_not_fit() {
        let schema =
            Schema::parse(r#"{"type":"object","required":["text"],"properties":{"n":{"type":"integer"}}}"#).unwrap();
        assert_eq!(schema.check(br#"{"text":"x"}"#), Ok(()));
        let told = schema.check(br#"{"n":"x"}"#).unwrap_err().to_string();
        assert!(told.contains("at `/n`: \"x\" is not of type \"integer\""), "{told}");
        assert!(told.contains("\"text\" is a required property"), "{told}");
    }

    #[test]
    fn a_schema_cannot_make_the_host_hang_or_fetch() {
        let schema = Schema::parse(r#"{"type":"string","pattern":"^(a+)+$"}"#).unwrap();
        let payload = format!("\"{}!\"", "a".repeat(10_000));
        assert!(schema.check(payload.as_bytes()).is_err());
        assert!(Schema::parse(r#"{"$ref":"http://127.0.0.1:1/x.json"}"#).is_err());
        let told = Schema::parse(r#"{"pattern":"^(\\w{200}){200}$"}"#).unwrap_err();
        assert!(told.contains("256 KiB at most"), "{told}");
    }

    #[test]
    fn of_a_large_payload_the_first_error_is_told() {
        let schema = Schema::parse(r#"{"items":{"type":"string"}}"#).unwrap();
        let errors = |numbers: usize| match schema.check(format!("[1{}]", ",1".repeat(numbers - 1)).as_bytes()) {
            Err(PayloadError::Schema(errors)) => errors.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!((errors(3), errors(100), errors(100_000)), (3, ERRORS_MAX, 1));
    }
}
