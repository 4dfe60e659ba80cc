//! What people read of an attempt that did not return: what happened, where, what it said last, what to do.

use std::fmt::Write;

use wasmtime::{Trap, WasmBacktrace};
use wharf_core::bounds;

use crate::inspect::line_table::Lines;
use crate::spec::problem::cut;

/// Frames beyond this are mostly those of a runaway recursion. Also as many as wasmtime collects.
const FRAMES_MAX: usize = 20;

/// The parts of a report; all but the first may be missing.
pub(crate) struct Parts<'a> {
    pub(crate) what: String,
    pub(crate) error: Option<&'a wasmtime::Error>,
    /// Of the component that ran.
    pub(crate) lines: &'a Lines,
    pub(crate) stderr: &'a [String],
    pub(crate) advice: String,
}

impl Parts<'_> {
    /// Everything in one text of bounded size. What to do stands last and is never cut.
    pub(crate) fn text(&self) -> String {
        let mut text = self.what.clone();
        let trace = self.error.and_then(|error| error.downcast_ref::<WasmBacktrace>());
        if let Some(trace) = trace.filter(|trace| !trace.frames().is_empty()) {
            text.push_str("\nwhere:");
            frames(&mut text, trace, self.lines);
        }
        if !self.stderr.is_empty() {
            text.push_str("\nlast lines of stderr:");
            for line in self.stderr {
                let _ = write!(text, "\n  {line}");
            }
        }
        let advice = if self.advice.is_empty() { String::new() } else { format!("\nwhat to do: {}", self.advice) };
        let room = (bounds::REPORT_BYTES_MAX as usize).saturating_sub(advice.len() + 4);
        if text.len() > room {
            text.truncate(text.floor_char_boundary(room));
            text.push_str(" ...");
        }
        text + &advice
    }
}

/// A text of a plugin's own, bounded.
pub(crate) fn bounded(mut text: String) -> String {
    cut(&mut text, bounds::REPORT_BYTES_MAX as usize);
    text
}

/// Only looks things up: names and lines were made short and readable when the component was compiled.
fn frames(text: &mut String, trace: &WasmBacktrace, lines: &Lines) {
    let all = trace.frames();
    for (number, frame) in all.iter().take(FRAMES_MAX).enumerate() {
        let _ = match frame.func_name() {
            Some(name) => write!(text, "\n  {number:>2}: {name}"),
            None => write!(text, "\n  {number:>2}: function {}", frame.func_index()),
        };
        if let Some((file, line)) = frame.module_offset().and_then(|offset| lines.place(offset)) {
            let _ = write!(text, " at {file}:{line}");
        }
    }
    if all.len() >= FRAMES_MAX {
        text.push_str("\n      and what called it");
    }
}

/// A trap in plain words.
pub(crate) fn trap_words(trap: Trap) -> String {
    match trap {
        Trap::UnreachableCodeReached => {
            "the plugin gave up: it reached an `unreachable` instruction, as a panic or an abort ends".to_owned()
        }
        Trap::StackOverflow => {
            format!("the call stack is exhausted: {} KiB is the most", bounds::WASM_STACK_BYTES / 1024)
        }
        Trap::MemoryOutOfBounds => "it read or wrote outside its memory".to_owned(),
        Trap::IntegerDivisionByZero => "it divided an integer by zero".to_owned(),
        Trap::IntegerOverflow => "an integer operation overflowed".to_owned(),
        Trap::IndirectCallToNull | Trap::TableOutOfBounds | Trap::BadSignature => {
            "it called a function pointer that points to no such function".to_owned()
        }
        other => other.to_string().trim_start_matches("wasm trap: ").to_owned(),
    }
}
