//! Taking memory and handles.

use std::{hint::black_box, thread, time::Duration};

use crate::{exports::wharf::plugin::handler::Failure, wharf::plugin::jobs::NewJob};

const MIB: usize = 1 << 20;

/// Goes on until the host refuses memory, which Rust answers by ending the program.
pub(crate) fn until_stopped() -> Result<Vec<u8>, Failure> {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![held.len() as u8; MIB]));
    }
}

/// Goes on until the host refuses memory, gives all of it back, and says how much it was.
pub(crate) fn until_refused() -> Result<Vec<u8>, Failure> {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut block = Vec::new();
        if held.try_reserve(1).is_err() || block.try_reserve_exact(MIB).is_err() {
            break;
        }
        block.resize(MIB, 7);
        held.push(black_box(block));
    }
    let mib = held.len();
    drop(held);
    Ok(format!(r#"{{"mib":{mib}}}"#).into())
}

pub(crate) fn hold(mib: usize, ms: u64) -> Result<Vec<u8>, Failure> {
    let held = black_box(vec![7_u8; mib * MIB]);
    thread::sleep(Duration::from_millis(ms));
    Ok(format!(r#"{{"bytes":{}}}"#, black_box(held).len()).into())
}

/// Writes to so much of its stack, and sleeps there.
pub(crate) fn stack(kib: usize, ms: u64) -> Result<Vec<u8>, Failure> {
    fill(kib, ms);
    Ok(b"{}".into())
}

#[inline(never)]
fn fill(kib: usize, ms: u64) {
    let frame = black_box([1_u8; 4096]);
    if kib > 4 {
        fill(kib - 4, ms);
    } else {
        thread::sleep(Duration::from_millis(ms));
    }
    black_box(&frame);
}

/// Makes jobs that it neither enqueues nor drops: each is an entry of the host's resource table.
pub(crate) fn handles(count: Option<usize>) -> Result<Vec<u8>, Failure> {
    let mut held = Vec::new();
    while count.is_none_or(|count| held.len() < count) {
        held.push(NewJob::new("villain/do", b"{}"));
    }
    Ok(format!(r#"{{"handles":{}}}"#, black_box(held).len()).into())
}
