//! New inputs made of old ones: what is likely to reach further into a reader than chance alone would.

use fastrand::Rng;

/// Bytes that mean something to many formats.
const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\"'\\\n\r\t{}[]()<>.,:;=&%#/*-+0 ";
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "127",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "1e400",
    "0.1",
    "-0.0",
];
const LETTERS: [char; 10] =
    ['ü', 'ß', '\u{202e}', '\u{feff}', '\u{0}', '\u{1b}', '\u{85}', '\u{2028}', '💥', '\u{10ffff}'];

/// One of `pool`, changed a few times; at most `longest` bytes.
pub(crate) fn mutated(rng: &mut Rng, pool: &[Vec<u8>], tokens: &[&str], longest: usize) -> Vec<u8> {
    // More often the shorter ones: of these more can be tried.
    let (one, other) = (one_of_ref(rng, pool), one_of_ref(rng, pool));
    let mut input = if one.len() < other.len() || rng.u8(..) < 32 { one } else { other }.to_vec();
    let mut more = true;
    while more {
        change(rng, &mut input, pool, tokens, longest);
        input.truncate(longest);
        more = rng.u8(..) < 170;
    }
    input
}

fn change(rng: &mut Rng, input: &mut Vec<u8>, pool: &[Vec<u8>], tokens: &[&str], longest: usize) {
    let at = rng.usize(..=input.len());
    match rng.u8(..15) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << rng.u8(..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = one_of(rng, BYTES);
            }
        }
        2 => insert(input, at, &[one_of(rng, BYTES)]),
        3 | 4 => insert(input, at, token(rng, tokens).as_bytes()),
        5 => {
            let range = range(rng, input);
            input.splice(range, token(rng, tokens).bytes());
        }
        6 | 7 => {
            let range = range(rng, input);
            input.drain(range);
        }
        // Twice, or as often as there is room: what recurses, and what is quadratic.
        8 => {
            let part = input[range(rng, input)].to_vec();
            insert(input, at, &part.repeat(times(rng, part.len(), longest)));
        }
        9 => {
            let part = token(rng, tokens);
            insert(input, at, part.repeat(times(rng, part.len(), longest)).as_bytes());
        }
        10 => {
            let other = one_of_ref(rng, pool);
            let from = rng.usize(..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        11 => {
            let other = one_of_ref(rng, pool);
            let part = &other[range(rng, other)];
            insert(input, at, part);
        }
        12 => another_number(rng, input),
        13 => {
            let mut bytes = [0; 4];
            insert(input, at, one_of(rng, &LETTERS).encode_utf8(&mut bytes).as_bytes());
        }
        _ => {
            // A count or a length, as binary formats write it.
            let number = one_of(rng, &[0_u32, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0xffff, 0x7fff_ffff, 0xffff_ffff]);
            let bytes = leb128(number);
            let end = (at + if rng.bool() { bytes.len() } else { 1 }).min(input.len());
            input.splice(at..end, bytes);
        }
    }
}

fn another_number(rng: &mut Rng, input: &mut Vec<u8>) {
    let from = rng.usize(..=input.len());
    let Some(start) = input[from..].iter().position(u8::is_ascii_digit).map(|found| from + found) else { return };
    let end = input[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(input.len(), |found| start + found);
    input.splice(start..end, one_of(rng, &NUMBERS).bytes());
}

fn leb128(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Mostly once or twice, now and then as often as there is room.
fn times(rng: &mut Rng, length: usize, longest: usize) -> usize {
    if rng.u8(..) < 16 { rng.usize(..=longest / length.max(1)) } else { rng.usize(1..=3) }
}

fn insert(input: &mut Vec<u8>, at: usize, part: &[u8]) {
    input.splice(at..at, part.iter().copied());
}

/// Some part, more often a short one.
fn range(rng: &mut Rng, of: &[u8]) -> std::ops::Range<usize> {
    let start = rng.usize(..=of.len());
    let longest = if rng.bool() { 16 } else { of.len() };
    start..(start + rng.usize(..=longest)).min(of.len())
}

fn token<'t>(rng: &mut Rng, tokens: &[&'t str]) -> &'t str {
    if tokens.is_empty() { "" } else { one_of(rng, tokens) }
}

fn one_of<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}

fn one_of_ref<'a>(rng: &mut Rng, pool: &'a [Vec<u8>]) -> &'a [u8] {
    &pool[rng.usize(..pool.len())]
}
