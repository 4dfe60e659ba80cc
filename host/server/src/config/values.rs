//! From the text of a value to what it means. Errors are fragments that fit "`KEY`: {error}".

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// A length of time as people write it: "500ms", "30s", "1h 30m", "7d".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no length of time; write one as \"500ms\", \"30s\", \"5m\", \"2h\" or \"7d\"");
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    if !trimmed.is_empty() && trimmed.bytes().all(|c| c.is_ascii_digit()) {
        return Err(format!(
            "`{text}` has no unit; write \"{trimmed}s\" for seconds or \"{trimmed}ms\" for milliseconds"
        ));
    }
    let span: Span = trimmed.parse().map_err(|_| bad())?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| bad())?;
    Duration::try_from(signed).map_err(|_| format!("`{text}` is negative; a length of time is expected"))
}

/// A duration in the shortest of the ways `duration` reads.
pub(crate) struct ShownDuration(pub(crate) Duration);

impl fmt::Display for ShownDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u128); 5] =
            [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000)];
        let micros = self.0.as_micros();
        match UNITS.into_iter().find(|(_, unit)| micros >= *unit && micros.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", micros / unit),
            None if micros == 0 => f.write_str("0s"),
            None => write!(f, "{micros}us"),
        }
    }
}

/// A duration within bounds.
pub(crate) fn duration_within(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, String> {
    let length = duration(text)?;
    if bounds.contains(&length) {
        return Ok(length);
    }
    Err(format!(
        "`{text}` is out of bounds; {} to {} is possible",
        ShownDuration(*bounds.start()),
        ShownDuration(*bounds.end())
    ))
}

/// A whole number within bounds.
pub(crate) fn number_within(text: &str, bounds: RangeInclusive<u32>) -> Result<u32, String> {
    let (low, high) = (bounds.start(), bounds.end());
    match text.trim().replace('_', "").parse::<u32>() {
        Ok(number) if bounds.contains(&number) => Ok(number),
        Ok(_) => Err(format!("`{text}` is out of bounds; {low} to {high} is possible")),
        Err(_) => Err(format!("`{text}` is no whole number; {low} to {high} is possible")),
    }
}

/// Where to listen: an address of this machine and a port.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        format!(
            "`{text}` is no address to listen on; write one as \"127.0.0.1:7070\", \"0.0.0.0:7070\" or \"[::1]:7070\""
        )
    })
}

/// The address of a host, without a slash at its end.
pub(crate) fn host_address(text: &str) -> Result<String, String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let rest = with_scheme.strip_prefix("http://").or_else(|| with_scheme.strip_prefix("https://"));
    match rest.map(|rest| rest.trim_end_matches('/')) {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => {
            Ok(with_scheme.trim_end_matches('/').to_owned())
        }
        _ => Err(format!("`{text}` is no address of a host; write one as \"http://127.0.0.1:7070\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let read = |text| duration(text).unwrap();
        assert_eq!(read("500ms"), Duration::from_millis(500));
        assert_eq!(read("30s"), Duration::from_secs(30));
        assert_eq!(read("1h 30m"), Duration::from_secs(5400));
        assert_eq!(read("7d"), Duration::from_secs(7 * 86_400));
        assert_eq!(read("0"), Duration::ZERO);
    }

    #[test]
    fn what_is_no_duration_says_how_to_write_one() {
        assert_eq!(
            duration("30").unwrap_err(),
            "`30` has no unit; write \"30s\" for seconds or \"30ms\" for milliseconds"
        );
        assert_eq!(duration("-3s").unwrap_err(), "`-3s` is negative; a length of time is expected");
        for text in ["", "soon", "3 parsecs", "s"] {
            assert!(duration(text).unwrap_err().contains("is no length of time"), "{text}");
        }
    }

    #[test]
    fn a_shown_duration_reads_back() {
        for micros in [0, 1, 1500, 2_000_000, 90_000_000, 3_600_000_000, 7 * 86_400_000_000] {
            let length = Duration::from_micros(micros);
            assert_eq!(duration(&ShownDuration(length).to_string()), Ok(length));
        }
    }

    #[test]
    fn hosts_may_be_given_without_a_scheme() {
        assert_eq!(host_address("wharf.example:7070/").unwrap(), "http://wharf.example:7070");
        assert_eq!(host_address("https://wharf.example").unwrap(), "https://wharf.example");
        assert!(host_address("ftp://x").is_err() && host_address("").is_err());
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        assert_eq!(number_within("8", 1..=8000), Ok(8));
        assert_eq!(number_within("9000", 1..=8000).unwrap_err(), "`9000` is out of bounds; 1 to 8000 is possible");
        assert_eq!(number_within("many", 1..=8000).unwrap_err(), "`many` is no whole number; 1 to 8000 is possible");
    }
}
