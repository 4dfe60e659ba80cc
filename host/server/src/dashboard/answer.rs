//! What a route of the dashboard answers: a page, or a problem that becomes a page where the visitor is known.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::html;
use wharf_store::StoreError;

use crate::http::problem::{Kind, Problem};

use super::layout::{Frame, Section, page_with};
use super::text::{line, lines};
use super::visitor::Visitor;

/// A problem on its way to its page.
#[derive(Debug)]
pub(crate) struct PageProblem(pub(super) Problem);

impl From<Problem> for PageProblem {
    fn from(problem: Problem) -> PageProblem {
        PageProblem(problem)
    }
}

impl From<StoreError> for PageProblem {
    fn from(error: StoreError) -> PageProblem {
        PageProblem(error.into())
    }
}

/// A problem within a response that has no page yet.
#[derive(Clone)]
pub(super) struct Carried(pub(super) Arc<Problem>);

impl IntoResponse for PageProblem {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(Carried(Arc::new(self.0)));
        response
    }
}

/// The answer of a route.
pub(crate) type Answer = Result<Response, PageProblem>;

/// Leads to another page, by its address below the root of the dashboard.
pub(super) fn lead_to(visitor: &Visitor, page: &str) -> Response {
    let location = visitor.link(page);
    match HeaderValue::from_str(&location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(_) => PageProblem(Problem::bad_request("invalid address: expected ASCII characters")).into_response(),
    }
}

/// Returns the page of a problem.
pub(super) fn problem_page(visitor: &Visitor, problem: &Problem) -> Response {
    let kind = problem.kind();
    let status = StatusCode::from_u16(kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let passes = matches!(kind, Kind::STORE_BUSY | Kind::PLUGIN_LOADING | Kind::NO_MEMORY | Kind::OUTCOME_UNKNOWN);
    let main = html! {
        div class="head" { h1 { (kind.title) } span class="mono dim" { (kind.status) " " (kind.code) } }
        div class="say failed" role="alert" { pre class="plain" { (lines(problem.detail())) } }
        p class="note" {
            @if passes && !visitor.is_safe {
                "Perhaps the change was made all the same: look before you repeat it. "
            }
            @if passes && visitor.is_safe {
                "This passes by itself in most cases. "
                a href=(visitor.link(&visitor.here)) { "Try again" }
                ". "
            }
            @if visitor.may_read() { a href=(visitor.link("jobs")) { "To the jobs" } }
        }
    };
    page_with(status, visitor, &Frame::still(&line(kind.title), Section::Outside), &main)
}
