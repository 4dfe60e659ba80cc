//! What the contract offers to a handler, used as asked.

use std::{thread, time::Duration};

use serde::Deserialize;

use crate::{
    crash,
    exports::wharf::plugin::handler::{Failure, Job},
    wharf::plugin::{
        attempt,
        broadcasts::{self, Answer, Reply},
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

pub(crate) fn breed(job: &Job, count: usize) -> Result<Vec<u8>, Failure> {
    let new = (0..count).map(|_| NewJob::new(&format!("villain/{}", job.task), &job.payload));
    jobs::enqueue(new.collect()).map_err(|e| Failure::Discard(format!("enqueue was refused: {e}")))?;
    Ok(format!(r#"{{"bred":{count}}}"#).into())
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

/// Replies with what came: who, what kind of answer, its text or the bytes of its reply, and the reply itself if it is small.
pub(crate) fn broadcast(topic: &str, payload: &serde_json::Value, timeout_ms: u64) -> Result<Vec<u8>, Failure> {
    let replies = broadcasts::broadcast(topic, payload.to_string().as_bytes(), timeout_ms)
        .map_err(|e| Failure::Discard(format!("the broadcast was refused: {e}")))?;
    let told: Vec<serde_json::Value> = replies.into_iter().map(told).collect();
    Ok(serde_json::json!(told).to_string().into())
}

const SMALL_BYTES: usize = 64 * 1024;

fn told(reply: Reply) -> serde_json::Value {
    let failed = |failure| match failure {
        Failure::Retry(why) => ("failed-retry", why),
        Failure::RetryAfter((why, ms)) => ("failed-retry-after", format!("{why} ({ms} ms)")),
        Failure::Discard(why) => ("failed-discard", why),
    };
    let (kind, text) = match reply.answer {
        Answer::Replied(bytes) => {
            let small = Some(&bytes).filter(|bytes| bytes.len() <= SMALL_BYTES);
            let read = |bytes: &Vec<u8>| {
                let read = serde_json::from_slice::<serde_json::Value>(bytes);
                read.unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
            };
            return serde_json::json!({
                "plugin": reply.plugin, "kind": "replied", "bytes": bytes.len(), "reply": small.map(read),
            });
        }
        Answer::Failed(failure) => failed(failure),
        Answer::Trapped(report) => ("trapped", report),
        Answer::TimedOut(report) => ("timed-out", report),
        Answer::Skipped(why) => ("skipped", why),
        Answer::Other(text) => ("other", text),
    };
    serde_json::json!({ "plugin": reply.plugin, "kind": kind, "text": text })
}
