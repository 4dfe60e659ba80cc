//! One place that plugins may send HTTP requests to.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use serde::{Deserialize, Deserializer, de};

/// One entry of the HTTP allow list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    tls: bool,
    host: GrantedHost,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum GrantedHost {
    Name(String),
    /// All names below this one, but not the name itself.
    Subdomains(String),
    Address(IpAddr),
}

impl HttpGrant {
    /// Returns true if a request to this place is granted.
    pub(crate) fn grants(&self, tls: bool, host: &str, port: u16) -> bool {
        self.tls == tls && self.port == port && self.host.matches(&GrantedHost::parse(host))
    }

    /// Returns true if the place is reached by TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Returns true if every request that `other` grants is granted by this one, too.
    pub(crate) fn covers(&self, other: &HttpGrant) -> bool {
        self.tls == other.tls && self.port == other.port && self.host.covers(&other.host)
    }
}

/// Returns true if `host` is this address, as a request writes it.
pub(crate) fn is_address(host: &str, address: IpAddr) -> bool {
    GrantedHost::parse(host) == GrantedHost::Address(address.to_canonical())
}

impl GrantedHost {
    fn covers(&self, other: &GrantedHost) -> bool {
        match (self, other) {
            (GrantedHost::Subdomains(_), GrantedHost::Subdomains(below)) => {
                self == other || self.matches(&GrantedHost::Name(below.clone()))
            }
            _ => self == other || self.matches(other),
        }
    }

    fn parse(text: &str) -> GrantedHost {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => GrantedHost::Address(address.to_canonical()),
            Err(_) => GrantedHost::Name(bare.trim_end_matches('.').to_ascii_lowercase()),
        }
    }

    fn matches(&self, parse: &GrantedHost) -> bool {
        match (self, parse) {
            (GrantedHost::Subdomains(parent), GrantedHost::Name(name)) => {
                name.strip_suffix(parent.as_str()).is_some_and(|head| head.len() > 1 && head.ends_with('.'))
            }
            (granted, parse) => granted == parse,
        }
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match &self.host {
            GrantedHost::Name(name) => write!(f, "{scheme}://{name}:{}", self.port),
            GrantedHost::Subdomains(name) => write!(f, "{scheme}://*.{name}:{}", self.port),
            GrantedHost::Address(IpAddr::V6(v6)) => write!(f, "{scheme}://[{v6}]:{}", self.port),
            GrantedHost::Address(v4) => write!(f, "{scheme}://{v4}:{}", self.port),
        }
    }
}

impl FromStr for HttpGrant {
    type Err = String;
    /// Parses a place as the requests are parsed that are compared with it; only `*.` is beyond an URL's grammar.
    fn from_str(text: &str) -> Result<HttpGrant, String> {
        // Behind these may stand a password or a token, which no error shows.
        let shown = text.find(['?', '#', '@']).map_or(text, |_| "***");
        let bad = |why: &str| {
            format!(
                "invalid place `{shown}`: {why}; expected something like \"https://api.example.com\", \"https://*.example.com\" or \"http://10.1.2.3:8080\""
            )
        };
        let (plain, has_wildcard) = match text.split_once("://*.") {
            Some((scheme, rest)) => (Cow::Owned(format!("{scheme}://{rest}")), true),
            None => (Cow::Borrowed(text), false),
        };
        // A fragment is not part of what is parsed.
        if plain.contains(['?', '#', '@']) {
            return Err(bad("it has more than a scheme, a host and a port"));
        }
        let uri: Uri = plain.parse().map_err(|error| bad(&format!("{error}")))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("it does not start with https:// or http://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("the host is missing"))?;
        if uri.path() != "/" {
            return Err(bad("it has more than a scheme, a host and a port"));
        }
        let port = match authority.as_str().get(authority.host().len()..).unwrap_or_default() {
            "" => default_port(tls),
            port => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(|| bad("invalid port"))?,
        };
        let host = match authority.host() {
            parent if has_wildcard && is_host_name(parent) => GrantedHost::Subdomains(parent.to_ascii_lowercase()),
            _ if has_wildcard => return Err(bad("a name is missing after `*.`")),
            host => GrantedHost::parse(host),
        };
        match &host {
            GrantedHost::Name(name) if !is_host_name(name) => Err(bad("invalid host")),
            _ => Ok(HttpGrant { tls, host, port }),
        }
    }
}

/// Returns the port of a place that names none.
pub(crate) fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .split('.')
            .all(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'))
}

impl<'de> Deserialize<'de> for HttpGrant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<HttpGrant, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_entry_says_what_would_be_right() {
        let bad = [
            "example.com",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "https://*.",
            "https://*.*.a",
            "https://a.*.b",
            "https://x:99999",
            "https://x:",
            "https://u@h",
            "https://[::1",
        ];
        for text in bad {
            let message = text.parse::<HttpGrant>().unwrap_err();
            assert!(message.starts_with("invalid place `") && message.contains("expected something like"), "{message}");
        }
        let port = |text: &str| text.parse::<HttpGrant>().unwrap().to_string();
        assert_eq!(port("https://API.example.com/"), "https://api.example.com:443");
        assert_eq!(port("http://[::1]"), "http://[::1]:80");
    }
}
