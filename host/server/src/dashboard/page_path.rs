//! Extracts the segments of a page's address, with a page that says so if they are malformed.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::answer::PageProblem;
use crate::http::path::Path;

/// Segments of an address that a route of the dashboard names.
pub(super) struct PagePath<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PagePath<T> {
    type Rejection = PageProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PagePath<T>, PageProblem> {
        let Path(segments) = Path::from_request_parts(parts, state).await?;
        Ok(PagePath(segments))
    }
}
