//! `/v1/audit`: what operators changed, and who, when and from where.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use wharf_core::audit::{ActId, ActKind};
use wharf_core::bounds;
use wharf_core::time::Timestamp;
use wharf_runner::Host;
use wharf_store::ActFilter;

use super::api::{Act, ActPage, AuditQuery, Moment};
use super::problem::Problem;
use super::query::encode;
use super::{links, memory, query};
use crate::config;

/// Number of acts on a page, if the query does not set it.
const PAGE_DEFAULT: u32 = 100;

/// Lists acts, newest first.
pub(crate) async fn list(State(host): State<Host>, uri: Uri) -> Result<Response, Problem> {
    memory::json(host.budget(), &page(&host, &uri).await?).await
}

/// Returns a page of the list.
///
/// # Errors
/// If a parameter is not valid, or the store failed.
pub(crate) async fn page(host: &Host, uri: &Uri) -> Result<ActPage, Problem> {
    let query: AuditQuery = query::query(uri)?;
    let filter = filter(&query, host.now())?;
    let since = filter.since;
    let page = host.acts(filter).await?;
    let next = page.next.map(|next| next_page(&query, since, next));
    Ok(ActPage { acts: page.acts.into_iter().map(Act::from).collect(), next })
}

fn filter(query: &AuditQuery, now: Timestamp) -> Result<ActFilter, Problem> {
    let max = query::page_size(query.limit, PAGE_DEFAULT, bounds::PAGE_MAX)?;
    let author = match (&query.author, query.no_token == Some(true)) {
        (Some(_), true) => {
            return Err(Problem::bad_request("`author` and `no_token` are both given; leave one out"));
        }
        (Some(name), false) => Some(Some(name.clone())),
        (None, true) => Some(None),
        (None, false) => None,
    };
    let before = query.before.as_deref().map(str::parse::<ActId>).transpose();
    Ok(ActFilter {
        since: query.since.as_deref().map(|since| since_moment(since, now)).transpose()?,
        author,
        kind: query.act.map(ActKind::from),
        before: before.map_err(|error| Problem::bad_request(format!("`before`: {error}")))?,
        max,
    })
}

/// Reads a moment, or a length of time before now.
fn since_moment(text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    if let Ok(length) = config::duration(text) {
        return Ok(now - length);
    }
    let invalid = |_| {
        let expected = "expected a moment such as \"2030-01-31T12:00:00Z\", or a length of time such as \"2h\"";
        Problem::bad_request(format!("`since`: invalid time `{}`: {expected}", text.escape_debug()))
    };
    text.parse::<Moment>().map(|moment| moment.0).map_err(invalid)
}

/// Returns the reference to the page that follows `next`, with the same filter. A length of time becomes a moment, so that all
/// pages begin at the same one.
fn next_page(query: &AuditQuery, since: Option<Timestamp>, next: ActId) -> String {
    let since = since.map(|since| format!("{:.6}", Moment(since).date()));
    let (act, limit) = (query.act.map(|act| act.to_string()), query.limit.map(|limit| limit.to_string()));
    let pairs = [
        ("since", since),
        ("author", query.author.clone()),
        ("no_token", query.no_token.map(|no_token| no_token.to_string())),
        ("act", act),
        ("limit", limit),
        ("before", Some(next.to_string())),
    ];
    let encoded = pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?))));
    links::page_from_page(&encoded.collect::<Vec<_>>().join("&"))
}
