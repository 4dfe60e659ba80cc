//! A path to a value in JSON text, and whether the value there is the one that is looked for.
//!
//! The text is a stranger's and need not be JSON. It is read once from left to right, without recursion and without a copy;
//! whatever is no JSON has no value at any path.

use std::fmt;
use std::str::FromStr;

use crate::ids::ParseIdError;

/// Maximum number of fields in a path: each costs a pass over the value that it is in.
const FIELDS_MAX: usize = 32;

/// A JSON pointer (RFC 6901), such as `/tenant` or `/user/id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    text: String,
    /// With escapes resolved.
    fields: Vec<String>,
}

impl FromStr for JsonPath {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<JsonPath, ParseIdError> {
        let is_escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let Some(fields) = text.strip_prefix('/').filter(|_| is_escaped) else {
            let expected = "expected `/` before the name of each field, such as `/tenant` or `/user/id`";
            return Err(ParseIdError::new("JSON pointer", text, expected));
        };
        let fields: Vec<String> = fields.split('/').map(|field| field.replace("~1", "/").replace("~0", "~")).collect();
        if fields.len() > FIELDS_MAX {
            let reason = format!("expected at most {FIELDS_MAX} fields, got {}", fields.len());
            return Err(ParseIdError::new("JSON pointer", text, reason));
        }
        Ok(JsonPath { text: text.to_owned(), fields })
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonPath {
    /// Returns the names of the fields that lead to the value, from the outermost on.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Returns true if the value at the path is the string `wanted`, or a number, `true`, `false` or `null` that is written
    /// exactly so. Of several members of one name, the first counts.
    pub fn finds(&self, json: &[u8], wanted: &str) -> bool {
        let mut at = Some(skip_space(json));
        for field in &self.fields {
            at = at.and_then(|value| match value.first() {
                Some(b'{') => member(value, field),
                Some(b'[') => element(value, field),
                _ => None,
            });
        }
        at.is_some_and(|value| is_value(value, wanted))
    }
}

fn skip_space(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

/// Returns the text that begins with the value of an object's member.
fn member<'t>(object: &'t [u8], name: &str) -> Option<&'t [u8]> {
    let mut rest = skip_space(&object[1..]);
    loop {
        let (key, after) = string(rest)?;
        let value = skip_space(skip_space(after).strip_prefix(b":")?);
        if is_text(key, name) {
            return Some(value);
        }
        rest = next(skip_value(value)?)?;
    }
}

/// Returns the text that begins with an element of an array.
fn element<'t>(array: &'t [u8], index: &str) -> Option<&'t [u8]> {
    let is_plain = index == "0" || !index.starts_with(['0', '+']);
    let index: usize = index.parse().ok().filter(|_| is_plain)?;
    let mut rest = skip_space(&array[1..]);
    for _ in 0..index {
        rest = next(skip_value(rest)?)?;
    }
    Some(rest).filter(|rest| !rest.starts_with(b"]"))
}

/// Returns what follows the comma behind a value.
fn next(after: &[u8]) -> Option<&[u8]> {
    skip_space(after).strip_prefix(b",").map(skip_space)
}

/// Returns what stands between the quotes of a string, and what follows it.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => return Some((&text[..at], &text[at + 1..])),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// Returns what follows a value.
fn skip_value(text: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut depth) = (text, 0_usize);
    loop {
        rest = match rest.first()? {
            b'"' => string(rest)?.1,
            b'{' | b'[' => {
                depth += 1;
                rest = &rest[1..];
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                &rest[1..]
            }
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth > 0 => {
                rest = &rest[1..];
                continue;
            }
            _ => match word(rest) {
                [] => return None,
                word => &rest[word.len()..],
            },
        };
        if depth == 0 {
            return Some(rest);
        }
    }
}

/// Returns the number or the literal that a text begins with.
fn word(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| b",:]}[{\" \t\r\n".contains(byte)).unwrap_or(text.len());
    &text[..end]
}

fn is_value(text: &[u8], wanted: &str) -> bool {
    match text.first() {
        Some(b'"') => string(text).is_some_and(|(inside, _)| is_text(inside, wanted)),
        Some(b'{' | b'[') | None => false,
        Some(_) => !wanted.is_empty() && word(text) == wanted.as_bytes(),
    }
}

/// Returns true if the inside of a JSON string, with its escapes resolved, is this text.
fn is_text(inside: &[u8], wanted: &str) -> bool {
    let (mut inside, mut wanted) = (inside, wanted.as_bytes());
    if !inside.contains(&b'\\') {
        return inside == wanted;
    }
    while let [first, rest @ ..] = inside {
        if *first != b'\\' {
            let (plain, after) = inside.split_at(inside.iter().take_while(|byte| **byte != b'\\').count());
            let Some(more) = wanted.strip_prefix(plain) else { return false };
            (inside, wanted) = (after, more);
            continue;
        }
        let Some((character, after)) = escaped(rest) else { return false };
        let Some(more) = wanted.strip_prefix(character.encode_utf8(&mut [0; 4]).as_bytes()) else { return false };
        (inside, wanted) = (after, more);
    }
    wanted.is_empty()
}

/// Returns the character that an escape stands for, and what follows it; `text` begins behind the backslash.
fn escaped(text: &[u8]) -> Option<(char, &[u8])> {
    let (kind, rest) = text.split_first()?;
    let plain = match kind {
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'"' | b'\\' | b'/' => char::from(*kind),
        b'u' => {
            let (high, rest) = unit(rest)?;
            if let Some(character) = char::from_u32(high) {
                return Some((character, rest));
            }
            let (low, rest) = unit(rest.strip_prefix(b"\\u")?)?;
            let is_pair = (0xd800..0xdc00).contains(&high) && (0xdc00..0xe000).contains(&low);
            let character =
                is_pair.then(|| 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).and_then(char::from_u32);
            return Some((character?, rest));
        }
        _ => return None,
    };
    Some((plain, rest))
}

fn unit(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((number, &text[4..]))
}
