//! Taking time: with the processor, without it, with and without an ear for the host.

use std::{
    fs::OpenOptions,
    hint::black_box,
    io::Write,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    exports::wharf::plugin::handler::{Failure, Job},
    wharf::plugin::attempt,
};

pub(crate) fn spin_until_cancelled() -> Result<Vec<u8>, Failure> {
    while !attempt::cancelled() {
        burn(1000);
    }
    Err(Failure::Discard("ended because it was cancelled".into()))
}

pub(crate) fn spin_for_ever() -> ! {
    loop {
        burn(u64::MAX);
    }
}

#[inline(never)]
fn burn(turns: u64) {
    for turn in 0..turns {
        black_box(turn);
    }
}

/// No emit, no progress, no question whether it was cancelled.
pub(crate) fn sleep(ms: u64) -> Result<Vec<u8>, Failure> {
    thread::sleep(Duration::from_millis(ms));
    Ok(format!(r#"{{"slept-ms":{ms}}}"#).into())
}

pub(crate) fn spin(ms: u64) -> Result<Vec<u8>, Failure> {
    let end = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < end {
        burn(10_000);
    }
    Ok(format!(r#"{{"spun-ms":{ms}}}"#).into())
}

pub(crate) fn wait_for_cancel(ms: u64) -> Result<Vec<u8>, Failure> {
    let end = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < end {
        if attempt::cancelled() {
            return Err(Failure::Discard("ended because it was cancelled".into()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(br#""nobody cancelled""#.to_vec())
}

/// Writes when it starts and when it ends, so that a test can see which attempts overlapped, also after the host was killed:
/// `start <unix-ns> <key> <job id> <attempt>`, one write for each line.
pub(crate) fn span(
    job: &Job,
    log: Option<&str>,
    key: Option<&str>,
    ms: u64,
    spin_it: bool,
) -> Result<Vec<u8>, Failure> {
    let note = |what: &str| -> Result<(), Failure> {
        let Some(path) = log else { return Ok(()) };
        let line = format!(
            "{what} {} {} {} {}\n",
            unix_ns(),
            key.unwrap_or("-"),
            job.id,
            job.attempt
        );
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|e| {
                Failure::Discard(format!(
                    "{path} cannot be written: {e}; grant its directory with dirs, writable"
                ))
            })
    };
    note("start")?;
    if spin_it {
        spin(ms)?
    } else {
        sleep(ms)?
    };
    note("end")?;
    Ok(format!(r#"{{"attempt":{}}}"#, job.attempt).into())
}

pub(crate) fn now() -> Result<Vec<u8>, Failure> {
    Ok(format!(r#"{{"unix-ns":{}}}"#, unix_ns()).into())
}

pub(crate) fn unix_ns() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos())
}
