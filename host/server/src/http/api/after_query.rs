//! The query of a list in the order of its IDs.

use schemars::JsonSchema;
use serde::Deserialize;

/// The query of a list in the order of its IDs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AfterQuery {
    /// Only entries after this one; `next` of a page has it.
    pub(crate) after: Option<String>,
    /// Number of entries on a page; 100 by default.
    pub(crate) limit: Option<u32>,
}
