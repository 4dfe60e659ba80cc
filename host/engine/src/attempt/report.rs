//! Writes the report of an attempt that did not return: the guest's own error, what happened, where, the last lines of
//! stderr, and what to do.

use std::fmt::Write;

use wasmtime::{Trap, WasmBacktrace};
use wharf_core::bounds;

use crate::inspect::line_table::LineTable;
use crate::spec::problem::cut;

/// Maximum number of frames in a report, which is also how many wasmtime collects. Frames beyond it are mostly those of a
/// runaway recursion.
const FRAMES_MAX: usize = 20;

/// The parts of a report; all but `headline` may be missing.
pub(crate) struct Report<'a> {
    /// The guest's own words, which come first: its panic or its exception.
    pub(crate) guest_error: Option<String>,
    /// The host's account of the end, in one line.
    pub(crate) headline: String,
    pub(crate) error: Option<&'a wasmtime::Error>,
    /// The line table of the component that ran.
    pub(crate) lines: &'a LineTable,
    pub(crate) stderr: &'a [String],
    pub(crate) advice: String,
}

impl Report<'_> {
    /// Returns the whole report, within [`bounds::REPORT_BYTES_MAX`]. The advice is last and is never cut.
    pub(crate) fn text(&self) -> String {
        let mut text = match &self.guest_error {
            Some(error) => format!("{error}\n{}", self.headline),
            None => self.headline.clone(),
        };
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
        let bytes_max = (bounds::REPORT_BYTES_MAX as usize).saturating_sub(advice.len() + 4);
        if text.len() > bytes_max {
            text.truncate(text.floor_char_boundary(bytes_max));
            text.push_str(" ...");
        }
        text + &advice
    }
}

/// Cuts a text of a plugin's own to [`bounds::REPORT_BYTES_MAX`].
pub(crate) fn shortened(mut text: String) -> String {
    cut(&mut text, bounds::REPORT_BYTES_MAX as usize);
    text
}

/// Appends the frames of a backtrace. Only looks names and lines up: they were made short and readable when the component
/// was compiled.
fn frames(text: &mut String, trace: &WasmBacktrace, lines: &LineTable) {
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
        text.push_str("\n      and their callers");
    }
}

/// Describes a trap in plain words.
pub(crate) fn trap_text(trap: Trap) -> String {
    match trap {
        Trap::UnreachableCodeReached => {
            "the guest reached an `unreachable` instruction, as a panic or an abort does".to_owned()
        }
        Trap::StackOverflow => {
            format!("the call stack is exhausted; the limit is {} KiB", bounds::WASM_STACK_BYTES / 1024)
        }
        Trap::MemoryOutOfBounds => "the guest read or wrote outside its memory".to_owned(),
        Trap::IntegerDivisionByZero => "the guest divided an integer by zero".to_owned(),
        Trap::IntegerOverflow => "an integer operation overflowed".to_owned(),
        Trap::IndirectCallToNull | Trap::TableOutOfBounds | Trap::BadSignature => {
            "the guest called a function pointer that does not point to a function of that type".to_owned()
        }
        other => other.to_string().trim_start_matches("wasm trap: ").to_owned(),
    }
}
