//! Ends that no handler should come to. The functions are nested and named so that a test can look for them in a backtrace.

use std::hint::black_box;

use crate::{exports::wharf::plugin::handler::Failure, wharf::plugin::attempt};

pub(crate) fn trap() -> ! {
    first_step()
}

#[inline(never)]
fn first_step() -> ! {
    black_box(());
    second_step()
}

#[inline(never)]
fn second_step() -> ! {
    black_box(());
    core::arch::wasm32::unreachable()
}

pub(crate) fn panic_after_output(chunks: u32, text: &str) -> Result<Vec<u8>, Failure> {
    for chunk in 0..chunks {
        println!("line {chunk} before the panic");
        attempt::emit(format!("chunk {chunk}\n").as_bytes()).map_err(Failure::Discard)?;
    }
    eprintln!("about to panic");
    panic!("{text}");
}

pub(crate) fn overflow_stack() -> Result<Vec<u8>, Failure> {
    Ok(dig(1).to_string().into())
}

/// Two operations follow the call, so that the compiler cannot make a loop of it.
#[inline(never)]
fn dig(depth: u64) -> u64 {
    if black_box(depth) == u64::MAX {
        0
    } else {
        dig(depth + 1).wrapping_mul(3) ^ black_box(depth)
    }
}
