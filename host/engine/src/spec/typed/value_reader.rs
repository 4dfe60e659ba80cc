//! Reads the parts of a value from its JSON: members, names, tags and numbers. What a check of a payload and the passing on of its values
//! have in common.

use std::borrow::Cow;
use std::fmt;

use crate::spec::toml_diagnostics::nearest;
use crate::spec::typed::integer;
use crate::spec::typed::json_reader::{JsonReader, Kind, NotJson, Quoted};
use crate::spec::typed::names;
use crate::spec::typed::types::{Case, Field, Int};

/// A value that is not of its type, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadValue {
    /// From the value outward.
    path: Vec<String>,
    what: String,
}

pub(crate) type Checked<T> = Result<T, Box<BadValue>>;

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return write!(f, "at the top level: {}", self.what);
        }
        let path: String = self.path.iter().rev().map(|name| format!("/{name}")).collect();
        write!(f, "at `{path}`: {}", self.what)
    }
}

impl BadValue {
    pub(crate) fn new(what: impl Into<String>) -> Box<BadValue> {
        Box::new(BadValue { path: Vec::new(), what: what.into() })
    }

    pub(crate) fn within(mut self: Box<Self>, name: impl ToString) -> Box<BadValue> {
        self.path.push(name.to_string());
        self
    }
}

impl From<NotJson> for Box<BadValue> {
    fn from(not: NotJson) -> Box<BadValue> {
        BadValue::new(format!("not JSON: {} (at byte {})", not.what, not.at))
    }
}

/// The members of an object, and the order of their names; none for parameters, which are read once.
pub(crate) type Members<'f> = (&'f [Field], &'f [u32]);

/// Which members of an object were seen.
#[derive(Default)]
pub(crate) struct Seen {
    first: u64,
    rest: Vec<bool>,
}

impl Seen {
    /// Notes a member; returns true if it was seen before.
    pub(crate) fn note(&mut self, place: usize) -> bool {
        if place < 64 {
            let before = self.first >> place & 1 == 1;
            self.first |= 1 << place;
            return before;
        }
        if self.rest.len() <= place - 64 {
            self.rest.resize(place - 63, false);
        }
        std::mem::replace(&mut self.rest[place - 64], true)
    }

    pub(crate) fn has(&self, place: usize) -> bool {
        if place < 64 { self.first >> place & 1 == 1 } else { self.rest.get(place - 64).copied().unwrap_or(false) }
    }
}

/// Returns the place of the member that is meant: as WIT writes it, or with `_` for `-`. `expected` is where it most likely is.
pub(crate) fn member((fields, sorted): Members<'_>, name: &str, expected: usize) -> Option<usize> {
    // All of them or none: other spellings would be unknown to a schema.
    let spelled = |byte: u8| if byte == b'-' { b'_' } else { byte };
    let is_it = |wit: &str| wit == name || (wit.len() == name.len() && wit.bytes().map(spelled).eq(name.bytes()));
    if fields.get(expected).is_some_and(|field| is_it(&field.name)) {
        return Some(expected);
    }
    names::find(sorted, fields.len(), |place| fields[place].name.as_str(), is_it, name)
}

/// Returns the place of a case.
pub(crate) fn case(cases: &[Case], sorted: &[u32], name: &str) -> Option<usize> {
    names::find(sorted, cases.len(), |place| cases[place].name.as_str(), |known| known == name, name)
}

/// Returns the place of the name of an enum or of flags.
pub(crate) fn named(all: &[String], sorted: &[u32], name: &str) -> Option<usize> {
    names::find(sorted, all.len(), |place| all[place].as_str(), |known| known == name, name)
}

/// The name of a string, if it is text.
pub(crate) fn text(quoted: Quoted<'_>) -> Checked<Cow<'_, str>> {
    quoted.text().ok_or_else(|| BadValue::new("the string has half of a surrogate pair"))
}

/// The tag of a variant, and where its payload is.
pub(crate) struct Tagged<'a> {
    pub(crate) case: usize,
    /// The payload, if there is one.
    pub(crate) val: Option<JsonReader<'a>>,
}

/// Reads the members `tag` and `val` of a variant, in any order, and goes past it.
pub(crate) fn tagged<'a>(reader: &mut JsonReader<'a>, cases: &[Case], sorted: &[u32]) -> Checked<Tagged<'a>> {
    const RULE: &str = "an object with `tag`, and `val` for a case with a payload";
    let got = *reader;
    let kind = reader.kind()?;
    if kind != Kind::Object {
        return Err(BadValue::new(format!("expected {RULE}, got {}", kind.as_str())));
    }
    let (mut tag, mut val) = (None, None);
    let mut more = reader.open(b'{')?;
    while more {
        let name = text(reader.name()?)?;
        match &*name {
            "tag" if tag.is_none() => {
                let given = *reader;
                if reader.kind()? != Kind::String {
                    return Err(
                        BadValue::new(format!("expected the name of a case, got {}", given.quote())).within("tag")
                    );
                }
                let name = text(reader.string()?)?;
                let found = self::case(cases, sorted, &name);
                tag = Some(found.ok_or_else(|| {
                    BadValue::new(one_of(&name, cases.iter().map(|case| case.name.as_str()))).within("tag")
                })?);
            }
            "val" if val.is_none() => {
                reader.kind()?;
                val = Some(*reader);
                reader.skip()?;
            }
            "tag" | "val" => return Err(BadValue::new(format!("duplicate member `{name}`"))),
            other => return Err(BadValue::new(format!("unknown member `{}`: expected {RULE}", shown(other)))),
        }
        more = reader.next(b'{')?;
    }
    match tag {
        Some(case) => Ok(Tagged { case, val }),
        None => Err(BadValue::new(format!("expected {RULE}, got {}", got.quote()))),
    }
}

/// Reads the only member of an object, `ok` or `err` of a `result`, or `some` of an option within another one: returns which of
/// `names` it is. The reader is left at its value; behind that [`sole_end`] follows.
pub(crate) fn sole(reader: &mut JsonReader<'_>, names: &[&'static str]) -> Checked<usize> {
    let rule = || format!("an object with one member, {}", names.join(" or "));
    let got = *reader;
    let kind = reader.kind()?;
    if kind != Kind::Object || !reader.open(b'{')? {
        return Err(BadValue::new(format!("expected {}, got {}", rule(), got.quote())));
    }
    let name = text(reader.name()?)?;
    names
        .iter()
        .position(|known| *known == name)
        .ok_or_else(|| BadValue::new(format!("unknown member `{}`: expected {}", shown(&name), rule())))
}

/// Goes past the end of an object with one member.
pub(crate) fn sole_end(reader: &mut JsonReader<'_>) -> Checked<()> {
    if reader.next(b'{')? { Err(BadValue::new("the object has a second member")) } else { Ok(()) }
}

/// Reads an integer.
pub(crate) fn integer(number: &str, int: Int) -> Result<i128, String> {
    let (min, max) = int.range();
    let expected = |got: &str| format!("expected an integer from {min} to {max}, got {}", shown(got));
    integer::exact(number).filter(|value| (min..=max).contains(value)).ok_or_else(|| expected(number))
}

/// Reads a finite floating point number.
pub(crate) fn float64(number: &str) -> Result<f64, String> {
    let value = number.parse::<f64>().ok().filter(|value| value.is_finite());
    value.ok_or_else(|| format!("{} is too large for 64-bit floating point", shown(number)))
}

/// Reads a finite floating point number.
pub(crate) fn float32(number: &str) -> Result<f32, String> {
    let value = number.parse::<f32>().ok().filter(|value| value.is_finite());
    value.ok_or_else(|| format!("{} is too large for 32-bit floating point", shown(number)))
}

/// Says that a name is unknown, and which is near or which there are.
pub(crate) fn one_of<'a>(given: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    const NAMED_MAX: usize = 20;
    match nearest(given, names.clone()) {
        Some(near) => format!("unknown name `{}`; did you mean `{near}`?", shown(given)),
        None => {
            let more = names.clone().count().saturating_sub(NAMED_MAX);
            let known: Vec<String> = names.take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("unknown name `{}`: expected one of {}{more}", shown(given), known.join(", "))
        }
    }
}

/// Returns the beginning of a text that a payload has, in one line.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 40;
    let mut chars = text.chars();
    let shown: String = chars.by_ref().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if chars.next().is_some() { format!("{shown}...") } else { shown }
}
