//! Escapes for text of others: characters that control a terminal, reorder a line or cannot be seen are shown as escapes, so that
//! a text shows what it consists of and forges nothing.

use std::borrow::Cow;
use std::fmt::Write as _;

use wharf_core::text::is_unsafe;

/// Returns true for the two marks that join characters. Between characters beyond ASCII they are a part of words and of emoji.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// Escapes a text that may have lines: newlines and tabs stay.
pub(crate) fn escape_text(text: &str) -> Cow<'_, str> {
    escape(text, &['\n', '\t'], push_rust_escape)
}

/// Escapes a text for one line: newlines and tabs are escaped as well.
pub(crate) fn escape_line(text: &str) -> Cow<'_, str> {
    escape(text, &[], push_rust_escape)
}

/// Escapes JSON by JSON's own escapes, so that it stays the same value. Newlines and tabs between its tokens stay.
pub(crate) fn escape_json(json: &str) -> Cow<'_, str> {
    escape(json, &['\n', '\t'], push_json_escape)
}

/// Escapes bytes that may be text: what is not UTF-8 is shown as `\xNN`.
pub(crate) fn escape_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes) {
        return escape_text(text);
    }
    let mut shown = String::with_capacity(2 * bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&escape_text(chunk.valid()));
        for byte in chunk.invalid() {
            _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown.into()
}

fn escape<'t>(text: &'t str, kept: &[char], push_escape: fn(&mut String, char)) -> Cow<'t, str> {
    let must_escape = |c: char| is_unsafe(c) && !kept.contains(&c);
    if !text.contains(must_escape) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut before = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let joins = |c: Option<&char>| c.is_some_and(|c| !c.is_ascii() && !is_unsafe(*c));
        let is_kept = is_joiner(c) && joins(before.as_ref()) && joins(chars.peek());
        if must_escape(c) && !is_kept {
            push_escape(&mut shown, c);
        } else {
            shown.push(c);
        }
        before = Some(c);
    }
    shown.into()
}

fn push_rust_escape(to: &mut String, c: char) {
    to.extend(c.escape_default());
}

fn push_json_escape(to: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        _ = write!(to, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_shown_as_an_escape() {
        assert_eq!(escape_text("\x1b]0;pwned\x07x\r\0\x7f\u{9b}2J"), r"\u{1b}]0;pwned\u{7}x\r\u{0}\u{7f}\u{9b}2J");
        assert_eq!(escape_text("two\n\tlines"), "two\n\tlines");
        assert_eq!(escape_line("two\n\tlines"), r"two\n\tlines");
        assert!(matches!(escape_line("größe 日本 \\"), Cow::Borrowed(_)));
        for c in (0..=0x10_ffff).filter_map(char::from_u32).filter(|c| c.is_control()) {
            assert!(escape_line(&c.to_string()).is_ascii(), "{c:?}");
        }
    }

    #[test]
    fn what_reorders_a_line_or_is_invisible_is_shown_as_an_escape() {
        let bidi = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}'];
        let invisible = ['\u{ad}', '\u{200b}', '\u{2060}', '\u{feff}', '\u{3164}', '\u{2028}', '\u{e0041}'];
        for c in bidi.into_iter().chain(invisible) {
            assert_eq!(escape_text(&format!("a{c}b")), format!("a{}b", c.escape_default()));
            assert_eq!(escape_text(&format!("ä{c}ß")), format!("ä{}ß", c.escape_default()));
        }
    }

    #[test]
    fn a_joiner_stays_where_scripts_and_emoji_need_it() {
        for whole in ["👩\u{200d}🔬", "می\u{200c}خواهم", "🏳\u{fe0f}\u{200d}🌈"] {
            assert_eq!(escape_text(whole), whole);
        }
        assert_eq!(escape_text("wor\u{200d}ds"), r"wor\u{200d}ds");
        assert_eq!(escape_text("ä\u{200d}\u{202e}"), r"ä\u{200d}\u{202e}");
        assert_eq!(escape_text("ä\u{200d}"), r"ä\u{200d}");
    }

    #[test]
    fn json_stays_the_same_value() {
        let json = "{\"a\u{9b}\": \"\u{7f}\u{202e}é\u{e0041}\\u001b\",\n\t\"b\": 1e400}";
        let shown = escape_json(json);
        assert_eq!(shown, "{\"a\\u009b\": \"\\u007f\\u202eé\\udb40\\udc41\\u001b\",\n\t\"b\": 1e400}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(&text.replace("1e400", "1")).unwrap();
        assert_eq!(value(&shown), value(json));
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_one_by_one() {
        assert_eq!(escape_bytes(b"\xc2ab\x9b2J\x1bc\xff"), r"\xc2ab\x9b2J\u{1b}c\xff");
        assert!(matches!(escape_bytes("ä\n".as_bytes()), Cow::Borrowed("ä\n")));
    }
}
