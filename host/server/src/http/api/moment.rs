//! Moments and lengths of time in documents and queries.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use wharf_core::time::Timestamp;

/// A moment in a document: RFC 3339, in UTC, with microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl Moment {
    /// Returns the moment as a date. One after the last date that can be written becomes that date.
    pub(crate) fn date(self) -> jiff::Timestamp {
        let micros = i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl std::str::FromStr for Moment {
    type Err = String;

    /// Reads an RFC 3339 date with any zone. A date before 1970 becomes the first moment of 1970.
    fn from_str(text: &str) -> Result<Moment, String> {
        let date: jiff::Timestamp = text
            .trim()
            .parse()
            .map_err(|_| format!("invalid moment `{text}`: expected RFC 3339, such as \"2030-01-31T12:00:00Z\""))?;
        Ok(Moment(Timestamp::from_micros(u64::try_from(date.as_microsecond()).unwrap_or_default())))
    }
}

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:.6}", self.date()))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Moment, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Returns a length of time in milliseconds, with up to three decimals.
pub(crate) fn millis(length: Duration) -> f64 {
    length.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_back_and_carry_their_zone() {
        let moment: Moment = "2030-01-31T12:00:00+02:00".parse().unwrap();
        let written = serde_json::to_string(&moment).unwrap();
        assert_eq!(written, "\"2030-01-31T10:00:00.000000Z\"");
        assert_eq!(serde_json::from_str::<Moment>(&written).unwrap(), moment);
        assert!("tomorrow".parse::<Moment>().unwrap_err().contains("invalid moment `tomorrow`"));
    }
}
