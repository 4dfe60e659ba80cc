//! A task that is an exported function: its types, and their schemas.

use std::sync::Arc;

use crate::spec::payload::Schema;
use crate::spec::typed::json_schema::Strictness;
use crate::spec::typed::signature::Signature;

/// An exported function that is a task.
#[derive(Clone, Debug)]
pub struct FunctionTask {
    pub(crate) signature: Signature,
    payload_schema: Arc<str>,
    result_schema: Option<Arc<str>>,
    /// The schema by which hosts without the plugin check payloads; `None` if no host could use it.
    announced: Option<Arc<str>>,
}

impl FunctionTask {
    pub(crate) fn new(signature: Signature) -> FunctionTask {
        let announced = signature.payload_schema(Strictness::Lenient).to_string();
        FunctionTask {
            payload_schema: signature.payload_schema(Strictness::Exact).to_string().into(),
            result_schema: signature.result_schema().map(|schema| schema.to_string().into()),
            announced: Schema::parse(&announced).is_ok().then(|| announced.into()),
            signature,
        }
    }

    /// Returns the JSON Schema of its payloads.
    pub fn payload_schema(&self) -> &str {
        &self.payload_schema
    }

    /// Returns the JSON Schema of its results; `None` if they are bytes and no JSON.
    pub fn result_schema(&self) -> Option<&str> {
        self.result_schema.as_deref()
    }

    /// Returns the JSON Schema for hosts that do not have the plugin. It takes every payload that [`Self::check`] takes, and some
    /// others, which are refused where the job runs.
    pub fn announced_schema(&self) -> Option<&str> {
        self.announced.as_deref()
    }

    /// Checks a payload against the types of the parameters.
    ///
    /// # Errors
    /// The place of the first value that is not of its type, and what is expected there.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), String> {
        self.signature.check(payload).map(|_| ()).map_err(|bad| bad.to_string())
    }
}
