//! A call of a function with types of its own: the payload is checked, passed on, and the result is its text.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::Instance;
use wharf_core::bounds;
use wharf_core::shared_bytes::SharedBytes;

use crate::attempt::typed::answer::Answer;
use crate::attempt::typed::direct::DirectCall;
use crate::attempt::typed::dynamic;
use crate::compile::linked::{CallWay, LinkedFunction};
use crate::sandbox::store_data::Sandbox;
use crate::spec::typed::json_writer::NoText;

/// The end of a call that did not trap.
pub(crate) enum TypedEnd {
    Answer(Answer),
    /// The payload is not of the function's types: they have changed since the job was enqueued, or another host had only a schema.
    BadPayload(String),
    /// The result is no JSON.
    NoText(String),
}

/// Dynamic values may take so many times the bytes of their payload.
const DYNAMIC_FACTOR_MAX: u64 = 4;
/// Bytes that they may take whatever the payload is.
const DYNAMIC_BYTES_FREE: u64 = 64 * bounds::KIB;

/// Calls a function.
///
/// # Errors
/// The guest's trap, or the end of the attempt.
pub(crate) async fn call(
    store: &mut Store<Sandbox>,
    instance: &Instance,
    linked: &LinkedFunction,
    payload: &SharedBytes,
) -> wasmtime::Result<TypedEnd> {
    let plan = match linked.task.signature.check(payload) {
        Ok(plan) => plan,
        Err(bad) => return Ok(TypedEnd::BadPayload(bad.to_string())),
    };
    let function = instance
        .get_func(&mut *store, linked.index)
        .ok_or_else(|| wasmtime::Error::msg("the plugin does not export the function to call"))?;
    let called = match linked.way {
        CallWay::Direct { params, result } => {
            let kept = plan.lengths.len() as u64 * 4;
            store.data_mut().keep_bytes(kept).await?;
            let call = DirectCall { task: Arc::clone(&linked.task), payload: payload.clone(), lengths: plan.lengths };
            let called = call.run(store, function, (params, result)).await;
            store.data_mut().drop_bytes(kept);
            called
        }
        CallWay::Dynamic => {
            let kept = dynamic::bytes_of(&plan);
            let max = (payload.len() as u64).saturating_mul(DYNAMIC_FACTOR_MAX).max(DYNAMIC_BYTES_FREE);
            if kept > max {
                return Ok(TypedEnd::BadPayload(format!(
                    "its {} values would take {kept} bytes of this host's memory; the limit is {max} for a payload of this size: \
                     pass fewer values, or give the function at most 16 numbers, strings and lists as parameters",
                    plan.values
                )));
            }
            store.data_mut().keep_bytes(kept).await?;
            let called = dynamic::call(store, function, &linked.task.signature, payload).await;
            store.data_mut().drop_bytes(kept);
            called
        }
    };
    match called {
        Ok(answer) => Ok(TypedEnd::Answer(answer)),
        Err(error) => match error.downcast_ref::<NoText>() {
            Some(NoText::NotFinite(_)) => Ok(TypedEnd::NoText(error.to_string())),
            _ => Err(error),
        },
    }
}
