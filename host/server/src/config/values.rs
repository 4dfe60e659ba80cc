//! Parsers of settings' values. Errors are fragments that fit "`KEY`: {error}".

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use wharf_engine::spec::duration::{HumanDuration, parse_duration};

/// Parses a duration within bounds.
pub(crate) fn duration_within(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if bounds.contains(&duration) {
        return Ok(duration);
    }
    let (min, max) = (HumanDuration(*bounds.start()), HumanDuration(*bounds.end()));
    Err(format!("invalid duration `{text}`: expected {min} to {max}"))
}

/// Parses a whole number within bounds.
pub(crate) fn number_within(text: &str, bounds: RangeInclusive<u32>) -> Result<u32, String> {
    let number = text.trim().replace('_', "").parse::<u32>().ok();
    number.filter(|number| bounds.contains(number)).ok_or_else(|| {
        format!("invalid number `{text}`: expected a whole number from {} to {}", bounds.start(), bounds.end())
    })
}

/// Parses a size in bytes that is at least `min`.
pub(crate) fn bytes_from(text: &str, min: u64) -> Result<u64, String> {
    let size = text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64());
    size.filter(|size| *size >= min).ok_or_else(|| {
        let min = ByteSize(min).display().iec();
        format!("invalid size `{text}`: expected at least {min}, such as \"512MiB\" or \"4GiB\"")
    })
}

/// Parses the address to listen on: an IP address or `localhost`, and a port.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        format!(
            "invalid address `{text}`: expected an IP address and a port, such as \"127.0.0.1:7070\", \"0.0.0.0:7070\" or \
             \"[::1]:7070\""
        )
    })
}

/// Parses the address of a host, and returns it with its scheme and without a slash at the end.
pub(crate) fn host_address(text: &str) -> Result<String, String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let rest = with_scheme.strip_prefix("http://").or_else(|| with_scheme.strip_prefix("https://"));
    match rest.map(|rest| rest.trim_end_matches('/')) {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => {
            Ok(with_scheme.trim_end_matches('/').to_owned())
        }
        _ => Err(format!("invalid host address `{text}`: expected a URL such as \"http://127.0.0.1:7070\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_stay_within_their_bounds() {
        let bounds = || Duration::from_millis(100)..=Duration::from_secs(86_400);
        assert_eq!(duration_within("5s", bounds()), Ok(Duration::from_secs(5)));
        assert_eq!(duration_within("2d", bounds()).unwrap_err(), "invalid duration `2d`: expected 100ms to 1d");
        assert!(duration_within("soon", bounds()).unwrap_err().starts_with("invalid duration `soon`: expected a dur"));
    }

    #[test]
    fn host_addresses_need_no_scheme() {
        assert_eq!(host_address("wharf.example:7070/").unwrap(), "http://wharf.example:7070");
        assert_eq!(host_address("https://wharf.example").unwrap(), "https://wharf.example");
        assert!(host_address("ftp://x").is_err() && host_address("").is_err());
    }

    #[test]
    fn sizes_have_a_minimum() {
        assert_eq!(bytes_from("4GiB", 1 << 20), Ok(4 << 30));
        assert_eq!(bytes_from("2097152", 1 << 20), Ok(2 << 20));
        for text in ["1KiB", "much", "", "-1"] {
            let expected = format!("invalid size `{text}`: expected at least 1.0 MiB, such as \"512MiB\" or \"4GiB\"");
            assert_eq!(bytes_from(text, 1 << 20).unwrap_err(), expected);
        }
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        assert_eq!(number_within("8", 1..=8000), Ok(8));
        for text in ["9000", "many", "-1"] {
            let expected = format!("invalid number `{text}`: expected a whole number from 1 to 8000");
            assert_eq!(number_within(text, 1..=8000).unwrap_err(), expected);
        }
    }
}
