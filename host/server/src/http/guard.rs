//! Checks of every request before its route: its origin, and its token.

use std::any::Any;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq as _;

use super::problem::{Kind, Problem};

/// The rules by which requests are let in.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Token that requests must have; if `None`, every client that reaches the address is let in.
    token: Option<String>,
    /// True on loopback without a token: the name in `Host` must be loopback, too. Otherwise a web page whose name is made to
    /// resolve to this machine could send requests through its visitor's browser (DNS rebinding).
    only_loopback_names: bool,
}

impl Guard {
    /// Returns the rules for a host with this token that listens on loopback or not.
    pub(crate) fn new(token: Option<String>, on_loopback: bool) -> Guard {
        Guard { only_loopback_names: on_loopback && token.is_none(), token }
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).or(uri.authority().map(|authority| authority.as_str())).unwrap_or_default();
        if self.only_loopback_names && !is_loopback_name(host) {
            let detail = format!(
                "`Host` names `{host}`, which is not this machine's loopback; use 127.0.0.1 or localhost, or set `token` on the host"
            );
            return Err(Problem::new(Kind::CROSS_ORIGIN, detail));
        }
        if let Some(origin) = text(header::ORIGIN)
            && origin.split_once("://").is_none_or(|(_, from)| from != host)
        {
            return Err(Problem::new(
                Kind::CROSS_ORIGIN,
                format!(
                    "requests from pages of `{origin}` are refused; only pages of the host's own address may send them"
                ),
            ));
        }
        let open = matches!(uri.path(), "/health" | "/ready");
        match &self.token {
            Some(token) if !open => match text(header::AUTHORIZATION).map(bearer) {
                Some(Some(given)) if given.as_bytes().ct_eq(token.as_bytes()).into() => Ok(()),
                Some(_) => Err(Problem::new(Kind::UNAUTHORIZED, "wrong token: it is not the one of this host")),
                None => {
                    let detail = "missing token: send the header `Authorization: Bearer TOKEN`, with the `token` of the host's settings";
                    Err(Problem::new(Kind::UNAUTHORIZED, detail))
                }
            },
            _ => Ok(()),
        }
    }
}

/// Lets a request in, or answers it with a problem.
pub(crate) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Returns the answer to a request whose route panicked. The panic itself is in the log.
pub(crate) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    let detail = "a bug in Wharf ended this request; the host goes on, and its log names the place";
    Problem::new(Kind::INTERNAL, detail).into_response()
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, path: &str, headers: &[(header::HeaderName, &str)]) -> Result<(), String> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        guard.check(&path.parse().unwrap(), &headers).map_err(|problem| format!("{problem:?}"))
    }

    const HERE: (header::HeaderName, &str) = (header::HOST, "127.0.0.1:7070");

    #[test]
    fn the_token_is_required_everywhere_but_at_the_probes() {
        let guard = Guard::new(Some("0123456789abcdef".to_owned()), false);
        let with = |value| check(&guard, "/v1/jobs", &[HERE, (header::AUTHORIZATION, value)]);
        assert_eq!(with("Bearer 0123456789abcdef"), Ok(()));
        assert_eq!(with("bearer 0123456789abcdef"), Ok(()));
        assert!(with("Bearer 0123456789abcdeF").unwrap_err().contains("unauthorized"));
        assert!(with("Bearer 0123456789abcdef0").is_err() && with("Basic 0123456789abcdef").is_err());
        assert!(check(&guard, "/v1/jobs", &[HERE]).unwrap_err().contains("Authorization: Bearer TOKEN"));
        assert_eq!(check(&guard, "/health", &[HERE]), Ok(()));
    }

    #[test]
    fn names_that_are_not_loopback_are_refused_without_a_token() {
        let open = Guard::new(None, true);
        for name in ["localhost:7070", "127.0.0.1", "[::1]:7070", "LOCALHOST"] {
            assert_eq!(check(&open, "/v1/jobs", &[(header::HOST, name)]), Ok(()), "{name}");
        }
        for name in ["evil.example:7070", "127.0.0.1.evil.example", ""] {
            assert!(check(&open, "/v1/jobs", &[(header::HOST, name)]).unwrap_err().contains("cross-origin"), "{name}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let open = Guard::new(None, true);
        assert_eq!(check(&open, "/", &[HERE, (header::ORIGIN, "http://127.0.0.1:7070")]), Ok(()));
        for origin in ["https://evil.example", "null", "http://127.0.0.1:8080"] {
            assert!(check(&open, "/", &[HERE, (header::ORIGIN, origin)]).unwrap_err().contains("cross-origin"));
        }
    }
}
