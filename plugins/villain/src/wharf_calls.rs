//! What the contract offers to a handler, used as asked.

use std::{thread, time::Duration};

use serde::Deserialize;

use crate::{
    crash,
    exports::wharf::plugin::handler::Failure,
    wharf::plugin::{
        attempt,
        jobs::{self, NewJob},
    },
};

/// A job to enqueue, as JSON says it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Child {
    task: String,
    #[serde(default)]
    payload: serde_json::Value,
    key: Option<String>,
    delay_ms: Option<u64>,
    priority: Option<i32>,
    token: Option<String>,
}

/// How the attempt goes on once its children are enqueued.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Then {
    #[default]
    Return,
    Trap,
    Retry,
    Discard,
    /// Sleeps for a minute: time enough to kill the host.
    Sleep,
}

pub(crate) fn enqueue(children: Vec<Child>, then: Then) -> Result<Vec<u8>, Failure> {
    let new = children.into_iter().map(|child| {
        let job = NewJob::new(&child.task, child.payload.to_string().as_bytes());
        child.key.iter().for_each(|key| job.key(key));
        child.delay_ms.iter().for_each(|&delay| job.delay_ms(delay));
        child.priority.iter().for_each(|&priority| job.priority(priority));
        child.token.iter().for_each(|token| job.token(token));
        job
    });
    let ids =
        jobs::enqueue(new.collect()).map_err(|e| Failure::Discard(format!("enqueue was refused: {e}")))?;
    match then {
        Then::Return => {}
        Then::Trap => crash::trap(),
        Then::Retry => return Err(Failure::Retry("as asked, after enqueueing".into())),
        Then::Discard => return Err(Failure::Discard("as asked, after enqueueing".into())),
        Then::Sleep => thread::sleep(Duration::from_secs(60)),
    }
    Ok(serde_json::json!(ids).to_string().into())
}

pub(crate) fn progress(fraction: f32, note: &str, ms: u64) -> Result<Vec<u8>, Failure> {
    attempt::progress(fraction, note);
    thread::sleep(Duration::from_millis(ms));
    Ok(b"null".to_vec())
}

pub(crate) fn remaining() -> Result<Vec<u8>, Failure> {
    Ok(format!(r#"{{"remaining-ms":{}}}"#, attempt::remaining_ms()).into())
}
