//! The author of a change that a request asks for: its token, and the address that it came from.

use std::net::{IpAddr, SocketAddr};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use wharf_core::author::Author;

use super::app_state::AppState;
use super::peer_address::PeerAddress;
use super::problem::Problem;
use crate::access::Access;

/// The longest text of a forwarded address that is read.
const FORWARDED_BYTES_MAX: usize = 256;

/// The author of a request.
#[derive(Clone, Debug)]
pub(crate) struct RequestAuthor(pub(crate) Author);

impl FromRequestParts<AppState> for RequestAuthor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<RequestAuthor, Problem> {
        let access = Access::from_request_parts(parts, state).await?;
        Ok(RequestAuthor(author(parts, &access, state.proxy_authenticates)))
    }
}

/// Returns the author of what a client with these rights asks for.
pub(crate) fn author(parts: &Parts, access: &Access, proxy_authenticates: bool) -> Author {
    let peer = parts.extensions.get::<PeerAddress>().map(|peer| peer.0);
    let forwarded = proxy_authenticates.then(|| forwarded(&parts.headers)).flatten();
    match forwarded.or(peer) {
        Some(address) => access.author().at_address(&address.to_canonical().to_string()),
        None => access.author(),
    }
}

/// Returns the address that the nearest proxy says that its client has. A proxy adds it behind those that it was told, which
/// anybody may have made up.
fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = |name: &str| headers.get_all(name).iter().next_back()?.to_str().ok()?.rsplit(',').next().map(str::trim);
    let standard = || {
        let parameters = last("forwarded")?.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut of_client = parameters.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
        of_client.next().map(|(_, address)| address.trim_matches('"'))
    };
    last("x-forwarded-for").or_else(standard).or_else(|| last("x-real-ip")).and_then(address)
}

/// Reads an address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    if text.len() > FORWARDED_BYTES_MAX {
        return None;
    }
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip())).or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        forwarded(&map).map(|address| address.to_string())
    }

    #[test]
    fn the_address_that_the_nearest_proxy_added_counts() {
        assert_eq!(of(&[("x-forwarded-for", "10.1.1.1")]).as_deref(), Some("10.1.1.1"));
        assert_eq!(of(&[("x-forwarded-for", "6.6.6.6, 10.1.1.1")]).as_deref(), Some("10.1.1.1"), "made up, then true");
        let twice = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "7.7.7.7 ,10.1.1.2:4711")];
        assert_eq!(of(&twice).as_deref(), Some("10.1.1.2"));
        assert_eq!(
            of(&[("forwarded", "for=6.6.6.6, proto=https;For=\"[2001:db8::1]:80\"")]).as_deref(),
            Some("2001:db8::1")
        );
        assert_eq!(of(&[("x-real-ip", "[::1]")]).as_deref(), Some("::1"));
    }

    #[test]
    fn a_header_without_an_address_is_none() {
        let long = "1".repeat(10_000);
        for odd in ["", "unknown", "_hidden", "10.1.1.1, x", "10.1.1", &long, "<script>"] {
            assert_eq!(of(&[("x-forwarded-for", odd)]), None, "{odd}");
        }
        assert_eq!(of(&[]), None);
    }
}
