//! Output without measure. A count that is absent means without end.

use std::{
    io::{self, Write},
    thread,
    time::Duration,
};

use crate::{
    exports::wharf::plugin::handler::Failure,
    time::unix_ns,
    wharf::plugin::{
        attempt,
        jobs::{self, NewJob},
    },
};

pub(crate) fn stdout(lines: Option<u64>, bytes: usize) -> Result<Vec<u8>, Failure> {
    write_lines(&mut io::stdout().lock(), lines, bytes)
}

pub(crate) fn stderr(lines: Option<u64>, bytes: usize) -> Result<Vec<u8>, Failure> {
    write_lines(&mut io::stderr().lock(), lines, bytes)
}

fn write_lines(to: &mut dyn Write, lines: Option<u64>, bytes: usize) -> Result<Vec<u8>, Failure> {
    for line in 0..lines.unwrap_or(u64::MAX) {
        to.write_all(&numbered(line, bytes))
            .map_err(|e| Failure::Discard(format!("line {line}: {e}")))?;
    }
    Ok(format!(r#"{{"lines":{}}}"#, lines.unwrap_or(u64::MAX)).into())
}

/// A line of so many bytes, with its number first: a reader sees what is missing.
fn numbered(line: u64, bytes: usize) -> Vec<u8> {
    let mut text = format!("{line} ").into_bytes();
    text.resize(bytes.max(text.len()), b'x');
    text.push(b'\n');
    text
}

pub(crate) fn chunks(chunks: Option<u64>, bytes: usize) -> Result<Vec<u8>, Failure> {
    for chunk in 0..chunks.unwrap_or(u64::MAX) {
        attempt::emit(&numbered(chunk, bytes))
            .map_err(|e| Failure::Discard(format!("chunk {chunk} was refused: {e}")))?;
    }
    Ok(format!(r#"{{"chunks":{}}}"#, chunks.unwrap_or(u64::MAX)).into())
}

pub(crate) fn progress(times: Option<u64>, bytes: usize) -> Result<Vec<u8>, Failure> {
    let note = "x".repeat(bytes);
    for time in 0..times.unwrap_or(u64::MAX) {
        attempt::progress((time % 100) as f32 / 100.0, &note);
    }
    Ok(format!(r#"{{"times":{}}}"#, times.unwrap_or(u64::MAX)).into())
}

pub(crate) fn long_line(bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut out = io::stdout().lock();
    let written = out
        .write_all("x".repeat(bytes).as_bytes())
        .and_then(|()| out.flush());
    written.map_err(|e| Failure::Discard(format!("stdout: {e}")))?;
    Ok(format!(r#"{{"bytes":{bytes}}}"#).into())
}

pub(crate) fn big_chunk(bytes: usize) -> Result<Vec<u8>, Failure> {
    attempt::emit(&vec![b'x'; bytes]).map_err(|e| Failure::Discard(format!("the chunk was refused: {e}")))?;
    Ok(format!(r#"{{"bytes":{bytes}}}"#).into())
}

/// The text as it is, wherever a guest can say something: both streams, a note, a chunk, the result.
pub(crate) fn say(text: &str) -> Result<Vec<u8>, Failure> {
    let streams = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    streams
        .and_then(|()| io::stderr().write_all(text.as_bytes()))
        .map_err(|e| Failure::Discard(format!("stdout: {e}")))?;
    attempt::progress(0.5, text);
    attempt::emit(text.as_bytes()).map_err(|e| Failure::Discard(format!("the chunk was refused: {e}")))?;
    Ok(text.into())
}

pub(crate) fn huge_note(bytes: usize) -> Result<Vec<u8>, Failure> {
    attempt::progress(0.5, &"x".repeat(bytes));
    Ok(format!(r#"{{"bytes":{bytes}}}"#).into())
}

pub(crate) fn huge_task_name(bytes: usize) -> Result<Vec<u8>, Failure> {
    let ids = jobs::enqueue(vec![NewJob::new(&"x".repeat(bytes), b"{}")]);
    ids.map_err(|e| Failure::Discard(format!("the job was refused: {e}")))?;
    Ok(format!(r#"{{"bytes":{bytes}}}"#).into())
}

/// Chunks with the time in them and a log line before each: what shows whether logs and output hold each other up.
pub(crate) fn emit(chunks: u32, pause_ms: u64, log_bytes: usize, bytes: usize) -> Result<Vec<u8>, Failure> {
    for chunk in 0..chunks {
        if log_bytes > 0 {
            let mut line = numbered(chunk.into(), log_bytes - 1);
            io::stdout()
                .write_all(&line)
                .map_err(|e| Failure::Discard(format!("stdout: {e}")))?;
            line[0] = b'e';
            io::stderr()
                .write_all(&line)
                .map_err(|e| Failure::Discard(format!("stderr: {e}")))?;
        }
        let text = format!(
            r#"{{"chunk":{chunk},"unix-ns":{},"fill":"{}"}}"#,
            unix_ns(),
            "x".repeat(bytes)
        );
        attempt::emit(text.as_bytes())
            .map_err(|e| Failure::Discard(format!("chunk {chunk} was refused: {e}")))?;
        if pause_ms > 0 {
            thread::sleep(Duration::from_millis(pause_ms));
        }
    }
    Ok(format!(r#"{{"chunks":{chunks}}}"#).into())
}

/// Chunk `n` once the file `n` is in this folder: whoever hears one chunk before it allows the next has heard it at once.
pub(crate) fn emit_when_told(dir: &str, chunks: u32) -> Result<Vec<u8>, Failure> {
    for chunk in 0..chunks {
        while !std::path::Path::new(dir).join(chunk.to_string()).exists() {
            thread::sleep(Duration::from_millis(5));
        }
        attempt::emit(format!(r#"{{"chunk":{chunk}}}"#).as_bytes())
            .map_err(|e| Failure::Discard(format!("chunk {chunk} was refused: {e}")))?;
    }
    Ok(format!(r#"{{"chunks":{chunks}}}"#).into())
}
