//! Finds in the report of a trap the functions in which it happened.

/// Number of functions that count.
const FRAMES_MAX: usize = 3;
/// A backtrace with this line in its report has no top: which of the functions that call one another is last is chance.
const STACK_EXHAUSTED: &str = "the call stack is exhausted";
/// The beginnings of names of functions that end any failing program of their language.
const RUNTIME: [&str; 23] = [
    "core::panicking",
    "std::panicking",
    "core::option",
    "core::result",
    "core::slice",
    "core::str",
    "core::cell",
    "core::ops",
    "std::process",
    "std::sys",
    "std::alloc",
    "alloc::",
    "__rust",
    "rust_",
    "_Unwind",
    "abort",
    "__assert",
    "__wasm",
    "raise",
    "_Exit",
    "exit",
    "runtime.",
    "wasi_",
];

/// Returns the functions that tell one cause of a trap from another, by name: those of the exception where the guest is an
/// interpreter, otherwise those of the backtrace. Returns nothing if there are no names.
pub(super) fn functions(report: &str) -> Vec<String> {
    let exception = exception(report);
    if exception.is_empty() { backtrace(report) } else { exception }
}

/// Returns the lines below a heading of a report. They are indented.
fn below<'r>(report: &'r str, heading: &str) -> impl Iterator<Item = &'r str> + use<'r> {
    let heading = heading.to_owned();
    report.lines().skip_while(move |line| *line != heading).skip(1).take_while(|line| line.starts_with(' '))
}

fn backtrace(report: &str) -> Vec<String> {
    let name = |line: &str| {
        let (number, rest) = line.trim_start().split_once(": ")?;
        number.bytes().all(|c| c.is_ascii_digit()).then_some(())?;
        let name = rest.rsplit_once(" at ").map_or(rest, |(name, _)| name);
        let is_named = name.strip_prefix("function ").is_none_or(|index| index.parse::<u32>().is_err());
        (is_named && !RUNTIME.iter().any(|start| name.trim_start_matches('<').starts_with(start))).then(|| stable(name))
    };
    let mut names: Vec<String> = below(report, "where:").filter_map(name).collect();
    if report.contains(STACK_EXHAUSTED) {
        names.sort_unstable();
    }
    names.dedup();
    names.truncate(FRAMES_MAX);
    names
}

/// Returns a name without the numbers that compilers add.
fn stable(name: &str) -> String {
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Returns the functions of the exception that an interpreter wrote to stderr, the innermost first.
fn exception(report: &str) -> Vec<String> {
    let mut python: Vec<String> =
        below(report, "last lines of stderr:").filter_map(|line| python_frame(line.trim())).collect();
    python.reverse();
    // An interpreter in Rust prints the stack of an exception with its line ends escaped.
    let javascript =
        below(report, "last lines of stderr:").flat_map(|line| line.split("\\n")).filter_map(javascript_frame);
    let mut names = if python.is_empty() { javascript.take(FRAMES_MAX).collect() } else { python };
    names.truncate(FRAMES_MAX);
    names
}

/// Reads `File "PATH/NAME.py", line 27, in FUNCTION`.
fn python_frame(line: &str) -> Option<String> {
    let (path, rest) = line.strip_prefix("File \"")?.split_once("\", line ")?;
    let (number, function) = rest.split_once(", in ")?;
    number.parse::<u32>().ok()?;
    Some(format!("{} {function}", file_name(path)))
}

/// Reads `at FUNCTION (PATH/NAME.js:68:7)` and `FUNCTION@PATH/NAME.js:97:7`.
fn javascript_frame(part: &str) -> Option<String> {
    let part = part.rsplit_once("Some(\"").map_or(part, |(_, stack)| stack).trim();
    let (function, place) = match part.strip_prefix("at ") {
        Some(rest) => rest.split_once(" (").and_then(|(function, place)| Some((function, place.split_once(')')?.0)))?,
        None => part.split_once('@')?,
    };
    let (place, column) = place.rsplit_once(':')?;
    let (path, line) = place.rsplit_once(':')?;
    (line.parse::<u32>().is_ok() && column.parse::<u32>().is_ok() && !function.contains(' ')).then_some(())?;
    Some(format!("{} {function}", file_name(path)))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_of_the_plugin_count_and_those_of_its_language_do_not() {
        let report = "panicked at src/lib.rs:3:5: no\ntrapped: unreachable\nwhere:\n   0: abort at a.c:1\n   1: __rust_start_panic\n\
            \u{20}  2: core::panicking::panic_fmt at core/src/panicking.rs:75\n   3: words::parse at src/lib.rs:3\n   4: words::parse\n\
            \u{20}  5: words::handle::{closure#12} at src/lib.rs:9\n   6: function 17\n   7: words::run\n   8: words::main\n\
            what to do: nothing";
        assert_eq!(functions(report), ["words::parse", "words::handle::{closure#}", "words::run"]);
        assert_eq!(functions("trapped: unreachable\nwhere:\n   0: function 1\n   1: function 2"), [""; 0]);
        assert_eq!(functions("no user 7\n  0: not a backtrace"), [""; 0]);
    }

    #[test]
    fn functions_that_call_one_another_without_end_are_one_cause_whichever_is_last() {
        let report =
            |frames: &str| format!("trapped: the call stack is exhausted; the limit is 512 KiB\nwhere:\n{frames}");
        let (one, other) = (report("  0: a\n  1: b\n  2: a\n"), report("  0: b\n  1: a\n  2: b\n"));
        assert_eq!((functions(&one), functions(&other)), (vec!["a".to_owned(), "b".to_owned()], functions(&one)));
    }

    #[test]
    fn of_an_interpreter_the_functions_of_the_exception_count() {
        let python = "RuntimeError: no\ntrapped: unreachable\nwhere:\n   0: PyEval_EvalFrame\nlast lines of stderr:\n\
            \u{20} Traceback (most recent call last):\n    File \"/0/app.py\", line 27, in handle\n      f()\n\
            \u{20}   File \"/0/lib/orders.py\", line 9, in parse\n  RuntimeError: no";
        assert_eq!(functions(python), ["orders.py parse", "app.py handle"]);
        let javascript = "no at fail (/words.js:68:7)\ntrapped: unreachable\nlast lines of stderr:\n  Failed to call 'handle'\n  \
            Exception { message: Some(\"no\"), stack: Some(\"    at fail (/words.js:68:7)\\n    at handle (/words.js:14:26)\\n\") })";
        assert_eq!(functions(javascript), ["words.js fail", "words.js handle"]);
        let web = "TypeError: x\ntrapped: y\nlast lines of stderr:\n  TypeError: x is null\n  fail@words.js:97:7\n  ann@example.org";
        assert_eq!(functions(web), ["words.js fail"]);
    }
}
