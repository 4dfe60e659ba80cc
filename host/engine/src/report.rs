//! What people read of an attempt that did not return: what happened, where, what it said last, what to do.

use std::fmt::Write;

use wasmtime::{Trap, WasmBacktrace};
use wharf_core::bounds;

/// Frames beyond this are mostly those of a runaway recursion. Also as many as wasmtime collects.
const FRAMES_MAX: usize = 20;

/// The parts of a report; all but the first may be missing.
pub(crate) struct Parts<'a> {
    pub(crate) what: String,
    pub(crate) error: Option<&'a wasmtime::Error>,
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
            frames(&mut text, trace);
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
    let room = bounds::REPORT_BYTES_MAX as usize - 4;
    if text.len() > room {
        text.truncate(text.floor_char_boundary(room));
        text.push_str(" ...");
    }
    text
}

fn frames(text: &mut String, trace: &WasmBacktrace) {
    let all = trace.frames();
    for (number, frame) in all.iter().enumerate() {
        let _ = write!(text, "\n  {number:>2}: ");
        let symbols = frame.symbols();
        // Of inlined functions the innermost stands first.
        for (depth, symbol) in symbols.iter().enumerate() {
            if depth > 0 {
                text.push_str("\n      inlined into ");
            }
            // The last is the function itself, whose name in the binary says where it belongs.
            let outermost = depth + 1 == symbols.len();
            let name = frame.func_name().filter(|_| outermost).or(symbol.name());
            text.push_str(&name.map_or_else(|| format!("function {}", frame.func_index()), demangled));
            if let Some(file) = symbol.file() {
                let _ = write!(text, " at {file}");
                if let Some(line) = symbol.line() {
                    let _ = write!(text, ":{line}");
                }
            }
        }
        if symbols.is_empty() {
            text.push_str(&frame.func_name().map_or_else(|| format!("function {}", frame.func_index()), demangled));
        }
    }
    if all.len() >= FRAMES_MAX {
        text.push_str("\n      and what called it");
    }
}

/// Without the hash at a Rust name's end.
fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
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
