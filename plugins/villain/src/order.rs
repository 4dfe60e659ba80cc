//! What can be asked for, and who does it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    crash,
    exports::wharf::plugin::handler::{Failure, Job},
    flood, hoard, outside, time, wharf_calls,
};

/// The payload: `{"do": "flood-stdout", "lines": 1000}`. Names and defaults are in README.md.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub(crate) enum Order {
    // How an attempt ends.
    Echo {
        #[serde(default)]
        payload: serde_json::Value,
    },
    Job,
    FailRetry {
        #[serde(default = "reason")]
        text: String,
    },
    FailRetryAfter {
        ms: u64,
        #[serde(default = "reason")]
        text: String,
    },
    FailDiscard {
        #[serde(default = "reason")]
        text: String,
    },
    FailUntil {
        attempt: u32,
    },
    BigFailure {
        bytes: usize,
    },

    // Crashes.
    Trap,
    Panic {
        #[serde(default = "reason")]
        text: String,
    },
    PanicAfterOutput {
        #[serde(default = "three")]
        chunks: u32,
        #[serde(default = "reason")]
        text: String,
    },
    StackOverflow,
    Exit {
        #[serde(default)]
        code: i32,
    },

    // Time.
    Loop,
    LoopIgnoringCancel,
    Stall {
        #[serde(default = "minute")]
        ms: u64,
    },
    Sleep {
        ms: u64,
    },
    Spin {
        ms: u64,
    },
    WaitForCancel {
        #[serde(default = "minute")]
        ms: u64,
    },
    Span {
        log: Option<String>,
        key: Option<String>,
        #[serde(default)]
        ms: u64,
        #[serde(default)]
        spin: bool,
    },
    Time,

    // Memory and handles.
    Hoard,
    HoardPolitely,
    HoldMib {
        mib: usize,
        #[serde(default)]
        ms: u64,
    },
    /// Writes to so much of the stack that is there from the start, and sleeps.
    FillStack {
        kib: usize,
        ms: u64,
    },
    FillHandles {
        count: Option<usize>,
    },

    // Floods.
    FloodStdout {
        lines: Option<u64>,
        #[serde(default = "line_bytes")]
        bytes: usize,
    },
    FloodStderr {
        lines: Option<u64>,
        #[serde(default = "line_bytes")]
        bytes: usize,
    },
    FloodChunks {
        chunks: Option<u64>,
        #[serde(default = "line_bytes")]
        bytes: usize,
    },
    FloodProgress {
        times: Option<u64>,
        #[serde(default = "line_bytes")]
        bytes: usize,
    },
    LongLine {
        bytes: usize,
    },
    BigOutput {
        bytes: usize,
    },
    BigChunk {
        bytes: usize,
    },
    Say {
        text: String,
    },
    HugeNote {
        bytes: usize,
    },
    HugeTaskName {
        bytes: usize,
    },
    Emit {
        #[serde(default = "three")]
        chunks: u32,
        #[serde(default)]
        pause_ms: u64,
        #[serde(default)]
        log_bytes: usize,
        #[serde(default)]
        bytes: usize,
    },
    EmitWhenTold {
        dir: String,
        #[serde(default = "three")]
        chunks: u32,
    },

    // What a plugin may ask of the host.
    Progress {
        fraction: f32,
        #[serde(default)]
        note: String,
        #[serde(default)]
        ms: u64,
    },
    Remaining,
    Enqueue {
        children: Vec<wharf_calls::Child>,
        #[serde(default)]
        then: wharf_calls::Then,
    },
    /// Enqueues itself, so many times over.
    Breed {
        count: usize,
    },

    Broadcast {
        topic: String,
        #[serde(default)]
        payload: serde_json::Value,
        #[serde(default = "minute")]
        timeout_ms: u64,
    },

    // The world outside.
    Env,
    /// What the environment says: each of several villains may have another one.
    FromEnv {
        #[serde(default = "order")]
        name: String,
    },
    Args,
    ReadFile {
        path: String,
    },
    WriteFile {
        path: String,
        #[serde(default)]
        text: String,
    },
    ResizeFile {
        path: String,
        bytes: u64,
    },
    ListDir {
        path: String,
    },
    Random {
        #[serde(default = "sixteen")]
        bytes: u64,
    },
    Stdin,
    HttpGet {
        url: String,
        #[serde(default = "one")]
        times: u32,
    },
    /// A request with headers and a body; `{NAME}` is the variable NAME, and what follows `Basic ` is encoded.
    HttpSend {
        url: String,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        #[serde(default)]
        body: String,
    },
}

fn reason() -> String {
    "as asked".into()
}
fn one() -> u32 {
    1
}
fn three() -> u32 {
    3
}
fn order() -> String {
    "ORDER".into()
}
fn sixteen() -> u64 {
    16
}
fn minute() -> u64 {
    60_000
}
fn line_bytes() -> usize {
    80
}

pub(crate) fn read(payload: &[u8]) -> Result<Order, Failure> {
    serde_json::from_slice(payload).map_err(|e| {
        Failure::Discard(format!(
            "the payload is no order: {e}; plugins/villain/README.md has them all"
        ))
    })
}

pub(crate) fn obey(order: Order, job: &Job) -> Result<Vec<u8>, Failure> {
    match order {
        Order::Echo { payload } => Ok(payload.to_string().into()),
        Order::Job => Ok(serde_json::json!({
            "id": job.id, "task": job.task, "key": job.key, "attempt": job.attempt, "payload-bytes": job.payload.len(),
        }).to_string().into()),
        Order::FailRetry { text } => Err(Failure::Retry(text)),
        Order::FailRetryAfter { ms, text } => Err(Failure::RetryAfter((text, ms))),
        Order::FailDiscard { text } => Err(Failure::Discard(text)),
        Order::FailUntil { attempt } if job.attempt < attempt => Err(Failure::Retry(format!("attempt {} of {attempt}", job.attempt))),
        Order::FailUntil { .. } => Ok(format!(r#"{{"attempt":{}}}"#, job.attempt).into()),
        Order::BigFailure { bytes } => Err(Failure::Retry("x".repeat(bytes))),

        Order::Trap => crash::trap(),
        Order::Panic { text } => panic!("{text}"),
        Order::PanicAfterOutput { chunks, text } => crash::panic_after_output(chunks, &text),
        Order::StackOverflow => crash::overflow_stack(),
        Order::Exit { code } => std::process::exit(code),

        Order::Loop => time::spin_until_cancelled(),
        Order::LoopIgnoringCancel => time::spin_for_ever(),
        Order::Stall { ms } | Order::Sleep { ms } => time::sleep(ms),
        Order::Spin { ms } => time::spin(ms),
        Order::WaitForCancel { ms } => time::wait_for_cancel(ms),
        Order::Span { log, key, ms, spin } => time::span(job, log.as_deref(), key.as_deref().or(job.key.as_deref()), ms, spin),
        Order::Time => time::now(),

        Order::Hoard => hoard::until_stopped(),
        Order::HoardPolitely => hoard::until_refused(),
        Order::HoldMib { mib, ms } => hoard::hold(mib, ms),
        Order::FillStack { kib, ms } => hoard::stack(kib, ms),
        Order::FillHandles { count } => hoard::handles(count),

        Order::FloodStdout { lines, bytes } => flood::stdout(lines, bytes),
        Order::FloodStderr { lines, bytes } => flood::stderr(lines, bytes),
        Order::FloodChunks { chunks, bytes } => flood::chunks(chunks, bytes),
        Order::FloodProgress { times, bytes } => flood::progress(times, bytes),
        Order::LongLine { bytes } => flood::long_line(bytes),
        Order::BigOutput { bytes } => Ok(vec![b'x'; bytes]),
        Order::BigChunk { bytes } => flood::big_chunk(bytes),
        Order::Say { text } => flood::say(&text),
        Order::HugeNote { bytes } => flood::huge_note(bytes),
        Order::HugeTaskName { bytes } => flood::huge_task_name(bytes),
        Order::Emit { chunks, pause_ms, log_bytes, bytes } => flood::emit(chunks, pause_ms, log_bytes, bytes),

        Order::EmitWhenTold { dir, chunks } => flood::emit_when_told(&dir, chunks),

        Order::Progress { fraction, note, ms } => wharf_calls::progress(fraction, &note, ms),
        Order::Remaining => wharf_calls::remaining(),
        Order::Enqueue { children, then } => wharf_calls::enqueue(children, then),
        Order::Breed { count } => wharf_calls::breed(job, count),

        Order::Broadcast { topic, payload, timeout_ms } => wharf_calls::broadcast(&topic, &payload, timeout_ms),

        Order::Env => outside::env(),
        Order::FromEnv { name } => obey(read(outside::env_of(&name)?.as_bytes())?, job),
        Order::Args => outside::args(),
        Order::ReadFile { path } => outside::read_file(&path),
        Order::WriteFile { path, text } => outside::write_file(&path, &text),
        Order::ResizeFile { path, bytes } => outside::resize_file(&path, bytes),
        Order::ListDir { path } => outside::list_dir(&path),
        Order::Random { bytes } => outside::random(bytes),
        Order::Stdin => outside::stdin(),
        Order::HttpGet { url, times } => outside::http_get(&url, times),
        Order::HttpSend { url, headers, body } => outside::http_send(&url, &headers, &body),
    }
}
