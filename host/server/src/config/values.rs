//! Parsers of settings' values. Errors are fragments that fit "`KEY`: {error}".

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
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

/// Returns a duration, a range of durations, a size or a number in one form, however it is written: `60s` and `1m` are equal.
/// Returns `None` for any other text.
pub(super) fn in_one_form(text: &str) -> Option<String> {
    let duration = |text: &str| parse_duration(text).ok().map(|duration| format!("{duration:?}"));
    let range = || text.split_once("..").and_then(|(min, max)| Some(format!("{}..{}", duration(min)?, duration(max)?)));
    let number = || text.trim().replace('_', "").parse::<ByteSize>().ok().map(|size| size.as_u64().to_string());
    duration(text).or_else(range).or_else(number)
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
        _ => Err(format!(
            "invalid host address `{}`: expected a URL such as \"http://127.0.0.1:7070\"",
            wharf_store::without_password(text)
        )),
    }
}

/// The address under which clients reach the host through a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicUrl {
    /// The address as a whole, without a slash at the end.
    text: String,
    /// Scheme, name and port, without the default port, in lower case.
    origin: String,
    /// The name, in lower case.
    name: String,
}

impl PublicUrl {
    /// Returns the address, without a slash at the end.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true if a `Host` header has this name. Its port is not looked at: many proxies pass on the name alone.
    pub(crate) fn is_named(&self, host: &str) -> bool {
        host.parse::<axum::http::uri::Authority>().is_ok_and(|host| {
            !host.as_str().contains('@')
                && host.host().eq_ignore_ascii_case(&self.name)
                && (host.port().is_some() || host.host().len() == host.as_str().len())
        })
    }

    /// Returns true for the origin of pages at this address, as browsers send it.
    pub(crate) fn is_origin(&self, origin: &str) -> bool {
        origin.eq_ignore_ascii_case(&self.origin)
    }

    /// Returns true if connections to the address are encrypted.
    pub(crate) fn is_https(&self) -> bool {
        self.origin.starts_with("https://")
    }

    /// Returns true if the address leads nowhere but to this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let name = self.name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<PublicUrl, String> {
        let read = || {
            let rest = text.strip_prefix("http://").map(|rest| ("http", ":80", rest));
            let (scheme, default_port, rest) =
                rest.or_else(|| text.strip_prefix("https://").map(|rest| ("https", ":443", rest)))?;
            if rest.contains(['?', '#', '@']) || rest.contains(char::is_whitespace) {
                return None;
            }
            let uri: axum::http::Uri = text.parse().ok()?;
            let authority = uri.authority().filter(|authority| !authority.host().is_empty())?.as_str();
            let authority = authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
            Some(PublicUrl {
                text: text.trim_end_matches('/').to_owned(),
                origin: format!("{scheme}://{authority}"),
                name: uri.host()?.to_ascii_lowercase(),
            })
        };
        read().ok_or_else(|| {
            format!("invalid public address `{text}`: expected a URL such as \"https://jobs.example.com/wharf\"")
        })
    }
}

/// Parses the address under which clients reach the host; none if it is empty.
pub(crate) fn public_url(text: &str) -> Result<Option<PublicUrl>, String> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// Parses a yes or a no.
pub(crate) fn yes_or_no(text: &str) -> Result<bool, String> {
    text.trim().parse().map_err(|_| format!("invalid value `{text}`: expected true or false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_has_one_form() {
        let same = |one: &str, other: &str| {
            let form = in_one_form(one);
            assert!(form.is_some() && form == in_one_form(other), "{one} {other} {form:?}");
        };
        same("60s", "1m");
        same("1h 30m", " 90m ");
        same("1s..5m", "1000ms..300s");
        same("64MiB", "65536 KiB");
        same("1_000_000", "1000000");
        assert_ne!(in_one_form("5"), in_one_form("5s"));
        assert_ne!(in_one_form("64MiB"), in_one_form("64MB"));
        for text in ["", "words", "https://a.example", "10.0.0.0/8", "/a", "wait", "1s..", "1s..x"] {
            assert_eq!(in_one_form(text), None, "{text}");
        }
    }

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

    #[test]
    fn a_public_url_has_a_name_an_origin_and_perhaps_a_path() {
        let url: PublicUrl = "https://Jobs.example.com:443/wharf/".parse().unwrap();
        assert_eq!(url.as_str(), "https://Jobs.example.com:443/wharf");
        assert!(url.is_named("jobs.example.com") && url.is_named("JOBS.EXAMPLE.COM:8443"));
        assert!(
            !url.is_named("example.com") && !url.is_named("x@jobs.example.com") && !url.is_named("jobs.example.com:x")
        );
        assert!(url.is_origin("https://jobs.example.com") && !url.is_origin("http://jobs.example.com"));
        assert!(!url.is_loopback() && "http://[::1]:80/".parse::<PublicUrl>().unwrap().is_loopback());
        for bad in
            ["jobs.example.com", "ftp://x", "https://", "https://a b", "https://a?b", "https://u@a", "https:///p"]
        {
            assert!(bad.parse::<PublicUrl>().unwrap_err().contains("expected a URL"), "{bad}");
        }
    }
}
