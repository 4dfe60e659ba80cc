//! The address of the client at the other end of a connection, for requests that may change something.

use std::net::IpAddr;

use axum::http::{Method, Request};

/// The address of the client at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAddress(pub(super) IpAddr);

/// Adds the address of the client to a request that may change something. Enqueues are no acts, and are many: they go without.
pub(super) fn note_peer<B>(request: &mut Request<B>, peer: IpAddr) {
    if request.method() != Method::GET && request.uri().path() != "/v1/jobs" {
        request.extensions_mut().insert(PeerAddress(peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_change_nothing_carry_no_address() {
        let carries = |method: Method, path: &str| {
            let mut request = Request::builder().method(method).uri(path).body(()).unwrap();
            note_peer(&mut request, IpAddr::from([10, 0, 0, 1]));
            request.extensions().get::<PeerAddress>().is_some()
        };
        assert!(carries(Method::POST, "/v1/holds") && carries(Method::DELETE, "/v1/limits"));
        assert!(!carries(Method::POST, "/v1/jobs") && !carries(Method::GET, "/v1/holds"));
    }
}
