//! The result of a function.

/// A function's return value as text: its result, or the error of its `result`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ok(Vec<u8>),
    Err(Vec<u8>),
}
