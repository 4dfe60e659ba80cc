//! The page that asks for a token, where the host has tokens.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::answer::{Answer, lead_to};
use super::entry::{Dashboard, is_secure};
use super::form::Form;
use super::layout::{Frame, Section, marks, page, page_with};
use super::visitor::{Visitor, page_address};

/// Said to whoever sent a form after the session was over.
const UNDONE: &str = "The session is over, and what you sent was not done. Sign in, go back, load the page again, and send it once more.";

/// Shows the page.
pub(super) async fn show(State(dashboard): State<Dashboard>, visitor: Visitor, uri: Uri) -> Answer {
    let query = Form::of_query(&uri)?;
    let to = query.get("to").and_then(page_address).unwrap_or_default();
    if visitor.access.is_some() || !dashboard.guard.asks_for_token() {
        return Ok(lead_to(&visitor, to));
    }
    let note = query.get("undone").map(|_| UNDONE);
    Ok(page(&visitor, &Frame::still("Sign in", Section::Outside), &content(&visitor, to, note)))
}

/// Signs a visitor in.
pub(super) async fn sign_in(
    State(dashboard): State<Dashboard>,
    visitor: Visitor,
    headers: HeaderMap,
    form: Form,
) -> Answer {
    let to = form.get("to").and_then(page_address).unwrap_or_default();
    let token = form.get("token").unwrap_or_default();
    if !dashboard.guard.asks_for_token() {
        return Ok(lead_to(&visitor, to));
    }
    if dashboard.guard.tokens().find(token).is_none() {
        dashboard.guard.count_wrong_token();
        let main = content(&visitor, to, Some("Wrong token: it is none of this host's."));
        return Ok(page_with(StatusCode::UNAUTHORIZED, &visitor, &Frame::still("Sign in", Section::Outside), &main));
    }
    let cookie = dashboard.keys.set_cookie(token, dashboard.app.host.now(), is_secure(&dashboard.guard, &headers));
    Ok(with_cookie(lead_to(&visitor, to), &cookie))
}

/// Signs a visitor out: the open streams of the session end, and its cookie opens nothing any more.
pub(super) async fn sign_out(State(dashboard): State<Dashboard>, visitor: Visitor, headers: HeaderMap) -> Answer {
    if let Some(session) = &visitor.session {
        dashboard.sessions.end(session, dashboard.app.host.now());
    }
    let cookie = dashboard.keys.clear_cookie(is_secure(&dashboard.guard, &headers));
    Ok(with_cookie(lead_to(&visitor, "login"), &cookie))
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    match HeaderValue::from_str(cookie) {
        Ok(value) => {
            response.headers_mut().insert(header::SET_COOKIE, value);
            response
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn content(visitor: &Visitor, to: &str, note: Option<&str>) -> Markup {
    html! {
        form class="login" method="post" action=(visitor.link("login")) {
            (marks(visitor))
            input type="hidden" name="to" value=(to);
            h1 { svg aria-hidden="true" width="20" height="20" { use href="#i-brand" {} } " Wharf" }
            @if let Some(note) = note { p class="wrong" role="alert" { (note) } }
            label for="token" { "Token" }
            input id="token" name="token" type="password" autocomplete="current-password" required autofocus spellcheck="false";
            button class="primary" { "Sign in" }
            p class="note" {
                "A token of the host's settings. It is asked for again after twelve hours, and after the host was restarted."
            }
        }
    }
}
