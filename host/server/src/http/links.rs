//! References to other routes in documents and in the `Location` header.
//!
//! They are relative (RFC 3986, section 4.2): a client resolves them against the address that it requested. So they also work
//! if a proxy serves the host below a path prefix, of which the host knows nothing.

use wharf_core::ids::JobId;

/// Returns the reference to a job in an answer from `/v1/jobs`.
pub(crate) fn job_from_jobs(id: JobId) -> String {
    format!("jobs/{id}")
}

/// Returns the reference to a job in an answer from `/v1/broadcasts/{topic}`.
pub(crate) fn job_from_broadcast(id: JobId) -> String {
    format!("../jobs/{id}")
}

/// Returns the reference to a durable broadcast in an answer from `/v1/broadcasts/{topic}`.
pub(crate) fn broadcast_from_broadcast(id: impl std::fmt::Display) -> String {
    // An ID has no colon, so that it cannot be taken for a scheme.
    id.to_string()
}

/// Returns the reference from one page of a list to another page of it; `query` is percent-encoded.
pub(crate) fn page_from_page(query: &str) -> String {
    format!("?{query}")
}
