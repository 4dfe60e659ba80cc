//! Checks a payload against the types of a function's parameters, in one pass over its text. Counts what is needed to pass the
//! values on in a second pass.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wharf_core::bounds;

use crate::spec::toml_diagnostics::nearest;
use crate::spec::typed::integer;
use crate::spec::typed::json_reader::{JsonReader, Kind, NotJson, Quoted};
use crate::spec::typed::names;
use crate::spec::typed::signature::Signature;
use crate::spec::typed::types::{Case, Field, Int, Type, TypeRef, TypeTable};

/// Number of characters of base64 that are decoded at once.
const BASE64_CHUNK: usize = 4096;

/// The contents of a valid payload, counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The lengths of the lists, in the order of the text.
    pub(crate) lengths: Vec<u32>,
    /// Number of values, with those within them.
    pub(crate) values: u64,
    /// Bytes of strings, and of names of members and cases.
    pub(crate) text_bytes: u64,
    /// Number of members that are absent. Each takes time, although the payload has no byte for it.
    pub(crate) absent: u64,
}

/// The way in which a payload is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckMode {
    /// Members are taken only as WIT writes them: `-` is not `_`. So it must be where something else, as the key of a task, looks
    /// for a member by its name.
    pub(crate) is_spelled_as_wit: bool,
    /// The lengths of the lists are noted: 4 bytes for each.
    pub(crate) notes_lengths: bool,
}

/// A value that is not of its type, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadValue {
    /// From the value outward.
    path: Vec<String>,
    what: String,
}

type Checked<T> = Result<T, Box<BadValue>>;

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
    fn new(what: impl Into<String>) -> Box<BadValue> {
        Box::new(BadValue { path: Vec::new(), what: what.into() })
    }

    fn within(mut self: Box<Self>, name: impl ToString) -> Box<BadValue> {
        self.path.push(name.to_string());
        self
    }
}

impl From<NotJson> for Box<BadValue> {
    fn from(not: NotJson) -> Box<BadValue> {
        BadValue::new(format!("not JSON: {} (at byte {})", not.what, not.at))
    }
}

impl Signature {
    /// Checks a payload: an object with a member for each parameter. No payload, or `null`, is an empty object.
    ///
    /// # Errors
    /// [`BadValue`] for the first value that is not of its type.
    pub(crate) fn check(&self, payload: &[u8], mode: CheckMode) -> Checked<Plan> {
        let text = std::str::from_utf8(payload)
            .map_err(|error| BadValue::new(format!("not JSON: no UTF-8 at byte {}", error.valid_up_to())))?;
        let mut plan = Plan::default();
        if mode.notes_lengths {
            plan.lengths.reserve_exact(lists_max(payload));
        }
        let mut check = Check { table: &self.table, plan, mode };
        let mut reader = JsonReader::new(text);
        if text.trim_ascii().is_empty() {
            check.members(&mut JsonReader::new("{}"), (&self.params, &[]), "parameter")?;
            return Ok(check.plan);
        }
        match reader.kind()? {
            Kind::Null => {
                reader.null()?;
                check.members(&mut JsonReader::new("{}"), (&self.params, &[]), "parameter")?;
            }
            Kind::Object => check.members(&mut reader, (&self.params, &[]), "parameter")?,
            other => {
                let what = format!("expected an object with a member for each parameter, got {}", other.as_str());
                return Err(BadValue::new(what));
            }
        }
        reader.end()?;
        Ok(check.plan)
    }
}

/// Returns the most lists that a payload can have.
pub(crate) fn lists_max(payload: &[u8]) -> usize {
    payload.iter().filter(|byte| **byte == b'[').count()
}

struct Check<'t> {
    table: &'t TypeTable,
    plan: Plan,
    mode: CheckMode,
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

/// Returns how many bytes a text in base64 is, if it is valid.
fn base64_bytes(text: &str) -> Option<usize> {
    let mut buffer = [0; BASE64_CHUNK / 4 * 3];
    let mut bytes = 0;
    let mut chunks = text.as_bytes().chunks(BASE64_CHUNK).peekable();
    while let Some(chunk) = chunks.next() {
        let decoded = STANDARD.decode_slice(chunk, &mut buffer).ok()?;
        // Padding is at the end only.
        if chunks.peek().is_some() && decoded < buffer.len() {
            return None;
        }
        bytes += decoded;
    }
    Some(bytes)
}

fn one_of<'a>(given: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
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
fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 40;
    let mut chars = text.chars();
    let shown: String = chars.by_ref().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if chars.next().is_some() { format!("{shown}...") } else { shown }
}

impl Check<'_> {
    fn members(&mut self, reader: &mut JsonReader<'_>, of: Members<'_>, noun: &str) -> Checked<()> {
        let fields = of.0;
        let mut seen = Seen::default();
        let mut expected = 0;
        let mut more = reader.open(b'{')?;
        while more {
            let name = text(reader.name()?)?;
            let place = member(of, &name, expected).ok_or_else(|| {
                let names = fields.iter().map(|field| field.name.as_str());
                let hint = match nearest(&name, names.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if fields.is_empty() => "there is none".to_owned(),
                    None => format!(
                        "there are {}",
                        names.map(|name| format!("`{name}`")).take(20).collect::<Vec<_>>().join(", ")
                    ),
                };
                BadValue::new(format!("unknown {noun} `{}`; {hint}", shown(&name)))
            })?;
            if self.mode.is_spelled_as_wit && fields[place].name != *name {
                let wit = &fields[place].name;
                return Err(BadValue::new(format!(
                    "unknown {noun} `{}`: expected `{wit}`, since the task has a `key` or a `payload-schema`, which look for it by this name",
                    shown(&name)
                )));
            }
            if seen.note(place) {
                return Err(BadValue::new(format!("duplicate {noun} `{}`", fields[place].name)));
            }
            self.value(reader, fields[place].ty).map_err(|bad| bad.within(&fields[place].name))?;
            expected = place + 1;
            more = reader.next(b'{')?;
        }
        for (place, field) in fields.iter().enumerate() {
            self.plan.text_bytes += field.name.len() as u64;
            if seen.has(place) {
                continue;
            }
            if !self.table.may_be_null(field.ty) {
                return Err(BadValue::new(format!("the {noun} `{}` is missing", field.name)));
            }
            self.plan.values += 1;
            self.plan.absent += 1;
        }
        if self.plan.absent > bounds::SCHEMA_CHECKS_MAX {
            let max = bounds::SCHEMA_CHECKS_MAX;
            return Err(BadValue::new(format!("more than {max} members that are options are absent in the payload")));
        }
        Ok(())
    }

    fn expect(&self, reader: &mut JsonReader<'_>, kind: Kind, what: impl fmt::Display) -> Checked<()> {
        let got = *reader;
        if reader.kind()? == kind {
            return Ok(());
        }
        Err(BadValue::new(format!("expected {what}, got {}", got.quote())))
    }

    fn value(&mut self, reader: &mut JsonReader<'_>, ty: TypeRef) -> Checked<()> {
        self.plan.values += 1;
        let table = self.table;
        match table.ty(ty) {
            Type::Bool => {
                self.expect(reader, Kind::Bool, "a boolean")?;
                reader.bool()?;
            }
            Type::Int(int) => {
                let (min, max) = int.range();
                self.expect(reader, Kind::Number, format_args!("an integer from {min} to {max}"))?;
                integer(reader.number()?, *int).map_err(BadValue::new)?;
            }
            Type::F32 => {
                self.expect(reader, Kind::Number, "a number")?;
                float32(reader.number()?).map_err(BadValue::new)?;
            }
            Type::F64 => {
                self.expect(reader, Kind::Number, "a number")?;
                float64(reader.number()?).map_err(BadValue::new)?;
            }
            Type::Char => {
                self.expect(reader, Kind::String, "a string of one character")?;
                let text = text(reader.string()?)?;
                if text.chars().count() != 1 {
                    return Err(BadValue::new(format!("expected a string of one character, got \"{}\"", shown(&text))));
                }
            }
            Type::String => {
                self.expect(reader, Kind::String, "a string")?;
                self.plan.text_bytes += text(reader.string()?)?.len() as u64;
            }
            Type::List(element) if table.is_bytes(*element) => {
                self.expect(reader, Kind::String, "a string with bytes in base64")?;
                let bytes = base64_bytes(&text(reader.string()?)?);
                self.plan.values += bytes.ok_or_else(|| {
                    BadValue::new("the string is not base64: expected characters from A-Z, a-z, 0-9, + and /, with = at the end up to a multiple of four")
                })? as u64;
            }
            Type::List(element) => {
                self.expect(reader, Kind::Array, "an array")?;
                let slot = self.plan.lengths.len();
                if self.mode.notes_lengths {
                    self.plan.lengths.push(0);
                }
                let mut length = 0_u32;
                let mut more = reader.open(b'[')?;
                while more {
                    self.value(reader, *element).map_err(|bad| bad.within(length))?;
                    length += 1;
                    more = reader.next(b'[')?;
                }
                if self.mode.notes_lengths {
                    self.plan.lengths[slot] = length;
                }
            }
            Type::Tuple(types) => {
                let what = format_args!("an array of {} values", types.len()).to_string();
                self.expect(reader, Kind::Array, &what)?;
                let got = *reader;
                let mut more = reader.open(b'[')?;
                for (place, ty) in types.iter().enumerate() {
                    if !more {
                        return Err(BadValue::new(format!("expected {what}, got {}", got.quote())));
                    }
                    self.value(reader, *ty).map_err(|bad| bad.within(place))?;
                    more = reader.next(b'[')?;
                }
                if more {
                    return Err(BadValue::new(format!("expected {what}, got {}", got.quote())));
                }
            }
            Type::Record(fields) => {
                self.expect(reader, Kind::Object, "an object")?;
                self.members(reader, (fields, table.sorted(ty)), "member")?;
            }
            Type::Enum(names) => {
                self.expect(reader, Kind::String, "the name of a case")?;
                let name = text(reader.string()?)?;
                if named(names, table.sorted(ty), &name).is_none() {
                    return Err(BadValue::new(one_of(&name, names.iter().map(String::as_str))));
                }
                self.plan.text_bytes += name.len() as u64;
            }
            Type::Flags(names) => self.flags(reader, names)?,
            Type::Option(some) => self.option(reader, *some)?,
            Type::Variant(cases) => {
                let found = tagged(reader, cases, table.sorted(ty))?;
                let case = &cases[found.case];
                self.plan.text_bytes += case.name.len() as u64;
                match (case.ty, found.val) {
                    (Some(ty), Some(mut val)) => self.value(&mut val, ty).map_err(|bad| bad.within("val"))?,
                    (Some(_), None) => return Err(BadValue::new(format!("`val` of `{}` is missing", case.name))),
                    (None, Some(mut val)) => {
                        if val.kind()? != Kind::Null {
                            return Err(BadValue::new(format!("the case `{}` takes no payload", case.name)));
                        }
                    }
                    (None, None) => {}
                }
            }
            Type::Result(ok, err) => {
                let which = sole(reader, &["ok", "err"])?;
                let (name, ty) = if which == 0 { ("ok", ok) } else { ("err", err) };
                match ty {
                    Some(ty) => self.value(reader, *ty).map_err(|bad| bad.within(name))?,
                    None => {
                        self.expect(reader, Kind::Null, "null").map_err(|bad| bad.within(name))?;
                        reader.null()?;
                    }
                }
                sole_end(reader)?;
            }
        }
        Ok(())
    }

    fn flags(&mut self, reader: &mut JsonReader<'_>, names: &[String]) -> Checked<()> {
        self.expect(reader, Kind::Array, "an array of names")?;
        let mut seen = Seen::default();
        let mut more = reader.open(b'[')?;
        while more {
            self.expect(reader, Kind::String, "a name")?;
            let name = text(reader.string()?)?;
            let place = names.iter().position(|known| *known == *name);
            let place = place.ok_or_else(|| BadValue::new(one_of(&name, names.iter().map(String::as_str))))?;
            if seen.note(place) {
                return Err(BadValue::new(format!("duplicate name `{name}`")));
            }
            self.plan.values += 1;
            self.plan.text_bytes += name.len() as u64;
            more = reader.next(b'[')?;
        }
        Ok(())
    }

    fn option(&mut self, reader: &mut JsonReader<'_>, some: TypeRef) -> Checked<()> {
        if reader.kind()? == Kind::Null {
            return Ok(reader.null()?);
        }
        if !self.table.may_be_null(some) {
            return self.value(reader, some);
        }
        sole(reader, &["some"])?;
        self.value(reader, some).map_err(|bad| bad.within("some"))?;
        sole_end(reader)
    }
}
