//! What every request for a page passes: the checks of its way, the visitor's rights, the mark of a form, a bound on its time, and
//! the headers of the answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRef, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use futures_util::FutureExt as _;
use maud::{DOCTYPE, html};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug, debug_span};
use wharf_core::author::Author;
use wharf_runner::Host;

use crate::access::Access;
use crate::http::author::author;
use crate::http::body::read_small;
use crate::http::problem::{Kind, Problem};
use crate::http::scope::{Need, still_valid};
use crate::http::{AppState, Guard, encode};

use super::answer::{Carried, PageProblem, problem_page};
use super::form::Form;
use super::keys::Keys;
use super::pulse::Pulse;
use super::sessions::{Session, Sessions};
use super::visitor::{Visit, Visitor, base};

/// The longest body of a form, in bytes. What is larger is enqueued by the API or the command line.
pub(super) const FORM_BYTES_MAX: u64 = 1024 * 1024;
/// The longest body of a form that needs no token.
const OPEN_FORM_BYTES_MAX: u64 = 8 * 1024;
/// The longest time that a page takes: a slow store becomes a page that says so.
const PAGE_TIME_MAX: Duration = Duration::from_secs(10);

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The headers of every answer. Each one that a route has set stays.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Without a referrer, a browser would send its own forms with `Origin: null`.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// State of the dashboard's routes. Clones share it.
#[derive(Clone)]
pub(crate) struct Dashboard {
    pub(super) app: AppState,
    pub(super) guard: Arc<Guard>,
    pub(super) keys: Arc<Keys>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) sessions: Arc<Sessions>,
}

impl Dashboard {
    /// Returns the state of the dashboard of this host.
    pub(crate) fn new(app: AppState, guard: Arc<Guard>, keys: Keys, pulse: Arc<Pulse>) -> Dashboard {
        Dashboard { app, guard, keys: Arc::new(keys), pulse, sessions: Arc::default() }
    }
}

impl FromRef<Dashboard> for Host {
    fn from_ref(dashboard: &Dashboard) -> Host {
        dashboard.app.host.clone()
    }
}

/// The needs of a route, of which a visitor must meet one; a route without any is open to all.
pub(super) type Entrance = (Dashboard, &'static [Need]);

/// Lets a request in, runs its route, and gives the answer its headers.
pub(super) async fn enter(State((dashboard, needs)): State<Entrance>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    logged(route, request, |request| admitted(&dashboard, needs, request, next)).await
}

/// Answers with the page of a problem, if the visitor may know that much.
pub(super) async fn problem(dashboard: &Dashboard, request: Request, problem: Problem) -> Response {
    let page = async |request: Request| {
        let (parts, _) = request.into_parts();
        match visit(dashboard, &parts, ANY).await {
            Ok((visitor, ..)) => problem_page(&visitor, &problem),
            Err(refusal) => refusal,
        }
    };
    logged("unknown", request, page).await
}

/// Answers a request whose address has a page, but none for this method.
pub(super) async fn unknown_method(State(dashboard): State<Dashboard>, request: Request) -> Response {
    let detail = format!("{} does not accept {}", request.uri().path(), request.method());
    problem(&dashboard, request, Problem::new(Kind::METHOD_NOT_ALLOWED, detail)).await
}

/// Answers a request, gives the answer its headers, and logs its end.
async fn logged(route: &str, request: Request, answer: impl AsyncFnOnce(Request) -> Response) -> Response {
    let span = debug_span!("page", method = %request.method(), route, token = Empty, status = Empty);
    let started = Instant::now();
    let answer = async {
        let mut response = answer(request).await;
        let headers = response.headers_mut();
        for (name, value) in &HEADERS {
            headers.entry(name.clone()).or_insert(HeaderValue::from_static(value));
        }
        Span::current().record("status", response.status().as_u16());
        debug!(elapsed = ?started.elapsed(), "page ended");
        response
    };
    answer.instrument(span).await
}

/// The needs of a page that every visitor with a token may see.
const ANY: &[Need] = &[Need::Read, Need::Enqueue, Need::Broadcast];

/// Checks the way of a request and its token, and returns its visitor with the cookie that was sent. The error is the answer to whoever
/// is not let in.
async fn visit(
    dashboard: &Dashboard,
    parts: &Parts,
    needs: &[Need],
) -> Result<(Visitor, Option<String>, Option<Access>), Response> {
    if let Err(problem) = dashboard.guard.check_page(parts) {
        return Err(problem_page(&stranger(dashboard, parts), &problem));
    }
    let cookie = cookie(dashboard, &parts.headers).map(str::to_owned);
    let (access, session) = match access(dashboard, &parts.headers, cookie.as_deref()) {
        Ok(known) => known,
        // Whoever has a wrong token must be able to sign in.
        Err(_) if needs.is_empty() => (None, None),
        Err(problem) => return Err(problem_page(&stranger(dashboard, parts), &problem)),
    };
    if !needs.is_empty() && access.is_none() {
        return Err(ask_for_token(dashboard, parts, cookie.is_some()));
    }
    if let Some(access) = &access
        && dashboard.guard.asks_for_token()
    {
        Span::current().record("token", &*access.name);
    }
    let is_page = !needs.is_empty() && parts.method.is_safe() && has_frame(parts.uri.path());
    let visitor = visitor(dashboard, parts, is_page, access.clone(), (cookie.as_deref(), session)).await;
    Ok((visitor, cookie, access))
}

async fn admitted(dashboard: &Dashboard, needs: &'static [Need], request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let (visitor, cookie, access) = match visit(dashboard, &parts, needs).await {
        Ok(visit) => visit,
        Err(refusal) => return refusal,
    };
    let refused = |problem: &Problem| problem_page(&visitor, problem);
    if let Some(access) = &access
        && let Err(problem) = check(needs, access)
    {
        // Who reads nothing has no overview.
        let other = if access.enqueues_some() { "run" } else { "broadcasts" };
        if parts.uri.path() == "/" && !access.reads() && (access.enqueues_some() || visitor.may_broadcast()) {
            return super::answer::lead_to(&visitor, other);
        }
        return refused(&problem);
    }
    let is_safe = parts.method.is_safe();
    let request = if is_safe {
        parts.extensions.insert(visitor.clone());
        Request::from_parts(parts, body)
    } else {
        let max = if needs.is_empty() { OPEN_FORM_BYTES_MAX } else { FORM_BYTES_MAX };
        let form = read_small(&parts.headers, body, max).await.and_then(|body| Form::parse(&body));
        match form.and_then(|form| marked(dashboard, form, cookie.as_deref(), access.as_ref())) {
            Ok(form) => parts.extensions.insert(form),
            Err(problem) => return refused(&problem),
        };
        parts.extensions.insert(visitor.clone());
        Request::from_parts(parts, axum::body::Body::empty())
    };
    let running = AssertUnwindSafe(next.run(request)).catch_unwind();
    // What is changed is not given up half-way: the store bounds that itself.
    let ended = if is_safe { tokio::time::timeout(PAGE_TIME_MAX, running).await } else { Ok(running.await) };
    let response = match ended {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => PageProblem(Problem::panicked()).into_response(),
        Err(_) => {
            let seconds = PAGE_TIME_MAX.as_secs();
            let detail = format!("the store gave no answer within {seconds} s; nothing was changed");
            PageProblem(Problem::new(Kind::STORE_BUSY, detail)).into_response()
        }
    };
    match response.extensions().get::<Carried>() {
        Some(Carried(problem)) => problem_page(&visitor, problem),
        None => response,
    }
}

/// Checks that a visitor has one of these needs; the error is about the first one.
fn check(needs: &[Need], access: &Access) -> Result<(), Problem> {
    match needs.first() {
        Some(first) if !needs.iter().any(|need| need.check(access).is_ok()) => first.check(access),
        _ => Ok(()),
    }
}

/// Returns the cookie of this host that a request has.
fn cookie<'h>(dashboard: &Dashboard, headers: &'h HeaderMap) -> Option<&'h str> {
    let all = headers.get_all(header::COOKIE).iter();
    dashboard.keys.cookie(all.filter_map(|value| value.to_str().ok()))
}

/// Returns what a request may do: everyone's rights, those of its cookie, with the session, or those of the token that a proxy added.
fn access(
    dashboard: &Dashboard,
    headers: &HeaderMap,
    cookie: Option<&str>,
) -> Result<(Option<Access>, Option<Session>), Problem> {
    let tokens = dashboard.guard.tokens();
    if let Some(anyone) = tokens.anyone() {
        return Ok((Some(anyone), None));
    }
    let by_cookie = cookie.and_then(|cookie| {
        let access = dashboard.keys.access(cookie, tokens, dashboard.app.host.now())?;
        Some((access, Session { cookie: cookie.to_owned(), until: Keys::end_of(cookie)? }))
    });
    match by_cookie.filter(|(_, session)| !dashboard.sessions.has_ended(session)) {
        Some((access, session)) => Ok((Some(access), Some(session))),
        // A proxy's own sign-in may pass its header on: that is no token.
        None if !is_bearer(headers) => Ok((None, None)),
        None => Ok((dashboard.guard.bearer(headers)?, None)),
    }
}

/// Returns true if a request has a token in its headers, right or wrong.
fn is_bearer(headers: &HeaderMap) -> bool {
    let scheme =
        |value: &HeaderValue| value.as_bytes().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    headers.get_all(header::AUTHORIZATION).iter().any(scheme)
}

/// Returns true if the visitor's browser is to keep the cookie from connections that are not encrypted: its own connection is encrypted,
/// as a proxy says or as the origin of the form says; or it must be, since the public address is.
pub(super) fn is_secure(guard: &Guard, headers: &HeaderMap) -> bool {
    let is_forwarded =
        headers.get(X_FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    is_forwarded
        || match origin.and_then(|origin| origin.split_once("://")) {
            Some((scheme, name)) => scheme.eq_ignore_ascii_case("https") || guard.is_public_by_https(Some(name)),
            None => guard.is_public_by_https(None),
        }
}

/// Checks the mark of a form, and that the visitor's token is still valid after its body has come.
fn marked(dashboard: &Dashboard, form: Form, cookie: Option<&str>, access: Option<&Access>) -> Result<Form, Problem> {
    if !dashboard.keys.is_mark(form.as_sent("mark"), cookie) {
        let detail = "the form is of a page from before the host was restarted, or from before you signed in; nothing was \
                      changed: load the page again, and repeat";
        return Err(Problem::new(Kind::FORBIDDEN, detail));
    }
    if let Some(access) = access {
        still_valid(access)?;
    }
    Ok(form)
}

/// Returns true for an address whose answer has the frame of a page, with the sentence of health.
fn has_frame(path: &str) -> bool {
    !path.starts_with("/live/") && !path.ends_with("/payload") && !path.ends_with("/result")
}

async fn visitor(
    dashboard: &Dashboard,
    parts: &Parts,
    is_page: bool,
    access: Option<Access>,
    (cookie, session): (Option<&str>, Option<Session>),
) -> Visitor {
    let sees_all = access.as_ref().is_some_and(|access| access.reads() && access.key().is_none());
    let reading = match sees_all && is_page {
        true => Some(dashboard.pulse.latest(&dashboard.app.host).await),
        false => None,
    };
    let now = dashboard.app.host.now();
    let author = access.as_ref().map(|access| author(parts, access, dashboard.app.proxy_authenticates));
    Visitor::new(Visit {
        author: author.unwrap_or_else(Author::anyone),
        mark: dashboard.keys.mark(cookie),
        has_cookie: session.is_some(),
        session,
        is_safe: parts.method.is_safe(),
        access,
        base: base(parts.uri.path()),
        here: here(parts),
        now,
        reading,
    })
}

/// Returns the visitor of a page that nobody may see.
fn stranger(dashboard: &Dashboard, parts: &Parts) -> Visitor {
    Visitor::new(Visit {
        access: None,
        author: Author::anyone(),
        mark: String::new(),
        has_cookie: false,
        session: None,
        is_safe: parts.method.is_safe(),
        base: base(parts.uri.path()),
        here: here(parts),
        now: dashboard.app.host.now(),
        reading: None,
    })
}

/// Returns the address of a page below the root, with its query.
fn here(parts: &Parts) -> String {
    let address = parts.uri.path_and_query().map_or("", |address| address.as_str());
    address.trim_start_matches('/').to_owned()
}

/// Leads a visitor without rights to the page that asks for the token.
fn ask_for_token(dashboard: &Dashboard, parts: &Parts, has_cookie: bool) -> Response {
    let stranger = stranger(dashboard, parts);
    let accepts = |kind: &str| {
        let values = parts.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        values.into_iter().any(|value| value.contains(kind))
    };
    if accepts("text/event-stream") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let is_from_elsewhere = parts.headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site");
    if is_from_elsewhere && !has_cookie && parts.method.is_safe() {
        // A browser keeps a strict cookie back on the way from another site, such as a chat. A page that loads itself is a way
        // from this site.
        let again = html! { (DOCTYPE) html lang="en" { head { meta charset="utf-8"; title { "Wharf" } meta http-equiv="refresh" content="0"; } body {} } };
        return Html(again.into_string()).into_response();
    }
    if !parts.method.is_safe() {
        return super::answer::lead_to(&stranger, "login?undone=yes");
    }
    super::answer::lead_to(&stranger, &format!("login?to={}", encode(&stranger.here)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_a_token() {
        let with =
            |value: &'static str| HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
        assert!(is_bearer(&with("Bearer x")) && is_bearer(&with("bearer x")));
        assert!(!is_bearer(&with("Basic eDp5")) && !is_bearer(&with("")) && !is_bearer(&HeaderMap::new()));
    }

    #[test]
    fn streams_and_downloads_have_no_frame() {
        assert!(["/", "/jobs", "/jobs/1", "/limits"].into_iter().all(has_frame));
        assert!(!["/live/jobs", "/jobs/1/payload", "/jobs/1/result"].into_iter().any(has_frame));
    }
}
