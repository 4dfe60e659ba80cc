//! A task that is an exported function: its types, and their schemas.

use std::sync::{Arc, OnceLock};

use wharf_core::bounds;

use crate::spec::payload::Schema;
use crate::spec::typed::check::{CheckMode, Plan};
use crate::spec::typed::json_schema::Strictness;
use crate::spec::typed::signature::Signature;

/// Most bytes that a value takes as one of wasmtime's own: 40, three times while a list of them grows.
const DYNAMIC_VALUE_BYTES: u64 = 120;
/// Such values may take so many times the bytes of their payload,
const DYNAMIC_FACTOR_MAX: u64 = 4;
/// and so many bytes whatever the payload is.
const DYNAMIC_BYTES_FREE: u64 = bounds::MIB;

/// An exported function that is a task.
#[derive(Clone, Debug)]
pub struct FunctionTask {
    pub(crate) signature: Signature,
    /// Its values are passed as values of wasmtime's own.
    is_dynamic: bool,
    /// The schemas by which hosts without the plugin check payloads: with all spellings of members, and with WIT's only. Each is
    /// made when it is first asked for; `None` if no host could use it.
    announced: [OnceLock<Option<Arc<str>>>; 2],
}

impl FunctionTask {
    pub(crate) fn new(signature: Signature, is_dynamic: bool) -> FunctionTask {
        FunctionTask { signature, is_dynamic, announced: Default::default() }
    }

    /// Returns the JSON Schema of its payloads. It is written anew each time, since it may be long.
    pub fn payload_schema(&self) -> String {
        self.signature.payload_schema(Strictness::Exact).to_string()
    }

    /// Returns the JSON Schema of its results; `None` if they are bytes and no JSON.
    pub fn result_schema(&self) -> Option<String> {
        self.signature.result_schema().map(|schema| schema.to_string())
    }

    /// Returns the JSON Schema for hosts that do not have the plugin; `None` if it is too large for them. It takes every JSON that
    /// the check of the types takes, and some other, which is refused where the job runs. With `is_spelled_as_wit` members are
    /// taken only as WIT writes them.
    pub fn announced_schema(&self, is_spelled_as_wit: bool) -> Option<&str> {
        let (place, strictness) =
            if is_spelled_as_wit { (1, Strictness::LenientAsWit) } else { (0, Strictness::Lenient) };
        let announced = self.announced[place].get_or_init(|| {
            let text = self.signature.payload_schema(strictness).to_string();
            let is_usable = text.len() <= bounds::PUBLISHED_SCHEMA_BYTES_MAX && Schema::parse(&text).is_ok();
            is_usable.then(|| text.into())
        });
        announced.as_deref()
    }

    /// Checks a payload against the types of the parameters. Returns how many members are absent, each of which took time.
    ///
    /// # Errors
    /// The place of the first value that is not of its type, and what is expected there; or that the payload can never be passed.
    pub(crate) fn check(&self, payload: &[u8], is_spelled_as_wit: bool) -> Result<u64, String> {
        self.plan(payload, is_spelled_as_wit).map(|plan| plan.absent)
    }

    /// Checks a payload as [`Self::check`] does. Returns what is needed to pass it on.
    pub(crate) fn plan(&self, payload: &[u8], is_spelled_as_wit: bool) -> Result<Plan, String> {
        self.counted(payload, CheckMode { is_spelled_as_wit, notes_lengths: false })
    }

    /// Checks a payload as [`Self::check`] does, in this mode.
    pub(crate) fn counted(&self, payload: &[u8], mode: CheckMode) -> Result<Plan, String> {
        let plan = self.signature.check(payload, mode).map_err(|bad| bad.to_string())?;
        let (bytes, max) = (dynamic_bytes(&plan), dynamic_bytes_max(payload));
        if self.is_dynamic && bytes > max {
            return Err(format!(
                "its {} values would take {bytes} bytes of this host's memory; the limit is {max} for a payload of this size: \
                 pass fewer values, or export a function that is not `async` and takes at most 16 numbers, strings and lists",
                plan.values
            ));
        }
        Ok(plan)
    }

    /// Returns true if a payload may have a value at a place, a JSON pointer.
    pub(crate) fn may_have(&self, pointer: &str) -> bool {
        let segments: Vec<String> =
            pointer.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~")).collect();
        self.signature.may_have(&segments)
    }

    /// Returns how many checks a payload may take at most, counted as those of a schema.
    pub(crate) fn checks(&self, payload: &[u8]) -> u64 {
        // An object has two bytes and a comma; to note that a member is absent takes a fraction of a check.
        (payload.len() as u64 / 32).saturating_mul(self.signature.table.absent_max())
    }
}

/// Returns how many bytes the values of wasmtime's own take that a payload is passed as.
pub(crate) fn dynamic_bytes(plan: &Plan) -> u64 {
    plan.values.saturating_mul(DYNAMIC_VALUE_BYTES).saturating_add(plan.text_bytes)
}

fn dynamic_bytes_max(payload: &[u8]) -> u64 {
    (payload.len() as u64).saturating_mul(DYNAMIC_FACTOR_MAX).max(DYNAMIC_BYTES_FREE)
}
