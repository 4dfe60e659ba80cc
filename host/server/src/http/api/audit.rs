//! The audit log: the acts of operators.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::audit;

use super::moment::Moment;
use super::values::ActName;

/// An act: a change that an operator made, or that a host made when it read its settings again.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Act {
    /// ID of the act; IDs sort by time.
    pub(crate) id: String,
    /// When the act happened, by the store's clock.
    pub(crate) at: Moment,
    /// Kind of the act.
    pub(crate) act: ActName,
    /// Name of the operator's token, or `host:NAME` for a host; `null` if the host asks for no token.
    pub(crate) author: Option<String>,
    /// Network address of the client; `null` for a host. Behind a proxy it is the proxy's, unless `proxy-authenticates` is set.
    pub(crate) address: Option<String>,
    /// Target of the act: the ID of a job, a scope such as `group:G key:K`, a filter, or the digest of settings.
    pub(crate) target: String,
    /// Details in words, such as the limit that was set; may be empty.
    pub(crate) detail: String,
    /// Number of things that changed.
    pub(crate) count: u64,
}

/// A page of the audit log.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ActPage {
    /// Acts, newest first. A page may have fewer than `limit`, or none, and not be the last: `next` says so.
    pub(crate) acts: Vec<Act>,
    /// Address of the next page, relative to the address of the request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uri-reference"))]
    pub(crate) next: Option<String>,
}

/// The query of the audit log.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    /// Only acts from then on: a moment such as `2030-01-31T12:00:00Z`, or a length of time before now such as `2h`.
    pub(crate) since: Option<String>,
    /// Only acts of this author.
    pub(crate) author: Option<String>,
    /// True for only the acts of clients without a token; instead of `author`.
    pub(crate) no_token: Option<bool>,
    /// Only acts of this kind.
    pub(crate) act: Option<ActName>,
    /// Only acts before the act with this ID; `next` of a page has it.
    pub(crate) before: Option<String>,
    /// Number of acts on a page; 100 by default.
    pub(crate) limit: Option<u32>,
}

impl From<audit::Act> for Act {
    fn from(act: audit::Act) -> Act {
        let audit::Act { id, author, kind, target, detail, count } = act;
        let (name, address) = (author.name().map(str::to_owned), author.address().map(str::to_owned));
        let (at, act) = (Moment(id.at), ActName::from(kind));
        Act { id: id.to_string(), at, act, author: name, address, target, detail, count }
    }
}
