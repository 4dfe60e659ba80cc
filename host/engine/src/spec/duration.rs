//! Durations as users write them, in manifests, settings, flags and queries: "500ms", "1h 30m", "7d".

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use wharf_core::time::length_text;

/// A duration that is written with its units: "500ms", "60s", "1h 30m", "7d". A day has 24 hours; "0" needs no unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// The form of a duration, as errors describe it.
pub(crate) const DURATION_RULE: &str = "a duration such as \"500ms\", \"30s\", \"1h 30m\" or \"7d\"";

/// Parses a duration that is written with its units.
///
/// # Errors
/// When `text` is not a duration, lacks its unit or is negative; the error says how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = |reason: &str| format!("invalid duration `{text}`: {reason}");
    let unreadable = || invalid(&format!("expected {DURATION_RULE}"));
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    if !trimmed.is_empty() && trimmed.bytes().all(|c| c.is_ascii_digit()) {
        let advice =
            format!("the unit is missing; write \"{trimmed}s\" for seconds or \"{trimmed}ms\" for milliseconds");
        return Err(invalid(&advice));
    }
    let span: Span = trimmed.parse().map_err(|_| unreadable())?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| unreadable())?;
    Duration::try_from(signed).map_err(|_| invalid("it must not be negative"))
}

impl FromStr for HumanDuration {
    type Err = String;
    fn from_str(text: &str) -> Result<HumanDuration, String> {
        parse_duration(text).map(HumanDuration)
    }
}

/// Writes the duration with the largest unit that divides it, in a form that [`parse_duration`] reads. Precise to the microsecond.
impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&length_text(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_with_their_units() {
        let parsed = |text| parse_duration(text).unwrap();
        assert_eq!(parsed("500ms"), Duration::from_millis(500));
        assert_eq!(parsed("30s"), Duration::from_secs(30));
        assert_eq!(parsed(" 1h 30m "), Duration::from_secs(5400));
        assert_eq!(parsed("7d"), Duration::from_secs(7 * 86_400));
        assert_eq!(parsed("0"), Duration::ZERO);
    }

    #[test]
    fn errors_say_how_to_write_a_duration() {
        assert_eq!(
            parse_duration("30").unwrap_err(),
            "invalid duration `30`: the unit is missing; write \"30s\" for seconds or \"30ms\" for milliseconds"
        );
        assert_eq!(parse_duration("-3s").unwrap_err(), "invalid duration `-3s`: it must not be negative");
        for text in ["", "soon", "3 parsecs", "s", "1 month"] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.starts_with(&format!("invalid duration `{text}`: expected a duration such as")), "{error}");
        }
    }

    #[test]
    fn a_displayed_duration_is_parsed_back() {
        for micros in [0, 1, 1500, 2_000_000, 90_000_000, 3_600_000_000, 7 * 86_400_000_000] {
            let duration = Duration::from_micros(micros);
            assert_eq!(HumanDuration(duration).to_string().parse(), Ok(HumanDuration(duration)));
        }
    }
}
