//! The text of a query: terms with spaces between them, each a field and its values, such as
//! `state:failed,cancelled task:image/make payload./tenant=42 text:"connection reset"`.

use std::fmt;
use std::str::FromStr;

use super::json_path::JsonPath;
use super::moment::parse_moment;
use super::query::{JobQuery, StateFilter};
use crate::bounds;
use crate::ids::ParseIdError;
use crate::outcome::OutcomeKind;
use crate::time::Timestamp;

/// The fields of a query besides `payload.POINTER`.
const FIELDS: [&str; 15] = [
    "state",
    "id",
    "task",
    "plugin",
    "key",
    "batch",
    "parent",
    "outcome",
    "fingerprint",
    "digest",
    "since",
    "until",
    "finished-since",
    "finished-until",
    "text",
];

/// A text that is not a query. Displays with the place of the mistake and what to write there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    /// The number of the character at which the mistake begins, from 1.
    pub place: usize,
    /// The mistake, and what to write.
    pub reason: String,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid filter at character {}: {}", self.place, self.reason)
    }
}

impl std::error::Error for QueryError {}

impl JobQuery {
    /// Reads a query. Moments such as `2h` are counted back from `now`.
    ///
    /// # Errors
    /// If a term is malformed, has an unknown field or an invalid value, or if a field is given twice.
    pub fn parse(text: &str, now: Timestamp) -> Result<JobQuery, QueryError> {
        if text.len() > bounds::FILTER_BYTES_MAX {
            let max = bounds::FILTER_BYTES_MAX;
            return Err(QueryError { place: 1, reason: format!("expected at most {max} bytes, got {}", text.len()) });
        }
        let mut reader = Reader { text, at: 0, now };
        if let Some(at) = text.find('\0') {
            return Err(reader.error(at, "the character U+0000 is not allowed; leave it out"));
        }
        let mut query = JobQuery::default();
        while reader.skip_space() {
            reader.term(&mut query)?;
        }
        Ok(query)
    }

    /// Adds the condition `field:values` to the query, as in its text.
    ///
    /// # Errors
    /// If there is no such field, it is given already, or a value is invalid.
    pub fn add(&mut self, field: &str, values: &[String], now: Timestamp) -> Result<(), String> {
        if self.has(field) {
            return Err(format!("`{field}` is given twice; write its values with commas between them"));
        }
        match field {
            "state" => self.states = each(values, state)?,
            "id" => self.ids = each(values, parsed)?,
            "task" => self.tasks = each(values, parsed)?,
            "plugin" => self.plugins = each(values, parsed)?,
            "key" => self.keys = each(values, |key| if key.is_empty() { Ok(None) } else { parsed(key).map(Some) })?,
            "batch" => self.batch = Some(parsed(one(field, values)?)?),
            "parent" => self.parent = Some(parsed(one(field, values)?)?),
            "outcome" => self.outcomes = each(values, outcome)?,
            "fingerprint" => self.fingerprints = each(values, parsed)?,
            "digest" => self.digests = each(values, parsed)?,
            "since" => self.since = Some(moment(one(field, values)?, now)?),
            "until" => self.until = Some(moment(one(field, values)?, now)?),
            "finished-since" => self.finished_since = Some(moment(one(field, values)?, now)?),
            "finished-until" => self.finished_until = Some(moment(one(field, values)?, now)?),
            "text" => match one(field, values)? {
                "" => return Err("invalid text: expected at least one character".to_owned()),
                text if text.len() > bounds::FILTER_TEXT_BYTES_MAX => {
                    let max = bounds::FILTER_TEXT_BYTES_MAX;
                    return Err(format!(
                        "invalid text: expected at most {max} bytes, got {}; write a part of it",
                        text.len()
                    ));
                }
                text => self.text = Some(text.to_owned()),
            },
            unknown => {
                let shown: String = unknown.chars().take(40).collect::<String>().escape_debug().to_string();
                let known = FIELDS.join("`, `");
                return Err(format!("unknown field `{shown}`; expected one of `{known}` and `payload./POINTER=`"));
            }
        }
        Ok(())
    }
}

impl JobQuery {
    /// Adds a condition on payloads.
    fn add_payload(&mut self, path: JsonPath, value: String) -> Result<(), String> {
        let max = bounds::FILTER_PAYLOAD_CONDITIONS_MAX;
        if self.payload.iter().any(|(other, _)| *other == path) {
            return Err(format!("`payload.{path}` is given twice; leave one out, a payload has one value there"));
        }
        if self.payload.len() == max {
            return Err(format!("expected at most {max} conditions on payloads; leave the others out"));
        }
        self.payload.push((path, value));
        Ok(())
    }

    /// Returns true if the query has a condition on this field.
    fn has(&self, field: &str) -> bool {
        match field {
            "state" => !self.states.is_empty(),
            "id" => !self.ids.is_empty(),
            "task" => !self.tasks.is_empty(),
            "plugin" => !self.plugins.is_empty(),
            "key" => !self.keys.is_empty(),
            "batch" => self.batch.is_some(),
            "parent" => self.parent.is_some(),
            "outcome" => !self.outcomes.is_empty(),
            "fingerprint" => !self.fingerprints.is_empty(),
            "digest" => !self.digests.is_empty(),
            "since" => self.since.is_some(),
            "until" => self.until.is_some(),
            "finished-since" => self.finished_since.is_some(),
            "finished-until" => self.finished_until.is_some(),
            "text" => self.text.is_some(),
            _ => false,
        }
    }
}

fn each<T>(values: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    values.iter().map(|value| parse(value)).collect()
}

fn one<'v>(field: &str, values: &'v [String]) -> Result<&'v str, String> {
    match values {
        [value] => Ok(value),
        _ => Err(format!("`{field}` has one value, got {}; put a value with commas in quotes", values.len())),
    }
}

fn parsed<T: FromStr<Err = ParseIdError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: ParseIdError| error.to_string())
}

fn state(text: &str) -> Result<StateFilter, String> {
    let names: Vec<&str> = StateFilter::all().map(StateFilter::as_str).collect();
    StateFilter::all().find(|state| state.as_str() == text).ok_or_else(|| unknown("state", text, &names))
}

fn outcome(text: &str) -> Result<OutcomeKind, String> {
    OutcomeKind::from_name(text).ok_or_else(|| unknown("outcome", text, &OutcomeKind::ALL.map(OutcomeKind::as_str)))
}

fn unknown(what: &str, text: &str, names: &[&str]) -> String {
    let shown: String = text.chars().take(40).collect();
    format!("unknown {what} `{}`; expected one of `{}`", shown.escape_debug(), names.join("`, `"))
}

fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    parse_moment(text, now).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        format!(
            "invalid moment `{}`: expected a date such as `2030-01-31T12:00:00Z` or `2030-01-31`, or how long ago, such as `15m`, `2h` or `7d`",
            shown.escape_debug()
        )
    })
}

struct Reader<'t> {
    text: &'t str,
    /// In bytes.
    at: usize,
    now: Timestamp,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn error(&self, at: usize, reason: impl Into<String>) -> QueryError {
        QueryError { place: self.text[..at].chars().count() + 1, reason: reason.into() }
    }

    /// Returns false at the end of the text.
    fn skip_space(&mut self) -> bool {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.at < self.text.len()
    }

    fn take(&mut self, expected: char) -> bool {
        let is_there = self.rest().starts_with(expected);
        self.at += if is_there { expected.len_utf8() } else { 0 };
        is_there
    }

    fn term(&mut self, query: &mut JobQuery) -> Result<(), QueryError> {
        let start = self.at;
        if let Some(rest) = self.rest().strip_prefix("payload.") {
            self.at = self.text.len() - rest.len();
            let path = self.word(&['='])?;
            let path = parsed(&path).map_err(|reason| self.error(start, reason))?;
            if !self.take('=') {
                return Err(self.error(self.at, "expected `=` and a value after the pointer, as in payload./tenant=42"));
            }
            let value = self.word(&[])?;
            return query.add_payload(path, value).map_err(|reason| self.error(start, reason));
        }
        let field = self.word(&[':', '='])?;
        if !self.take(':') {
            let reason = format!("expected `:` and a value after `{}`, as in state:failed", field.escape_debug());
            return Err(self.error(self.at, reason));
        }
        let mut values = vec![self.word(&[','])?];
        while self.take(',') {
            values.push(self.word(&[','])?);
        }
        query.add(&field, &values, self.now).map_err(|reason| self.error(start, reason))
    }

    /// Reads up to a space or one of `ends`. What stands in quotes is read as it is, but for `\"` and `\\`.
    fn word(&mut self, ends: &[char]) -> Result<String, QueryError> {
        let mut word = String::new();
        while let Some(c) = self.rest().chars().next() {
            if c.is_whitespace() || ends.contains(&c) {
                break;
            }
            if c == '"' {
                self.quoted(&mut word)?;
            } else {
                word.push(c);
                self.at += c.len_utf8();
            }
        }
        Ok(word)
    }

    fn quoted(&mut self, word: &mut String) -> Result<(), QueryError> {
        let start = self.at;
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(());
                }
                '\\' => match characters.next() {
                    Some((_, c @ ('"' | '\\'))) => word.push(c),
                    Some((_, c)) => word.extend(['\\', c]),
                    None => {}
                },
                c => word.push(c),
            }
        }
        Err(self.error(start, "the quote is not closed; write `\"` at its end"))
    }
}
