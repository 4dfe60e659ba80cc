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
use crate::spec::function_task::{FunctionTask, dynamic_bytes};
use crate::spec::typed::check::{self, CheckMode, Plan};
use crate::spec::typed::json_writer::NoText;

/// The end of a call that did not trap.
pub(crate) enum TypedEnd {
    Answer(Answer),
    /// The payload is not of the function's types: they have changed since the job was enqueued, or another host had only a schema.
    BadPayload(String),
    /// The result is no JSON.
    NoText(String),
}

/// Fuel of wasmtime for one crossing of a function that is called through dynamic values.
const DYNAMIC_FUEL: u64 = 4 * bounds::MIB;
/// Payloads of more bytes are checked on a thread of their own, so that other attempts do not wait.
const CHECKED_HERE_BYTES_MAX: usize = 64 * bounds::KIB as usize;

/// Payloads of more bytes are passed on the threads for attempts that compute for long: their values are written in one go, without a
/// tick in which others could run.
const PASSED_HERE_BYTES_MAX: usize = bounds::MIB as usize;

/// Lets an attempt go on where attempts compute for long.
async fn move_to_background(store: &mut Store<Sandbox>) -> wasmtime::Result<()> {
    let handle = &store.data().handle;
    handle.meter().expect_long();
    handle.set_yielded(true);
    tokio::task::yield_now().await;
    // The attempt may have been ended meanwhile.
    store.data_mut().keep_bytes(0).await
}

/// Checks a payload; `Err` has the reason why it is refused.
async fn check(
    task: &Arc<FunctionTask>,
    payload: &SharedBytes,
    mode: CheckMode,
) -> wasmtime::Result<Result<Plan, String>> {
    if payload.len() <= CHECKED_HERE_BYTES_MAX {
        return Ok(task.counted(payload, mode));
    }
    let (task, payload) = (Arc::clone(task), payload.clone());
    let checked = tokio::task::spawn_blocking(move || task.counted(&payload, mode)).await;
    checked.map_err(|_| wasmtime::Error::msg("the check of the payload panicked; this is a bug of the host"))
}

/// Calls a function. With `is_spelled_as_wit` members of the payload are taken only as WIT writes them.
///
/// # Errors
/// The guest's trap, or the end of the attempt.
pub(crate) async fn call(
    store: &mut Store<Sandbox>,
    instance: &Instance,
    linked: &LinkedFunction,
    (payload, is_spelled_as_wit): (&SharedBytes, bool),
) -> wasmtime::Result<TypedEnd> {
    let notes_lengths = matches!(linked.way, CallWay::Direct { .. });
    // Room for the lengths of all lists, and for the largest string with escapes, before they are there.
    let lists = if notes_lengths { check::lists_max(payload) as u64 * 4 } else { 0 };
    let unescaped = if payload.contains(&b'\\') { payload.len() as u64 } else { 0 };
    let kept = lists + unescaped;
    store.data_mut().keep_bytes(kept).await?;
    let ended = checked_call(store, instance, linked, payload, CheckMode { is_spelled_as_wit, notes_lengths }).await;
    store.data_mut().drop_bytes(kept);
    ended
}

async fn checked_call(
    store: &mut Store<Sandbox>,
    instance: &Instance,
    linked: &LinkedFunction,
    payload: &SharedBytes,
    mode: CheckMode,
) -> wasmtime::Result<TypedEnd> {
    let plan = match check(&linked.task, payload, mode).await? {
        Ok(plan) => plan,
        Err(why) => return Ok(TypedEnd::BadPayload(why)),
    };
    if payload.len() > CHECKED_HERE_BYTES_MAX {
        // The attempt may have been ended meanwhile.
        store.data_mut().keep_bytes(0).await?;
    }
    if payload.len() > PASSED_HERE_BYTES_MAX {
        move_to_background(store).await?;
    }
    let absent = || wasmtime::Error::msg("the plugin does not export the function to call");
    let function = instance.get_func(&mut *store, linked.index).ok_or_else(absent)?;
    let called = match linked.way {
        CallWay::Direct { params, result } => {
            let call = DirectCall { task: Arc::clone(&linked.task), payload: payload.clone(), lengths: plan.lengths };
            call.run(store, function, (params, result)).await
        }
        CallWay::Dynamic => {
            // The result is made of such values, too: they take up to three times the fuel that they cost.
            store.set_hostcall_fuel(DYNAMIC_FUEL as usize);
            let kept = dynamic_bytes(&plan) + 3 * DYNAMIC_FUEL;
            store.data_mut().keep_bytes(kept).await?;
            let signature = &linked.task.signature;
            let called = match &linked.maker {
                None => dynamic::call(store, function, signature, payload).await,
                Some((index, maker)) => {
                    let making = instance.get_func(&mut *store, *index).ok_or_else(absent)?;
                    dynamic::call_method(store, (making, maker), function, signature, payload).await
                }
            };
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
