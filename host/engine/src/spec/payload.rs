//! What the host itself reads of a payload: checks it against the task's schema, and finds its key.

use std::fmt;
use std::sync::Arc;

use jsonschema::PatternOptions;
use serde_json::Value;
use wharf_core::bounds;
use wharf_core::ids::ParseIdError;
use wharf_core::key::Key;

use crate::spec::check_budget::{self, CheckCost};
use crate::spec::schema_cost;

mod pointer;

use pointer::{FindError, Pointer};

/// Maximum number of errors that are reported for one payload.
const ERRORS_MAX: usize = 10;
/// For a payload that takes more checks only the first error is reported: all are found before the first is returned,
/// and each costs much more than a check.
const ALL_ERRORS_CHECKS_MAX: u64 = 50_000;
/// Maximum size of one compiled pattern of a schema, in bytes.
const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// A value quoted in an error is cut after this many characters.
const QUOTE_CHARS_MAX: usize = 80;

/// Why a payload is refused. The text fits into "the payload of `words/count` is refused: {error}".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The payload is not JSON, which the named part of the task needs.
    #[error("not JSON, which this task's {0} needs: {1}")]
    NotJson(&'static str, String),
    /// The payload does not match the task's schema; one text for each place.
    #[error("{}", .0.join("\n"))]
    Schema(Vec<String>),
    /// A value of the payload is not of the type that the task's function takes.
    #[error("{0}")]
    Types(String),
    /// Checking the payload could take too long.
    #[error(
        "the check against the task's schema may take {checks} steps; the limit is {max}; put less into one payload, or \
         simplify the schema"
    )]
    TooManyChecks {
        /// The number of checks that it may take.
        checks: u64,
        /// The limit.
        max: u64,
    },
    #[error("at `{pointer}`, the job's key: expected a string, number or boolean, got {found}")]
    /// The key is neither a string, a number nor a boolean.
    KeyKind {
        /// The task's JSON pointer to the key.
        pointer: String,
        /// Description of the value that the payload has there.
        found: &'static str,
    },
    /// The key is not valid.
    #[error("at `{pointer}`, the job's key: {reason}")]
    Key {
        /// The task's JSON pointer to the key.
        pointer: String,
        /// The error in the key.
        reason: String,
    },
    #[error(
        "duplicate member `{member}` {}, on the way to the job's key at `{pointer}`; remove one: readers differ in which they take",
        if .at.is_empty() { "at the top level".to_owned() } else { format!("at `{at}`") }
    )]
    /// An object on the way to the key has a member twice.
    KeyTwice {
        /// The task's JSON pointer to the key.
        pointer: String,
        /// JSON pointer to the object; empty at the top level.
        at: String,
        /// The name of the member.
        member: String,
    },
}

/// A JSON pointer that finds a job's key in its payload, such as "/tenant".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPointer(Pointer);

impl KeyPointer {
    /// Parses a pointer.
    ///
    /// # Errors
    /// A reason, if `text` is not a JSON pointer.
    pub fn parse(text: &str) -> Result<KeyPointer, String> {
        Pointer::parse(text).map(KeyPointer)
    }

    /// Returns the pointer as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Finds the key in `payload`: the text of a string, or a number or a boolean as it is written; `None` if it is
    /// missing or null.
    ///
    /// # Errors
    /// [`PayloadError`] if the payload is not JSON, has a value there that cannot be a key, or has the member more than
    /// once.
    pub fn find(&self, payload: &[u8]) -> Result<Option<Key>, PayloadError> {
        self.key(self.0.find(payload))
    }

    fn key(&self, found: Result<Option<&str>, FindError>) -> Result<Option<Key>, PayloadError> {
        let pointer = || self.as_str().to_owned();
        let bad = |reason: String| PayloadError::Key { pointer: pointer(), reason };
        let found = found.map_err(|error| match error {
            FindError::NotJson(why) => PayloadError::NotJson("key", why),
            FindError::Twice { at, member } => PayloadError::KeyTwice { pointer: pointer(), at, member },
        })?;
        let key: Result<Key, ParseIdError> = match (found, found.and_then(|text| text.bytes().next())) {
            (None, _) | (_, None | Some(b'n')) => return Ok(None),
            (_, Some(b'[')) => return Err(PayloadError::KeyKind { pointer: pointer(), found: "an array" }),
            (_, Some(b'{')) => return Err(PayloadError::KeyKind { pointer: pointer(), found: "an object" }),
            // The only thing that can be wrong with a JSON string is half of a surrogate pair.
            (Some(string), Some(b'"')) => {
                let no_text = |_| bad("the string has half of a surrogate pair".to_owned());
                serde_json::from_str::<String>(string).map_err(no_text)?.parse()
            }
            (Some(plain), _) => plain.parse(),
        };
        key.map(Some).map_err(|error| bad(error.to_string()))
    }
}

/// A compiled JSON Schema.
#[derive(Clone)]
pub struct Schema {
    text: Arc<str>,
    validator: Arc<jsonschema::Validator>,
    cost: Arc<CheckCost>,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// A reason, if `text` is not JSON, not a schema, or too expensive.
    pub fn parse(text: &str) -> Result<Schema, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let cost = Arc::new(schema_cost::check(&value)?);
        // Patterns come from plugins and run on the host: an engine that never backtracks cannot hang, and one that is
        // bounded cannot exhaust memory.
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let validator = jsonschema::options()
            .with_pattern_options(patterns)
            .build(&value)
            .map_err(|error| build_error(&error.to_string()))?;
        Ok(Schema { text: text.into(), validator: Arc::new(validator), cost })
    }

    /// Returns the schema as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns how many checks a payload may take: an upper bound, found in one pass over its bytes.
    pub fn checks(&self, payload: &[u8]) -> u64 {
        self.cost.of(payload)
    }

    /// Checks a payload.
    ///
    /// # Errors
    /// [`PayloadError`] if the check may take more than `bounds::SCHEMA_CHECKS_MAX`, or with the first ten places where
    /// the payload does not match; for one that takes many checks with the first.
    pub fn check(&self, payload: &[u8]) -> Result<(), PayloadError> {
        self.check_counted(payload, self.checks(payload))
    }

    /// Checks a payload like [`Schema::check`]; `checks` is what [`Schema::checks`] returned for it.
    ///
    /// # Errors
    /// Those of [`Schema::check`].
    pub fn check_counted(&self, payload: &[u8], checks: u64) -> Result<(), PayloadError> {
        if checks > bounds::SCHEMA_CHECKS_MAX {
            return Err(PayloadError::TooManyChecks { checks, max: bounds::SCHEMA_CHECKS_MAX });
        }
        let value = json(payload, "schema")?;
        if checks > ALL_ERRORS_CHECKS_MAX {
            return self.validator.validate(&value).map_err(|error| PayloadError::Schema(vec![describe_error(&error)]));
        }
        let errors: Vec<String> =
            self.validator.iter_errors(&value).take(ERRORS_MAX).map(|error| describe_error(&error)).collect();
        if errors.is_empty() { Ok(()) } else { Err(PayloadError::Schema(errors)) }
    }
}

/// Returns how many bytes a payload takes at most when it is parsed for the check against a schema.
pub fn parsed_bytes(payload: &[u8]) -> u64 {
    check_budget::parsed_bytes(payload)
}

/// Checks a payload against a schema, and returns the key that a pointer finds in it. The schema comes with what
/// [`Schema::checks`] returned for the payload. What its check has shown to be JSON is not checked again for the key.
///
/// # Errors
/// Those of [`Schema::check`] and [`KeyPointer::find`].
pub fn check_and_find(
    schema: Option<(&Schema, u64)>,
    pointer: Option<&KeyPointer>,
    payload: &[u8],
) -> Result<Option<Key>, PayloadError> {
    schema.map_or(Ok(()), |(schema, checks)| schema.check_counted(payload, checks))?;
    let Some(pointer) = pointer else { return Ok(None) };
    match std::str::from_utf8(payload) {
        Ok(text) if schema.is_some() => pointer.key(pointer.0.find_in_valid(text)),
        _ => pointer.find(payload),
    }
}

/// Returns the number of regular expressions in a schema; 0 if it is not JSON, which is reported when it is compiled.
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

fn build_error(why: &str) -> String {
    // For a pattern that is refused, the error does not have the cause.
    let hint = if why.ends_with("is not a \"regex\"") {
        format!(
            "; patterns cannot look ahead or back, and are limited to {} KiB when compiled; [a-z0-9] is much smaller than \\w",
            PATTERN_BYTES_MAX / 1024
        )
    } else {
        String::new()
    };
    format!("invalid JSON Schema: {why}{hint}")
}

fn describe_error(error: &jsonschema::ValidationError<'_>) -> String {
    let path = error.instance_path().to_string();
    let place = if path.is_empty() { "at the top level".to_owned() } else { format!("at `{path}`") };
    let whole = error.to_string();
    let quoted = error.instance().to_string();
    // The text starts with the value itself, which may be the whole payload.
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
        assert!(find(r#"{"a":{"b":""}}"#).unwrap_err().contains("expected 1 to 256 bytes, got 0"));
        assert!(find("\u{89}PNG").unwrap_err().starts_with("not JSON, which this task's key needs"));
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
        let describe_error = |json: &str| pointer.find(json.as_bytes()).unwrap_err().to_string();
        let half = describe_error(r#"{"tenant":"a\ud800"}"#);
        assert!(half.contains("at `/tenant`") && half.contains("half of a surrogate pair"), "{half}");
        let twice = describe_error(r#"{"tenant":"a","\u0074enant":"b"}"#);
        assert!(twice.starts_with("duplicate member `tenant` at the top level"), "{twice}");
        assert!(
            describe_error(&format!(r#"{{"tenant":{}}}"#, "1".repeat(257)))
                .contains("expected 1 to 256 bytes, got 257")
        );
    }

    #[test]
    fn a_schema_names_every_place_that_does_not_fit() {
        let schema =
            Schema::parse(r#"{"type":"object","required":["text"],"properties":{"n":{"type":"integer"}}}"#).unwrap();
        assert_eq!(schema.check(br#"{"text":"x"}"#), Ok(()));
        let describe_error = schema.check(br#"{"n":"x"}"#).unwrap_err().to_string();
        assert!(describe_error.contains("at `/n`: \"x\" is not of type \"integer\""), "{describe_error}");
        assert!(describe_error.contains("\"text\" is a required property"), "{describe_error}");
    }

    #[test]
    fn a_payload_is_json_for_its_key_as_for_its_schema() {
        let (schema, pointer) = (Schema::parse("true").unwrap(), KeyPointer::parse("/a").unwrap());
        let texts: [&[u8]; 12] = [
            br#"{"a":"x"}"#,
            br#"{"a":1.50,"b":[]}"#,
            br#" {"a":"x","a":"y"} "#,
            b"[]",
            b"",
            b"{\"a\":\"x\"",
            b"{\"a\":\"\xff\"}",
            b"\xff",
            b"{\"a\":1} x",
            br#"{"a":"\ud800"}"#,
            br#"{"b":1e400,"a":"x"}"#,
            b"{\"\xff\":1,\"a\":2}",
        ];
        for text in texts {
            let counted = Some((&schema, schema.checks(text)));
            let both = check_and_find(counted, Some(&pointer), text);
            let each = schema.check(text).and_then(|()| pointer.find(text));
            assert_eq!(both, each, "{}", text.escape_ascii());
            assert_eq!(check_and_find(None, Some(&pointer), text), pointer.find(text));
            assert_eq!(check_and_find(counted, None, text), schema.check(text).map(|()| None));
            assert_eq!(check_and_find(None, None, text), Ok(None));
        }
    }

    #[test]
    fn a_schema_cannot_make_the_host_hang_or_fetch() {
        let schema = Schema::parse(r#"{"type":"string","pattern":"^(a+)+$"}"#).unwrap();
        let payload = format!("\"{}!\"", "a".repeat(10_000));
        assert!(schema.check(payload.as_bytes()).is_err());
        assert!(Schema::parse(r#"{"$ref":"http://127.0.0.1:1/x.json"}"#).is_err());
        let describe_error = Schema::parse(r#"{"pattern":"^(\\w{200}){200}$"}"#).unwrap_err();
        assert!(describe_error.contains("limited to 256 KiB"), "{describe_error}");
    }

    #[test]
    fn a_check_that_may_take_too_long_is_refused_before_it_begins() {
        let parts = vec!["{}"; 2_500].join(",");
        let schema = Schema::parse(&format!(r#"{{"items":{{"allOf":[{parts}]}}}}"#)).unwrap();
        let numbers = |count: usize| format!("[1{}]", ",1".repeat(count - 1));
        assert_eq!(schema.check(numbers(100).as_bytes()), Ok(()));
        let refused = schema.check(numbers(1_000_000).as_bytes()).unwrap_err();
        assert!(matches!(refused, PayloadError::TooManyChecks { checks, .. } if checks >= 2_500_000_000), "{refused}");
        // What is usual passes, however large.
        let rows = Schema::parse(
            r#"{"items":{"type":"object","required":["id","name","tags"],"additionalProperties":false,"properties":{
                "id":{"type":"integer","minimum":0},"name":{"type":"string","minLength":1,"pattern":"^[a-z]+$"},
                "tags":{"type":"array","items":{"enum":["a","b"]},"uniqueItems":true}}}}"#,
        );
        let row = r#"{"id":1,"name":"somebody","tags":["a","b"]}"#;
        let payload = format!("[{row}{}]", format!(",{row}").repeat(20_000));
        assert_eq!(rows.unwrap().check(payload.as_bytes()), Ok(()), "{} bytes", payload.len());
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
