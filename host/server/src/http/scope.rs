//! What each route needs of a client's token.

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;

use super::problem::{Kind, Problem};
use crate::access::Access;

/// The needs of a method of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// `read`; a token with a key finds its own jobs.
    Read,
    /// `read`, and no key: it shows more than one key's jobs.
    ReadAll,
    /// `operate`; a token with a key changes its own jobs.
    Operate,
    /// `operate`, and no key: it changes more than one key's jobs.
    OperateAll,
    /// `enqueue` for the tasks of the request; a token with a key enqueues its own jobs.
    Enqueue,
    /// `broadcast` for the topic, and no key.
    Broadcast,
    /// `admin`, which no token with a key has.
    Admin,
}

impl Need {
    /// Returns the list of only this need.
    pub(crate) fn alone(self) -> &'static [Need] {
        match self {
            Need::Read => &[Need::Read],
            Need::ReadAll => &[Need::ReadAll],
            Need::Operate => &[Need::Operate],
            Need::OperateAll => &[Need::OperateAll],
            Need::Enqueue => &[Need::Enqueue],
            Need::Broadcast => &[Need::Broadcast],
            Need::Admin => &[Need::Admin],
        }
    }

    /// Returns the scope as it is documented.
    pub(crate) fn scope(self) -> &'static str {
        match self {
            Need::Read | Need::ReadAll => "read",
            Need::Operate | Need::OperateAll => "operate",
            Need::Enqueue => "enqueue:PLUGIN/TASK",
            Need::Broadcast => "broadcast:TOPIC",
            Need::Admin => "admin",
        }
    }

    /// Returns true if a token with a key may use the route.
    pub(crate) fn is_by_key(self) -> bool {
        !matches!(self, Need::ReadAll | Need::OperateAll | Need::Broadcast | Need::Admin)
    }

    /// Checks that a client has what the route needs.
    ///
    /// # Errors
    /// The problem of a client that lacks it.
    pub(crate) fn check(self, access: &Access) -> Result<(), Problem> {
        let has = match self {
            Need::Read | Need::ReadAll => access.reads(),
            Need::Operate | Need::OperateAll => access.operates(),
            Need::Enqueue => access.enqueues_some(),
            Need::Broadcast => access.broadcasts_some(),
            Need::Admin => access.is_admin(),
        };
        if !has {
            return Err(forbidden(access, self.scope()));
        }
        if !self.is_by_key()
            && let Some(key) = access.key()
        {
            let detail = format!(
                "token `{}` is bound to key `{key}`, and this route reaches beyond one key; use a token without `key`",
                access.name
            );
            return Err(Problem::new(Kind::FORBIDDEN, detail));
        }
        Ok(())
    }
}

/// Returns the problem of a token that lacks a scope.
pub(crate) fn forbidden(access: &Access, scope: &str) -> Problem {
    let detail =
        format!("token `{}` lacks the scope `{scope}`; add it to `can` of the token in wharf.toml", access.name);
    Problem::new(Kind::FORBIDDEN, detail).with("scope", scope)
}

/// The needs of each method of each route. Probes need no token.
const NEEDS: [(Method, &str, Need); 41] = [
    (Method::POST, "/v1/jobs", Need::Enqueue),
    (Method::GET, "/v1/jobs", Need::Read),
    (Method::GET, "/v1/jobs/{id}", Need::Read),
    (Method::GET, "/v1/jobs/{id}/result", Need::Read),
    (Method::GET, "/v1/jobs/{id}/attempts", Need::Read),
    (Method::GET, "/v1/jobs/{id}/events", Need::Read),
    (Method::POST, "/v1/jobs/{id}/cancel", Need::Operate),
    (Method::POST, "/v1/jobs/{id}/retry", Need::Operate),
    (Method::GET, "/v1/failures", Need::ReadAll),
    (Method::GET, "/v1/failures/{fingerprint}", Need::ReadAll),
    (Method::POST, "/v1/failures/{fingerprint}/resolve", Need::OperateAll),
    (Method::POST, "/v1/failures/{fingerprint}/ignore", Need::OperateAll),
    (Method::POST, "/v1/failures/{fingerprint}/reopen", Need::OperateAll),
    (Method::POST, "/v1/broadcasts/{topic}", Need::Broadcast),
    (Method::GET, "/v1/broadcasts/{topic}", Need::ReadAll),
    (Method::GET, "/v1/plugins", Need::ReadAll),
    (Method::GET, "/v1/plugins/{id}", Need::ReadAll),
    (Method::GET, "/v1/nodes", Need::ReadAll),
    (Method::POST, "/v1/nodes/{node}/drain", Need::OperateAll),
    (Method::POST, "/v1/nodes/{node}/resume", Need::OperateAll),
    (Method::GET, "/v1/config", Need::Admin),
    (Method::GET, "/v1/limits", Need::ReadAll),
    (Method::PUT, "/v1/limits", Need::OperateAll),
    (Method::DELETE, "/v1/limits", Need::OperateAll),
    (Method::GET, "/v1/holds", Need::ReadAll),
    (Method::POST, "/v1/holds", Need::OperateAll),
    (Method::DELETE, "/v1/holds", Need::OperateAll),
    (Method::GET, "/v1/audit", Need::Admin),
    (Method::GET, "/v1/summary", Need::ReadAll),
    (Method::GET, "/v1/operations", Need::ReadAll),
    (Method::POST, "/v1/operations", Need::OperateAll),
    (Method::GET, "/v1/operations/{id}", Need::ReadAll),
    (Method::DELETE, "/v1/operations/{id}", Need::OperateAll),
    (Method::GET, "/v1/schedules", Need::ReadAll),
    (Method::GET, "/v1/schedules/{id}", Need::ReadAll),
    (Method::PUT, "/v1/schedules/{id}", Need::OperateAll),
    (Method::DELETE, "/v1/schedules/{id}", Need::OperateAll),
    (Method::POST, "/v1/schedules/{id}/run", Need::OperateAll),
    (Method::POST, "/v1/schedules/{id}/pause", Need::OperateAll),
    (Method::POST, "/v1/schedules/{id}/resume", Need::OperateAll),
    (Method::GET, "/metrics", Need::ReadAll),
];
/// The routes that every token may use.
const FOR_ALL: [&str; 3] = ["/openapi.json", "/health", "/ready"];

/// Returns what a method of a route needs; an error if the route is in no table.
pub(crate) fn need(method: &Method, route: &str) -> Result<Option<Need>, Problem> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut known = NEEDS.iter().filter(|(_, path, _)| *path == route).peekable();
    if known.peek().is_none() && !FOR_ALL.contains(&route) {
        return Err(Problem::new(Kind::INTERNAL, format!("a bug in Wharf: nothing says which tokens may use {route}")));
    }
    // Another method does not exist, and the router says so; a test holds that each one that does exist is in the table.
    Ok(known.find(|(of, ..)| of == method).map(|(.., need)| *need))
}

/// Checks that a client has what this method of a route needs. A path without a route needs nothing.
///
/// # Errors
/// The problem of a request that is not let in.
pub(super) fn check(method: &Method, route: Option<&str>, client: Option<&Access>) -> Result<(), Problem> {
    let Some(route) = route else { return Ok(()) };
    match need(method, route)? {
        Some(need) => need.check(client.ok_or_else(unknown_client)?),
        None => Ok(()),
    }
}

/// Checks that a token was not revoked since its request began, as while its body was on the way.
///
/// # Errors
/// The problem that it was; nothing was changed.
pub(crate) fn still_valid(access: &Access) -> Result<(), Problem> {
    if access.revoked.is_cancelled() {
        let detail = "the token was revoked while the body of the request was on its way; nothing was changed";
        return Err(Problem::new(Kind::UNAUTHORIZED, detail));
    }
    Ok(())
}

/// Fails closed: the guard knows every client, or has refused it.
pub(crate) fn unknown_client() -> Problem {
    Problem::new(Kind::INTERNAL, "a bug in Wharf: the request came to its route without a check of its token")
}

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Access, Problem> {
        parts.extensions.get::<Access>().cloned().ok_or_else(unknown_client)
    }
}
