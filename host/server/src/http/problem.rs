//! Problem documents (RFC 9457): a status, a stable code, and a text that says what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use wharf_core::bounds::REPORT_BYTES_MAX;
use wharf_store::StoreError;

/// A kind of problem. Codes are never changed once released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Stable code, for programs.
    pub(crate) code: &'static str,
    /// HTTP status.
    pub(crate) status: u16,
    /// Title: the same text for every problem of this kind.
    pub(crate) title: &'static str,
}

macro_rules! kinds {
    ($($name:ident $code:literal $status:literal $title:literal)*) => {
        impl Kind {
            $(pub(crate) const $name: Kind = Kind { code: $code, status: $status, title: $title };)*
            /// Every kind of problem.
            pub(crate) const ALL: &[Kind] = &[$(Kind::$name),*];
        }
    };
}

kinds! {
    BAD_REQUEST        "bad-request"        400 "The request is malformed"
    UNAUTHORIZED       "unauthorized"       401 "A valid token is required"
    CROSS_ORIGIN       "cross-origin"       403 "Requests from other sites are refused"
    PROXY_UNTRUSTED    "proxy-untrusted"    403 "Requests through a proxy need a token"
    FORBIDDEN          "forbidden"          403 "The token does not allow this"
    KEY_FORBIDDEN      "key-forbidden"      403 "The token is bound to another key"
    ROUTE_UNKNOWN      "route-unknown"      404 "Unknown route"
    JOB_UNKNOWN        "job-unknown"        404 "Unknown job"
    PLUGIN_UNKNOWN     "plugin-unknown"     404 "Unknown plugin"
    BROADCAST_UNKNOWN  "broadcast-unknown"  404 "Unknown durable broadcast"
    GROUP_UNKNOWN      "group-unknown"      404 "Unknown limit group"
    LIMIT_NOT_SET      "limit-not-set"      404 "The limit is not set"
    HOLD_UNKNOWN       "hold-unknown"       404 "Unknown hold"
    FAILURE_UNKNOWN    "failure-unknown"    404 "Unknown failure group"
    OPERATION_UNKNOWN  "operation-unknown"  404 "Unknown bulk operation"
    SCHEDULE_UNKNOWN   "schedule-unknown"   404 "Unknown schedule"
    NODE_UNKNOWN       "node-unknown"       404 "Unknown host"
    METHOD_NOT_ALLOWED "method-not-allowed" 405 "The route does not accept this method"
    JOB_FINISHED       "job-finished"       409 "The job has already ended"
    JOB_NOT_FINISHED   "job-not-finished"   409 "The job has not ended yet"
    LANE_FULL          "lane-full"          409 "The job was not enqueued, as its lane is full"
    TOO_MANY_HOLDS     "too-many-holds"     409 "There are too many holds"
    OPERATION_ENDED    "operation-ended"    409 "The bulk operation has ended"
    TOO_MANY_OPERATIONS "too-many-operations" 409 "Too many bulk operations are open"
    SCHEDULE_IN_FILE   "schedule-in-file"   409 "The schedule stands in a settings file"
    SCHEDULE_EXISTS    "schedule-exists"    409 "There is another schedule of the name"
    SCHEDULE_NOT_RUN   "schedule-not-run"   409 "No job of the schedule was enqueued"
    TOO_MANY_SCHEDULES "too-many-schedules" 409 "There are too many schedules"
    TOO_LARGE          "too-large"          413 "The request is too large"
    JOB_INVALID        "job-invalid"        422 "A job is invalid"
    BROADCAST_INVALID  "broadcast-invalid"  422 "The broadcast is invalid"
    STORE_REFUSED      "store-refused"      422 "The store cannot take a value of the request"
    // Not a 5xx: many clients repeat those on their own, and the job would run again.
    JOB_FAILED         "job-failed"         422 "The job failed"
    JOB_CANCELLED      "job-cancelled"      409 "The job was cancelled"
    TOO_MANY_BROADCASTS "too-many-broadcasts" 429 "Too many broadcasts are open"
    QUEUE_FULL         "queue-full"         429 "Too many jobs of a plugin wait"
    INTERNAL           "internal"           500 "A bug in the host"
    STORE_BROKEN       "store-broken"       500 "The store is broken"
    STORE_BUSY         "store-busy"         503 "The store is busy"
    PLUGIN_LOADING     "plugin-loading"     503 "A plugin is still loading"
    PLUGIN_ELSEWHERE   "plugin-elsewhere"   503 "Only another host can do this"
    // Not a 503: many clients repeat those on their own, and without a token a job would be enqueued twice.
    OUTCOME_UNKNOWN    "outcome-unknown"    504 "The store did not respond in time"
    DRAINING           "draining"           503 "The host is draining"
    NODE_SILENT        "node-silent"        503 "The host did not answer"
    NO_MEMORY          "no-memory"          503 "The budget of memory is full"
    TOO_SLOW           "too-slow"           408 "The request was too slow"
    TOO_MANY_CONNECTIONS "too-many-connections" 503 "All connections are busy"
}

/// The longest detail of a problem, in bytes: a job's report, and text around it.
const DETAIL_BYTES_MAX: usize = REPORT_BYTES_MAX as usize + 4096;
/// The longest detail about a malformed request, in bytes. It quotes the request, which can be long.
const MALFORMED_BYTES_MAX: usize = 4096;
/// Bytes kept of the start of a longer detail. More is kept of its end, which says what was expected.
const DETAIL_HEAD_BYTES: usize = 512;

/// Cuts the middle out of a text that is longer than `max` bytes.
fn shortened(text: String, max: usize) -> String {
    const CUT: &str = " ... ";
    if text.len() <= max {
        return text;
    }
    let tail = max - DETAIL_HEAD_BYTES - CUT.len();
    let (head, tail) = (text.floor_char_boundary(DETAIL_HEAD_BYTES), text.ceil_char_boundary(text.len() - tail));
    format!("{}{CUT}{}", &text[..head], &text[tail..])
}

/// The problem of one request.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    /// Further members of the document.
    members: Map<String, Value>,
}

impl Problem {
    /// Returns a problem with this detail: what happened, and what to do.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        Problem { kind, detail: shortened(detail.into(), DETAIL_BYTES_MAX), members: Map::new() }
    }

    /// Returns a problem of the kind [`Kind::BAD_REQUEST`].
    pub(crate) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(Kind::BAD_REQUEST, shortened(detail.into(), MALFORMED_BYTES_MAX))
    }

    /// Returns the problem of a request whose route panicked. The panic itself is in the log.
    pub(crate) fn panicked() -> Problem {
        Problem::new(Kind::INTERNAL, "a bug in Wharf ended this request; the host goes on, and its log names the place")
    }

    /// Returns the kind of the problem.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns what happened, and what to do.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Adds a member to the document, for programs.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds what may help to the detail.
    pub(crate) fn hint(mut self, text: &str) -> Problem {
        self.detail = shortened(format!("{}; {text}", self.detail), DETAIL_BYTES_MAX);
        self
    }

    fn document(&self) -> Value {
        let mut document = json!({
            "type": format!("urn:wharf:problem:{}", self.kind.code),
            "title": self.kind.title,
            "status": self.kind.status,
            "code": self.kind.code,
            "detail": self.detail,
        });
        if let Value::Object(members) = &mut document {
            members.extend(self.members.clone());
        }
        document
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        match error {
            StoreError::Busy(_) => Problem::new(Kind::STORE_BUSY, format!("{error}; nothing was changed, try again")),
            StoreError::Unknown(_) => Problem::new(
                Kind::OUTCOME_UNKNOWN,
                format!(
                    "{error}; send the request again: with the same token a job is enqueued only once, without a token \
                     check GET /v1/jobs first"
                ),
            ),
            StoreError::Refused(_) => Problem::new(
                Kind::STORE_REFUSED,
                format!("{error}; nothing was changed, and the same request will be refused again"),
            ),
            StoreError::Broken(_) => {
                Problem::new(Kind::STORE_BROKEN, format!("{error}; nothing was changed, an operator must repair it"))
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.document().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_as_they_were_released() {
        let table: String = Kind::ALL.iter().map(|kind| format!("{} {}\n", kind.status, kind.code)).collect();
        assert_eq!(table, include_str!("../../tests/snapshots/problem-codes.txt"));
    }

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        let problem = Problem::bad_request(format!("begins {}; expected an end", "ü".repeat(1_000_000)));
        assert!(problem.detail.starts_with("begins ü") && problem.detail.ends_with("ü; expected an end"));
        assert!(problem.detail.len() <= MALFORMED_BYTES_MAX, "{} bytes", problem.detail.len());
        let report = "x".repeat(REPORT_BYTES_MAX as usize);
        assert_eq!(Problem::new(Kind::JOB_FAILED, report.clone()).detail, report);
    }

    #[test]
    fn a_document_has_the_members_of_the_rfc_and_its_own() {
        let problem = Problem::new(Kind::JOB_UNKNOWN, "unknown job 0").with("job", "0");
        assert_eq!(
            problem.document(),
            json!({"type": "urn:wharf:problem:job-unknown", "title": "Unknown job", "status": 404,
                   "code": "job-unknown", "detail": "unknown job 0", "job": "0"})
        );
    }
}
