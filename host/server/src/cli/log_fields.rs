//! The text of log lines: what fields and messages quote is escaped, so that nobody's text forges a line or controls a terminal.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::output::{escape_line, escape_text};

/// Follows each newline of a message: only the first line of an event begins at the margin.
const INDENT: &str = "\n    ";
/// Names of fields are italic and the sign behind them dim, where there are colours.
const NAME_STYLE: [&str; 3] = ["\x1b[3m", "\x1b[0m\x1b[2m", "\x1b[0m"];

/// Formats the fields of events and spans, all of them escaped.
#[derive(Clone, Copy, Debug)]
pub(super) struct EscapedFields;

impl<'w> FormatFields<'w> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut fields_writer = FieldsWriter { writer, is_first: true, result: Ok(()) };
        fields.record(&mut fields_writer);
        fields_writer.result
    }
}

struct FieldsWriter<'w> {
    writer: Writer<'w>,
    is_first: bool,
    result: fmt::Result,
}

impl FieldsWriter<'_> {
    fn write(&mut self, name: &str, value: &dyn Debug) -> fmt::Result {
        let value = format!("{value:?}");
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        if name == "message" {
            return self.writer.write_str(&escape_text(&value).replace('\n', INDENT));
        }
        let [name_style, sign_style, plain] =
            if self.writer.has_ansi_escapes() { NAME_STYLE } else { Default::default() };
        write!(self.writer, "{name_style}{name}{sign_style}={plain}{}", escape_line(&value))
    }
}

impl Visit for FieldsWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let name = field.name();
        // Fields of the bridge from the crate `log` repeat what is in the line already.
        if self.result.is_ok() && !name.starts_with("log.") {
            self.result = self.write(name.trim_start_matches("r#"), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::{info, info_span};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(ansi: bool, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let own = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || own.clone())
            .fmt_fields(EscapedFields)
            .without_time()
            .with_target(false)
            .with_ansi(ansi)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_looks_as_usual() {
        let text = logged(false, || info!(count = 3, name = "a b", shown = %"a b", "jobs {}", "done"));
        assert_eq!(text, " INFO jobs done count=3 name=\"a b\" shown=a b\n");
        let text = logged(true, || info!(count = 3, "done"));
        assert!(text.ends_with("done \x1b[3mcount\x1b[0m\x1b[2m=\x1b[0m3\n"), "{text:?}");
    }

    #[test]
    fn no_text_forges_a_line_or_controls_a_terminal() {
        let evil = "k\r\n2026-11-29T01:00:00Z  INFO forged\0\x1b[2J\x07\u{9b}2J\u{7f}\u{202e}\u{200b}";
        let text = logged(false, || {
            let _span = info_span!("attempt", key = %evil).entered();
            info!(plain = evil, debug = ?evil, display = %evil, "message {evil}");
            info!(message = evil);
        });
        assert!(!text.contains("\n2026") && !text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains(['\u{202e}', '\u{200b}']), "{text:?}");
        let starts: Vec<bool> = text.lines().map(|line| line.starts_with(" INFO attempt{")).collect();
        assert_eq!(starts, [true, false, true, false], "{text}");
        let continued = text.lines().nth(1).unwrap();
        assert!(
            continued.starts_with("    2026") && continued.contains(r"forged\u{0}\u{1b}[2J\u{7}\u{9b}2J\u{7f}"),
            "{text}"
        );
        assert!(text.contains(r"display=k\r\n2026"), "{text}");
    }
}
