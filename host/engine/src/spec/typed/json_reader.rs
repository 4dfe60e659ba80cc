//! Reads JSON text token by token. Nothing is kept of it, so that a payload of any size takes no memory besides its own text.

use std::borrow::Cow;

/// Maximum nesting of values that are skipped.
const SKIPPED_DEPTH_MAX: usize = 128;
/// Maximum number of characters of a token that an error quotes.
const QUOTE_CHARS_MAX: usize = 40;

/// A place in a JSON text. A copy of it is a place to come back to.
#[derive(Clone, Copy)]
pub(crate) struct JsonReader<'a> {
    text: &'a str,
    at: usize,
}

/// Why a text is not JSON. The place is a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotJson {
    pub(crate) what: &'static str,
    pub(crate) at: usize,
}

type Read<T> = Result<T, NotJson>;

/// The kind of the next value, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool => "a boolean",
            Kind::Number => "a number",
            Kind::String => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
        }
    }
}

/// A string between its quotes, as it is written.
#[derive(Clone, Copy)]
pub(crate) struct Quoted<'a> {
    raw: &'a str,
    has_escape: bool,
}

impl<'a> Quoted<'a> {
    /// Returns the text. Half of a surrogate pair is no text.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        if self.has_escape { unescaped(self.raw).map(Cow::Owned) } else { Some(Cow::Borrowed(self.raw)) }
    }
}

impl<'a> JsonReader<'a> {
    pub(crate) fn new(text: &'a str) -> JsonReader<'a> {
        JsonReader { text, at: 0 }
    }

    fn error<T>(&self, what: &'static str) -> Read<T> {
        Err(NotJson { what, at: self.at })
    }

    /// Returns the next byte that is no white space.
    fn next_byte(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Returns true, and goes past it, if the next byte is `byte`.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.next_byte() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Returns the kind of the next value.
    pub(crate) fn kind(&mut self) -> Read<Kind> {
        match self.next_byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(_) => self.error("expected a value"),
            None => self.error("the text ends where a value should be"),
        }
    }

    /// Checks that nothing follows.
    pub(crate) fn end(&mut self) -> Read<()> {
        if self.next_byte().is_none() { Ok(()) } else { self.error("something follows the value") }
    }

    fn word(&mut self, word: &str) -> Read<()> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        self.error("expected `null`, `true` or `false`")
    }

    pub(crate) fn null(&mut self) -> Read<()> {
        self.word("null")
    }

    pub(crate) fn bool(&mut self) -> Read<bool> {
        let is_true = self.next_byte() == Some(b't');
        self.word(if is_true { "true" } else { "false" })?;
        Ok(is_true)
    }

    /// Returns a number as it is written.
    pub(crate) fn number(&mut self) -> Read<&'a str> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut at = start + usize::from(bytes.get(start) == Some(&b'-'));
        let whole = digits(at);
        if whole == 0 || (whole > 1 && bytes[at] == b'0') {
            return self.error("expected a number");
        }
        at += whole;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            if fraction == 0 {
                return self.error("a number ends with its point");
            }
            at += 1 + fraction;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(at);
            if exponent == 0 {
                return self.error("a number ends with its `e`");
            }
            at += exponent;
        }
        self.at = at;
        Ok(&self.text[start..at])
    }

    /// Returns a string.
    pub(crate) fn string(&mut self) -> Read<Quoted<'a>> {
        if !self.takes(b'"') {
            return self.error("expected a string");
        }
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut has_escape = false;
        loop {
            let ordinary = bytes[self.at..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            let Some(ordinary) = ordinary else {
                self.at = bytes.len();
                return self.error("a string does not end");
            };
            self.at += ordinary;
            match bytes[self.at] {
                b'"' => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Quoted { raw, has_escape });
                }
                b'\\' => {
                    has_escape = true;
                    self.at += self.escape_bytes()?;
                }
                _ => return self.error("a string has a control character"),
            }
        }
    }

    fn escape_bytes(&self) -> Read<usize> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'u') => match bytes.get(self.at + 2..self.at + 6) {
                Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => Ok(6),
                _ => self.error("`\\u` is not followed by four hexadecimal digits"),
            },
            _ => self.error("unknown escape in a string"),
        }
    }

    /// Goes into an array or an object: returns true if it has a first element or member.
    pub(crate) fn open(&mut self, bracket: u8) -> Read<bool> {
        if !self.takes(bracket) {
            return self.error("expected an array or an object");
        }
        Ok(!self.takes(closing(bracket)))
    }

    /// Goes on behind an element or a member: returns true if another one follows.
    pub(crate) fn next(&mut self, bracket: u8) -> Read<bool> {
        if self.takes(closing(bracket)) {
            return Ok(false);
        }
        if self.takes(b',') { Ok(true) } else { self.error("expected `,` or the end of an array or an object") }
    }

    /// Returns a member's name, and goes to its value.
    pub(crate) fn name(&mut self) -> Read<Quoted<'a>> {
        let name = self.string()?;
        if self.takes(b':') { Ok(name) } else { self.error("expected `:` after a member's name") }
    }

    /// Goes past a value.
    pub(crate) fn skip(&mut self) -> Read<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            let opened = match self.kind()? {
                Kind::Null => self.null().map(|()| None)?,
                Kind::Bool => self.bool().map(|_| None)?,
                Kind::Number => self.number().map(|_| None)?,
                Kind::String => self.string().map(|_| None)?,
                Kind::Array => self.open(b'[')?.then_some(b'['),
                Kind::Object => self.open(b'{')?.then_some(b'{'),
            };
            match opened {
                Some(_) if open.len() == SKIPPED_DEPTH_MAX => return self.error("values nest too deep"),
                Some(bracket) => open.push(bracket),
                // Goes out of all that end here.
                None => loop {
                    let Some(bracket) = open.last().copied() else { return Ok(()) };
                    if self.next(bracket)? {
                        break;
                    }
                    open.pop();
                },
            }
            if open.last() == Some(&b'{') {
                self.name()?;
            }
        }
    }

    /// Returns the beginning of the next value, for an error.
    pub(crate) fn quote(mut self) -> String {
        if self.next_byte().is_none() {
            return "nothing".to_owned();
        }
        let rest = &self.text[self.at..];
        let end = match self.skip() {
            Ok(()) => rest.len() - (self.text.len() - self.at),
            Err(_) => rest.len(),
        };
        let value = &rest[..end];
        match value.char_indices().nth(QUOTE_CHARS_MAX) {
            Some((cut, _)) => format!("{}...", &value[..cut]),
            None => value.to_owned(),
        }
    }
}

fn closing(bracket: u8) -> u8 {
    if bracket == b'[' { b']' } else { b'}' }
}

/// Returns the text of a string whose escapes are well formed; `None` if it has half of a surrogate pair.
fn unescaped(raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(place) = rest.find('\\') {
        text.push_str(&rest[..place]);
        let escape = rest.as_bytes()[place + 1];
        rest = &rest[place + 2..];
        text.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = hex(rest)?;
                rest = &rest[4..];
                if (0xd800..0xdc00).contains(&first) {
                    let second = hex(rest.strip_prefix("\\u")?).filter(|unit| (0xdc00..0xe000).contains(unit))?;
                    rest = &rest[6..];
                    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?
                } else {
                    char::from_u32(first)?
                }
            }
            other => char::from(other),
        });
    }
    text.push_str(rest);
    Some(text)
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> bool {
        let mut reader = JsonReader::new(text);
        reader.skip().and_then(|()| reader.end()).is_ok()
    }

    #[test]
    fn what_is_json_is_read_and_nothing_else() {
        let good = [
            "null",
            " true ",
            "false",
            "0",
            "-0",
            "10.5e-3",
            "1E+5",
            "\"\"",
            "\"\\u00e9\\n\\/\"",
            "[]",
            "[1,[2,{}],\"]\"]",
            "{\"a\":{\"b\":[null]},\"c\":1}",
        ];
        let bad = [
            "",
            "nul",
            "tru",
            "01",
            "1.",
            "1e",
            "-",
            "+1",
            ".5",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\n\"",
            "[",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1,}",
            "1 2",
            "NaN",
            "]",
        ];
        for text in good {
            assert!(whole(text), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
        for text in bad {
            assert!(!whole(text), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
        }
        assert!(!whole(&"[".repeat(SKIPPED_DEPTH_MAX + 2)));
    }

    #[test]
    fn a_string_is_its_text() {
        for json in [r#""plain""#, r#""\u00e9\ud83d\ude00\\\"\/\b\f\n\r\t""#, r#""é\u0041""#] {
            let text = JsonReader::new(json).string().unwrap().text().unwrap().into_owned();
            assert_eq!(text, serde_json::from_str::<String>(json).unwrap());
        }
        for half in [r#""\ud800""#, r#""\ud800x""#, r#""\ud800\u0041""#, r#""\udc00""#] {
            assert!(JsonReader::new(half).string().unwrap().text().is_none(), "{half}");
        }
    }

    #[test]
    fn an_error_quotes_the_beginning_of_a_value() {
        assert_eq!(JsonReader::new(" [1, 2] x").quote(), "[1, 2]");
        assert_eq!(JsonReader::new(" ").quote(), "nothing");
        assert_eq!(JsonReader::new(&format!("\"{}\"", "é".repeat(100))).quote(), format!("\"{}...", "é".repeat(39)));
    }
}
