//! Finds in a guest's stderr the line with which the guest itself explains its end: a panic, an exception, an assertion.

/// Reads stderr line by line and remembers the last error that a language's runtime wrote.
#[derive(Default)]
pub(crate) struct GuestError {
    found: Option<String>,
    expected: Expected,
}

/// Content of the next lines, if they belong to an error that has started.
#[derive(Default)]
enum Expected {
    #[default]
    Nothing,
    /// The message of a Rust panic at this place in the source.
    PanicMessage(String),
    /// The exception at the end of a Python traceback.
    PythonException,
    /// The JavaScript exception that the interpreter's own panic quotes.
    JavaScriptException,
}

/// With these words the runtime of componentize-py panics after it has written the traceback of an uncaught exception.
const PYTHON_RUNTIME_PANIC: &str = "Python function threw an unexpected exception";

impl GuestError {
    /// The last error, in one line; `None` if stderr has none.
    pub(crate) fn last(&self) -> Option<String> {
        match &self.expected {
            Expected::PanicMessage(place) => Some(format!("panicked at {place}")),
            _ => self.found.clone(),
        }
    }

    /// Takes the next line of stderr.
    pub(crate) fn read(&mut self, line: &str) {
        match std::mem::take(&mut self.expected) {
            Expected::Nothing => self.read_start(line),
            Expected::PanicMessage(_) if line.starts_with(PYTHON_RUNTIME_PANIC) && self.found.is_some() => {}
            Expected::PanicMessage(place) => {
                if line.ends_with("Value(Exception(") {
                    self.expected = Expected::JavaScriptException;
                }
                let text = if line.is_empty() { place } else { format!("{place}: {line}") };
                self.found = Some(format!("panicked at {text}"));
            }
            // Frames and the source lines below them are indented.
            Expected::PythonException if line.is_empty() || line.starts_with([' ', '\t']) => {
                self.expected = Expected::PythonException;
            }
            Expected::PythonException => self.found = Some(line.to_owned()),
            Expected::JavaScriptException => self.found = javascript_exception(line).or(self.found.take()),
        }
    }

    fn read_start(&mut self, line: &str) {
        if let Some((_, place)) = line.split_once("panicked at ").filter(|_| line.starts_with("thread '")) {
            match place.strip_suffix(':') {
                Some(place) => self.expected = Expected::PanicMessage(place.to_owned()),
                // Before Rust 1.73 the message was in the same line.
                None => self.found = Some(format!("panicked at {place}")),
            }
        } else if line == "Traceback (most recent call last):" {
            self.expected = Expected::PythonException;
        } else if ["panic: ", "fatal error: ", "Assertion failed: "].iter().any(|start| line.starts_with(start)) {
            // Go, and the libc of C.
            self.found = Some(line.to_owned());
        } else if line.starts_with("invalid variant tag value") {
            // ComponentizeJS, about an exception that is not a failure of the contract.
            let thrown = line.split_once("(received `").and_then(|(_, rest)| rest.split_once("`) specified for"));
            self.found = thrown.map(|(thrown, _)| thrown.to_owned()).or(self.found.take());
        }
    }
}

/// Returns what to do about an error that guests of one language have again and again; nothing for all others.
pub(crate) fn advice(error: &str) -> &'static str {
    if error.starts_with("ModuleNotFoundError: ") {
        "a component has the modules of Python that were imported while it was built: name the package in requirements.txt, and import the module at the top of the plugin or in late_imports.py"
    } else if error.starts_with("panicked at crates/runtime/") && error.ends_with(": expected array") {
        "the handler returned something else than bytes, such as a promise: in JavaScript it cannot be `async`"
    } else {
        ""
    }
}

/// Reads `Exception { message: Some("TEXT"), stack: Some("    at PLACE\n...") })` as `TEXT at PLACE`.
fn javascript_exception(line: &str) -> Option<String> {
    let message = quoted(line.split_once("message: Some(\"")?.1);
    let stack = line.split_once("stack: Some(\"").map(|(_, rest)| quoted(rest)).unwrap_or_default();
    let place = stack.lines().next().map(str::trim).filter(|place| place.starts_with("at "));
    Some(place.map_or_else(|| message.clone(), |place| format!("{message} {place}")))
}

/// Reads a text in Rust's debug notation up to its closing quote, or to its end if it was cut.
fn quoted(rest: &str) -> String {
    let mut text = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => break,
            },
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(stderr: &str) -> Option<String> {
        let mut error = GuestError::default();
        stderr.lines().for_each(|line| error.read(line));
        error.last()
    }

    #[test]
    fn a_rust_panic_is_its_place_and_the_first_line_of_its_message() {
        let text = "about to\n\nthread '<unnamed>' (1) panicked at src/lib.rs:3:5:\nleft != right\n  left: 1\nnote: run with `RUST_BACKTRACE=1`\n";
        assert_eq!(last(text).unwrap(), "panicked at src/lib.rs:3:5: left != right");
        let text = "thread 'main' panicked at src/lib.rs:3:5:\n\nnote: run with";
        assert_eq!(last(text).unwrap(), "panicked at src/lib.rs:3:5");
        assert_eq!(last("thread 'main' panicked at src/lib.rs:3:5:").unwrap(), "panicked at src/lib.rs:3:5");
        let text = "thread 'main' panicked at 'oh no', src/lib.rs:3:5";
        assert_eq!(last(text).unwrap(), "panicked at 'oh no', src/lib.rs:3:5");
        assert_eq!(last("the worker panicked at noon:\nand went home"), None);
    }

    #[test]
    fn what_goes_wrong_again_and_again_has_an_advice() {
        assert!(advice("ModuleNotFoundError: No module named '_strptime'").contains("imported while it was built"));
        assert!(advice("panicked at crates/runtime/src/call.rs:163:38: expected array").contains("cannot be `async`"));
        assert_eq!(advice("panicked at src/lib.rs:3:5: expected array"), "");
    }

    #[test]
    fn a_python_exception_goes_before_the_panic_of_its_runtime() {
        let panic = "\nthread '<unnamed>' (1) panicked at runtime/src/lib.rs:1293:29:\nPython function threw an unexpected exception\nnote: run";
        let traceback = "Traceback (most recent call last):\n  File \"/0/app.py\", line 27, in handle\n    f()\n    ~^^\nRuntimeError: asked to panic\n";
        assert_eq!(last(&format!("{traceback}{panic}")).unwrap(), "RuntimeError: asked to panic");
        let chained = format!(
            "{traceback}\nDuring handling of the above exception, another exception occurred:\n\n{}{panic}",
            traceback.replace("asked", "refused")
        );
        assert_eq!(last(&chained).unwrap(), "RuntimeError: refused to panic");
        assert!(last(panic).unwrap().ends_with("1293:29: Python function threw an unexpected exception"));
        let other = "thread '<unnamed>' (1) panicked at runtime/src/lib.rs:7:1:\nno memory";
        assert_eq!(last(&format!("{traceback}{other}")).unwrap(), "panicked at runtime/src/lib.rs:7:1: no memory");
    }

    #[test]
    fn a_javascript_exception_is_its_message_and_where_it_was_thrown() {
        let start = "thread '<unnamed>' (1) panicked at crates/runtime/src/interpreter.rs:51:31:\nFailed to call 'handle': Value(Exception(\n";
        let thrown = r#"Exception { message: Some("no \"length\" of null"), stack: Some("    at fail (/words.js:68:7)\n    at handle (/words.js:14:26)\n") })"#;
        assert_eq!(last(&format!("{start}{thrown}\n)")).unwrap(), "no \"length\" of null at fail (/words.js:68:7)");
        let cut = r#"Exception { message: Some("a very long"#;
        assert_eq!(last(&format!("{start}{cut}\n)")).unwrap(), "a very long");
        assert!(last(&format!("{start}something else\n)")).unwrap().starts_with("panicked at crates/runtime"));
        let web = "TypeError: x is null\nfail@words.js:97:7\n\ninvalid variant tag value `undefined` (received `TypeError: x is null`) specified for `Failure`\nStack:\n";
        assert_eq!(last(web).unwrap(), "TypeError: x is null");
    }

    #[test]
    fn a_panic_of_go_is_found_however_long_its_stack_is() {
        let stack = "main.handle()\n\twords.go:62 +0x5\n".repeat(100);
        assert_eq!(last(&format!("panic: asked to\n\ngoroutine 1 [running]:\n{stack}")).unwrap(), "panic: asked to");
        assert_eq!(
            last("Assertion failed: n > 0 (words.c: count: 80)").unwrap(),
            "Assertion failed: n > 0 (words.c: count: 80)"
        );
        assert_eq!(last("line 1\nline 2"), None);
    }
}
