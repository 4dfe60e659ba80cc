//! Checks of every request before its route: its origin, its way here, and its token.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Version, header};
use prometheus_client::metrics::counter::Counter;

use super::problem::{Kind, Problem};
use crate::access::{Access, Tokens};
use crate::config::{PublicUrl, Settings};

/// Headers that proxies add to what they pass on.
static OF_PROXIES: [HeaderName; 6] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
    header::VIA,
];

/// Says where a request comes from; browsers set it, and no page can.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Says what a browser wants an answer for.
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// Says what a browser makes of an answer.
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// The name that the client of a proxy asked for.
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The rules by which requests are let in.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The tokens of which requests must have one; if there are none, every client that reaches the address is let in.
    tokens: Tokens,
    /// Number of requests with a token that is not valid.
    wrong_tokens: Counter,
    /// True on loopback. Without tokens, the name in `Host` must be loopback, or the one of `public-url`. Otherwise a web page
    /// whose name is made to resolve to this machine could send requests through its visitor's browser (DNS rebinding).
    on_loopback: bool,
    public_url: Option<PublicUrl>,
    /// True if a proxy lets in only whom it knows. Otherwise a proxy on this machine would open the host to everyone: what it
    /// passes on comes from loopback.
    proxy_authenticates: bool,
}

impl Guard {
    /// Returns the rules of a host with these settings and tokens. Requests with a wrong token are counted.
    pub(crate) fn new(settings: &Settings, tokens: Tokens, wrong_tokens: Counter) -> Guard {
        Guard {
            tokens,
            wrong_tokens,
            on_loopback: settings.listen.ip().is_loopback(),
            public_url: settings.public_url.clone(),
            proxy_authenticates: settings.proxy_authenticates,
        }
    }

    /// Returns true if every request must have a token.
    pub(crate) fn asks_for_token(&self) -> bool {
        self.tokens.anyone().is_none()
    }

    /// Returns true if the public address is encrypted, and has this name, if one is given.
    pub(crate) fn is_public_by_https(&self, name: Option<&str>) -> bool {
        let url = self.public_url.as_ref().filter(|url| url.is_https());
        url.is_some_and(|url| name.is_none_or(|name| url.is_named(name)))
    }

    /// Returns the tokens that are valid at this moment.
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Counts a token that is not valid.
    pub(crate) fn count_wrong_token(&self) {
        self.wrong_tokens.inc();
    }

    /// Returns what the client may do; `None` on routes that need no token.
    ///
    /// # Errors
    /// The problem of a request that is not let in.
    pub(super) fn check(&self, request: &Parts) -> Result<Option<Access>, Problem> {
        let anyone = self.tokens.anyone();
        let headers = &request.headers;
        let open = matches!(request.uri.path(), "/health" | "/ready");
        let host = self.check_names(request, open)?;
        if let Some(origin) = single(headers, &header::ORIGIN)?
            && !self.is_own(origin, host)
        {
            return Err(foreign(origin));
        }
        if open {
            return Ok(None);
        }
        if anyone.is_some() {
            return Ok(anyone);
        }
        match self.bearer(headers)? {
            Some(access) => Ok(Some(access)),
            None => {
                let detail =
                    "missing token: send the header `Authorization: Bearer TOKEN`, with a token of the host's settings";
                Err(Problem::new(Kind::UNAUTHORIZED, detail))
            }
        }
    }

    /// Checks the way of a request for a page of the dashboard: the name in `Host`, the proxies on its way, and the page that sent it.
    /// A page of another site may only lead to one. What the visitor may do is not checked here.
    ///
    /// # Errors
    /// The problem of a request that is not let in.
    pub(crate) fn check_page(&self, request: &Parts) -> Result<(), Problem> {
        let host = self.check_names(request, false)?;
        let headers = &request.headers;
        let is_visit = request.method.is_safe()
            && single(headers, &SEC_FETCH_MODE)? == Some("navigate")
            && single(headers, &SEC_FETCH_DEST)? == Some("document");
        // A browser that says where a request comes from is believed: no page can set this header, and a proxy that replaces
        // `Host` leaves it.
        match (single(headers, &SEC_FETCH_SITE)?, single(headers, &header::ORIGIN)?) {
            (Some("same-origin" | "none"), _) | (None, None) => Ok(()),
            // A link: the browser shows the page, and the other site gets nothing of it.
            (Some(_), None) if is_visit => Ok(()),
            (Some(_), origin) => Err(foreign(origin.unwrap_or("another site"))),
            (None, Some(origin)) => {
                let forwarded = single(headers, &X_FORWARDED_HOST)?;
                let is_own = self.is_own(origin, host) || forwarded.is_some_and(|name| self.is_own(origin, Some(name)));
                if is_own { Ok(()) } else { Err(foreign(origin)) }
            }
        }
    }

    /// Returns the rights of the token in `Authorization`; `None` if there is no such header.
    ///
    /// # Errors
    /// The problem of a wrong token.
    pub(crate) fn bearer(&self, headers: &HeaderMap) -> Result<Option<Access>, Problem> {
        let Some(given) = single(headers, &header::AUTHORIZATION)?.map(bearer) else { return Ok(None) };
        match given.and_then(|given| self.tokens.find(given)) {
            Some(access) => Ok(Some(access)),
            None => {
                self.wrong_tokens.inc();
                Err(Problem::new(Kind::UNAUTHORIZED, "wrong token: it is none of this host's"))
            }
        }
    }

    /// Checks the name in `Host`, which is returned, and the proxies on the way of a request. `open` is true for the probes.
    fn check_names<'p>(&self, request: &'p Parts, open: bool) -> Result<Option<&'p str>, Problem> {
        let is_open = self.tokens.anyone().is_some();
        let headers = &request.headers;
        let host = single(headers, &header::HOST)?;
        if host.is_none() && request.version > Version::HTTP_10 && request.uri.authority().is_none() {
            return Err(Problem::bad_request("`Host` is missing; send the name of this host, as HTTP/1.1 requires"));
        }
        // A proxy may send an address in place of a path. Both names must be known then.
        let names = [host, request.uri.authority().map(|authority| authority.as_str())];
        let named = || names.into_iter().flatten();
        let is_public = |name: &&str| self.public_url.as_ref().is_some_and(|url| url.is_named(name));
        if is_open && !self.proxy_authenticates && !open {
            let sign = OF_PROXIES.iter().find(|name| headers.contains_key(*name)).map(HeaderName::as_str);
            if let Some(sign) = sign.or(named().any(|name| is_public(&name)).then_some("host")) {
                return Err(untrusted(sign));
            }
        }
        if is_open
            && self.on_loopback
            && let Some(name) = named().find(|name| !is_loopback(name) && !is_public(name))
        {
            let detail = format!(
                "`Host` names `{name}`, which is not this machine's loopback; use 127.0.0.1 or localhost, or set `token` on \
                 the host; for a proxy that passes its own name on, set `public-url`"
            );
            return Err(Problem::new(Kind::CROSS_ORIGIN, detail));
        }
        Ok(host)
    }

    /// Returns true for pages of the host's own address, and of its public one.
    fn is_own(&self, origin: &str, host: Option<&str>) -> bool {
        let of_host = origin.split_once("://").is_some_and(|(_, from)| Some(from) == host);
        of_host || self.public_url.as_ref().is_some_and(|url| url.is_origin(origin))
    }
}

/// Returns the value of a header that may be there once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad_request(format!("`{name}` is given twice; leave one out")));
    }
    let text = value.to_str().map_err(|_| Problem::bad_request(format!("invalid `{name}`: expected ASCII text")));
    text.map(Some)
}

fn foreign(origin: &str) -> Problem {
    let detail = format!(
        "requests from pages of `{origin}` are refused; only pages of the host's own address may send them, or of its \
         `public-url`"
    );
    Problem::new(Kind::CROSS_ORIGIN, detail)
}

fn untrusted(sign: &str) -> Problem {
    let detail = format!(
        "the request came through a proxy, as `{sign}` shows, and this host asks for no token: everyone whom the proxy lets in \
         could use it; set `token` on the host and have clients or the proxy send it, or, if the proxy lets in only whom it knows, \
         set `proxy-authenticates = true`"
    );
    Problem::new(Kind::PROXY_UNTRUSTED, detail).with("header", sign)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns true if a `Host` names this machine's loopback. What is odd does not.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) if is_port(port) => address,
        Some(_) => return false,
        None => match host.split_once(':') {
            Some((name, _)) if is_port(&host[name.len()..]) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns true for nothing, and for a colon and a number.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::access::{TokenHash, TokenTable};

    fn open() -> Guard {
        let (tokens, wrong_tokens) = (Tokens::default(), Counter::default());
        Guard { tokens, wrong_tokens, on_loopback: true, public_url: None, proxy_authenticates: false }
    }

    fn with_token(token: &str) -> Guard {
        let table = TokenTable::new(vec![(TokenHash::of(token), Access::everything("token"))]);
        Guard { tokens: Tokens::new(table), ..open() }
    }

    fn behind(url: &str) -> Guard {
        Guard { public_url: Some(url.parse().unwrap()), proxy_authenticates: true, ..open() }
    }

    fn check_version(
        guard: &Guard,
        version: Version,
        address: &str,
        headers: &[(HeaderName, &str)],
    ) -> Result<(), String> {
        let mut request = axum::http::Request::builder().version(version).uri(address);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        guard.check(&parts).map(drop).map_err(|problem| format!("{problem:?}"))
    }

    fn check(guard: &Guard, path: &str, headers: &[(HeaderName, &str)]) -> Result<(), String> {
        check_version(guard, Version::HTTP_11, path, headers)
    }

    const HERE: (HeaderName, &str) = (header::HOST, "127.0.0.1:7070");

    #[test]
    fn the_token_is_required_everywhere_but_at_the_probes() {
        let guard = with_token("0123456789abcdef");
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
        for name in ["localhost:7070", "localhost", "127.0.0.1", "[::1]:7070", "[::1]", "LOCALHOST"] {
            assert_eq!(check(&open(), "/v1/jobs", &[(header::HOST, name)]), Ok(()), "{name}");
        }
        for name in [
            "evil.example:7070",
            "127.0.0.1.evil.example",
            "",
            "[::1].evil.example",
            "[::1",
            "[::1]evil:80",
            "localhost:80.evil.example",
            "::1",
            "127.0.0.1:80:80",
            "evil.example@127.0.0.1",
        ] {
            assert!(
                check(&open(), "/v1/jobs", &[(header::HOST, name)]).unwrap_err().contains("cross-origin"),
                "{name}"
            );
        }
        let twice = check(&open(), "/v1/jobs", &[HERE, (header::HOST, "evil.example")]);
        assert!(twice.unwrap_err().contains("`host` is given twice"));
        for (address, host) in [("http://evil.example/v1/jobs", HERE.1), ("http://127.0.0.1/", "evil.example")] {
            assert!(
                check(&open(), address, &[(header::HOST, host)]).unwrap_err().contains("cross-origin"),
                "{address}"
            );
        }
        assert_eq!(check(&open(), "http://127.0.0.1:7070/v1/jobs", &[HERE]), Ok(()));
    }

    #[test]
    fn only_http_1_0_may_leave_the_name_out() {
        for path in ["/health", "/v1/jobs"] {
            assert_eq!(check_version(&open(), Version::HTTP_10, path, &[]), Ok(()));
            assert!(check(&open(), path, &[]).unwrap_err().contains("`Host` is missing"));
        }
    }

    #[test]
    fn what_a_proxy_passes_on_needs_a_token_or_a_proxy_that_authenticates() {
        let trusting = Guard { proxy_authenticates: true, ..open() };
        let token = with_token("0123456789abcdef");
        for name in &OF_PROXIES {
            let passed_on = [HERE, (name.clone(), "192.0.2.1")];
            let refused = check(&open(), "/v1/jobs", &passed_on).unwrap_err();
            assert!(refused.contains("proxy-untrusted") && refused.contains(name.as_str()), "{refused}");
            assert_eq!(check(&open(), "/health", &passed_on), Ok(()), "probes change nothing and tell little");
            assert_eq!(check(&trusting, "/v1/jobs", &passed_on), Ok(()));
            assert!(check(&token, "/v1/jobs", &passed_on).unwrap_err().contains("unauthorized"));
        }
    }

    #[test]
    fn a_page_may_change_something_only_from_the_host_itself() {
        let sent = |guard: &Guard, method: &str, headers: &[(HeaderName, &str)]| {
            let mut request = axum::http::Request::builder().method(method).uri("/jobs/1/retry");
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            guard.check_page(&request.body(()).unwrap().into_parts().0).map_err(|problem| format!("{problem:?}"))
        };
        let (fetch, origin, public) = (SEC_FETCH_SITE, header::ORIGIN, "http://jobs.example.com");
        // A proxy that replaces the name leaves what the browser says.
        assert_eq!(sent(&open(), "POST", &[HERE, (fetch.clone(), "same-origin"), (origin.clone(), public)]), Ok(()));
        for site in ["same-site", "cross-site", "x"] {
            let own = (origin.clone(), "http://127.0.0.1:7070");
            assert!(sent(&open(), "POST", &[HERE, (fetch.clone(), site), own]).unwrap_err().contains("cross-origin"));
            let link = [HERE, (fetch.clone(), site), (SEC_FETCH_MODE, "navigate"), (SEC_FETCH_DEST, "document")];
            assert_eq!(sent(&open(), "GET", &link), Ok(()), "a link from elsewhere is let in");
            for other in [&link[..2], &link[..3], &[HERE, link[1].clone(), (SEC_FETCH_MODE, "cors")]] {
                assert!(sent(&open(), "GET", other).unwrap_err().contains("cross-origin"), "a picture or a stream");
            }
        }
        assert_eq!(sent(&open(), "POST", &[HERE]), Ok(()), "no browser");
        assert_eq!(sent(&open(), "POST", &[HERE, (origin.clone(), "http://127.0.0.1:7070")]), Ok(()));
        assert!(sent(&open(), "POST", &[HERE, (origin.clone(), public)]).unwrap_err().contains("cross-origin"));
        assert!(sent(&open(), "GET", &[HERE, (origin.clone(), public)]).unwrap_err().contains("cross-origin"));
        let forwarded = [HERE, (origin.clone(), public), (X_FORWARDED_HOST, "jobs.example.com")];
        assert_eq!(sent(&with_token("0123456789abcdef"), "POST", &forwarded), Ok(()));
        assert!(sent(&open(), "GET", &[(header::HOST, "evil.example")]).unwrap_err().contains("cross-origin"));
    }

    #[test]
    fn the_public_name_is_known() {
        let guard = behind("https://jobs.example.com/wharf");
        for name in ["jobs.example.com", "JOBS.example.com:443", "127.0.0.1:7070"] {
            assert_eq!(check(&guard, "/v1/jobs", &[(header::HOST, name)]), Ok(()), "{name}");
        }
        for name in ["example.com", "jobs.example.com.evil.example", "jobs.example.com:x"] {
            assert!(check(&guard, "/v1/jobs", &[(header::HOST, name)]).unwrap_err().contains("cross-origin"), "{name}");
        }
        // The name itself tells that a proxy stands in between.
        let open = Guard { proxy_authenticates: false, ..guard };
        let refused = check(&open, "/v1/jobs", &[(header::HOST, "jobs.example.com")]);
        assert!(refused.unwrap_err().contains("proxy-untrusted"));
        assert_eq!(check(&open, "/v1/jobs", &[HERE]), Ok(()));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        assert_eq!(check(&open(), "/", &[HERE, (header::ORIGIN, "http://127.0.0.1:7070")]), Ok(()));
        for origin in ["https://evil.example", "null", "http://127.0.0.1:8080"] {
            assert!(check(&open(), "/", &[HERE, (header::ORIGIN, origin)]).unwrap_err().contains("cross-origin"));
        }
        let twice = [HERE, (header::ORIGIN, "http://127.0.0.1:7070"), (header::ORIGIN, "https://evil.example")];
        assert!(check(&open(), "/", &twice).is_err());
        // A proxy that replaces the name leaves the origin.
        let guard = behind("https://jobs.example.com/wharf");
        assert_eq!(check(&guard, "/", &[HERE, (header::ORIGIN, "https://jobs.example.com")]), Ok(()));
        for origin in ["http://jobs.example.com", "https://jobs.example.com:8443", "https://evil.example"] {
            assert!(check(&guard, "/", &[HERE, (header::ORIGIN, origin)]).is_err(), "{origin}");
        }
    }
}
