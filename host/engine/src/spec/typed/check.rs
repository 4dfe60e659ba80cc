//! Checks a payload against the types of a function's parameters, in one pass over its text. Counts what is needed to pass the
//! values on in a second pass.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wharf_core::bounds;

use crate::spec::toml_diagnostics::nearest;
use crate::spec::typed::json_reader::{JsonReader, Kind};
use crate::spec::typed::signature::Signature;
use crate::spec::typed::types::{Type, TypeRef, TypeTable};
use crate::spec::typed::value_reader::{
    BadValue, Checked, Members, Seen, float32, float64, integer, member, named, one_of, shown, sole, sole_end, tagged,
    text,
};

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
