//! Who looks at a page: what they may do, and from where the page's links lead on.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use wharf_core::author::Author;
use wharf_core::time::Timestamp;

use crate::access::Access;
use crate::http::problem::Problem;
use crate::http::scope::unknown_client;

use super::pulse::Reading;
use super::sessions::Session;

/// The visitor of one page. Clones share it.
#[derive(Clone)]
pub(crate) struct Visitor(Arc<Visit>);

/// One visit.
#[derive(Clone)]
pub(crate) struct Visit {
    /// The rights of the visitor; `None` on the page that asks for the token.
    pub(super) access: Option<Access>,
    /// The author of what the visitor changes.
    pub(super) author: Author,
    /// The mark that forms carry.
    pub(super) mark: String,
    /// True if the visitor came with a cookie, and may leave.
    pub(super) has_cookie: bool,
    /// The session of the cookie that let the visitor in, if one did.
    pub(super) session: Option<Session>,
    /// True if the request changes nothing, so that it may be repeated.
    pub(super) is_safe: bool,
    /// The way from the page up to the root of the dashboard: `./`, or `../` for each level.
    pub(super) base: String,
    /// The address of the page below the root, with its query.
    pub(super) here: String,
    /// The time by the store's clock.
    pub(super) now: Timestamp,
    /// The cluster, for visitors who may see all of it.
    pub(super) reading: Option<Arc<Reading>>,
}

impl Visitor {
    /// Returns the visitor of a visit.
    pub(super) fn new(visit: Visit) -> Visitor {
        Visitor(Arc::new(visit))
    }

    /// Returns the visitor of a page, as of now, for a stream of its changes: the stream itself has another address.
    pub(super) fn on(&self, page: &str, now: Timestamp) -> Visitor {
        Visitor::new(Visit { base: base(&format!("/{page}")), now, ..Visit::clone(self) })
    }

    /// Returns the visitor with another reading of the cluster.
    pub(super) fn with(&self, reading: Arc<Reading>) -> Visitor {
        Visitor::new(Visit { reading: Some(reading), ..Visit::clone(self) })
    }

    /// Returns the reference to a page, by its address below the root of the dashboard.
    pub(super) fn link(&self, page: &str) -> String {
        format!("{}{page}", self.base)
    }

    /// Returns the rights of the visitor.
    ///
    /// # Errors
    /// If there are none: only the page that asks for a token has no rights.
    pub(super) fn access(&self) -> Result<Access, Problem> {
        self.access.clone().ok_or_else(unknown_client)
    }

    fn has(&self, right: impl Fn(&Access) -> bool) -> bool {
        self.access.as_ref().is_some_and(right)
    }

    /// Returns true if the visitor may cancel and retry the jobs that they see.
    pub(super) fn may_change_jobs(&self) -> bool {
        self.has(|access| access.operates())
    }

    /// Returns true if the visitor sees jobs.
    pub(super) fn may_read(&self) -> bool {
        self.has(|access| access.reads())
    }

    /// Returns true if the visitor sees more than one key.
    pub(super) fn sees_all(&self) -> bool {
        self.has(|access| access.reads() && access.key().is_none())
    }

    /// Returns true if the visitor may change limits, holds and many jobs at once.
    pub(super) fn may_operate(&self) -> bool {
        self.has(|access| access.operates() && access.key().is_none())
    }

    /// Returns true if the visitor may run some job.
    pub(super) fn may_enqueue(&self) -> bool {
        self.has(|access| access.enqueues_some())
    }

    /// Returns true if the visitor may send some broadcast.
    pub(super) fn may_broadcast(&self) -> bool {
        self.has(|access| access.broadcasts_some() && access.key().is_none())
    }

    /// Returns true if the visitor may do everything.
    pub(super) fn is_admin(&self) -> bool {
        self.has(|access| access.is_admin())
    }
}

impl Deref for Visitor {
    type Target = Visit;

    fn deref(&self) -> &Visit {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Visitor, Problem> {
        // Fails closed: a route that was not entered has no visitor.
        parts.extensions.get::<Visitor>().cloned().ok_or_else(unknown_client)
    }
}

/// Returns the way up from an address to the root.
pub(super) fn base(path: &str) -> String {
    match path.matches('/').count().saturating_sub(1) {
        0 => "./".to_owned(),
        levels => "../".repeat(levels),
    }
}

/// Returns the address of a page below the root, if `text` is one. Anything else could lead to another site.
pub(super) fn page_address(text: &str) -> Option<&str> {
    let path = text.split('?').next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '\\' | '"' | '<' | '>');
    let is_safe = text.len() <= 2048 && text.chars().all(is_plain) && !path.contains([':', '@']);
    (is_safe && !text.starts_with('/') && !path.split('/').any(|part| part == "..")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_go_up_by_the_depth_of_the_page() {
        assert_eq!(["/", "/jobs", "/jobs/1", "/jobs/1/retry"].map(base), ["./", "./", "../", "../../"]);
    }

    #[test]
    fn only_pages_of_the_dashboard_are_returned_to() {
        for page in ["", "jobs?where=state%3Afailed", "jobs/0scdj1dem0000", "failures?task=a/b#x"] {
            assert_eq!(page_address(page), Some(page));
        }
        for other in
            ["//evil.example", "/x", "https://evil.example", "javascript:alert(1)", "..//x", "a\\b", "a b", "\n"]
        {
            assert_eq!(page_address(other), None, "{other}");
        }
    }
}
