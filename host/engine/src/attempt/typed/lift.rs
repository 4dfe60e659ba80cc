//! Reads the result of a guest's function out of its memory, and writes it as JSON. Everything there may be wrong: each address
//! and each case is checked.

use wasmtime::ValRaw;
use wasmtime::component::__internal::wasmtime_environ::component::StringEncoding;
use wasmtime::component::__internal::{ComponentTypes, InterfaceType, LiftContext};
use wasmtime::component::Lift;
use wharf_core::bounds;

use crate::attempt::typed::answer::Answer;
use crate::spec::typed::json_writer::{JsonWriter, NoText};
use crate::spec::typed::types::tag_bytes;

type Lifted<T> = wasmtime::Result<T>;

/// A result of a function, of this type: a core value, or a value at an address of the guest's memory.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Nothing,
    Flat(ValRaw),
    Memory(usize),
}

/// Reads the result.
///
/// # Errors
/// If what the guest returned is not of the type, or has no text.
pub(super) fn result(cx: &mut LiftContext<'_>, ty: Option<InterfaceType>, source: Source) -> Lifted<Answer> {
    let types: &ComponentTypes = cx.types;
    let (Some(ty), false) = (ty, matches!(source, Source::Nothing)) else { return Ok(Answer::Ok(b"null".to_vec())) };
    let mut lifting = Lifting { types, memory: None, cx, writer: JsonWriter::default() };
    let at = match source {
        Source::Memory(address) => {
            lifting.memory = Some(lifting.cx.memory());
            At::Memory(lifting.bytes_of(&ty, address)?)
        }
        Source::Flat(raw) => At::Flat(raw),
        Source::Nothing => return Err(invalid("nothing")),
    };
    let InterfaceType::Result(index) = ty else { return lifting.answer(Some(ty), at).map(Answer::Ok) };
    let its = &types[index];
    let (case, payload) = lifting.case(at, 2, its.info.payload_offset32)?;
    match case {
        0 => lifting.answer(its.ok, payload).map(Answer::Ok),
        1 => lifting.json(its.err, payload).map(Answer::Err),
        _ => Err(invalid("case of a result")),
    }
}

/// The place of a value.
#[derive(Clone, Copy)]
enum At<'m> {
    Flat(ValRaw),
    /// The bytes of the value, and those behind it.
    Memory(&'m [u8]),
}

struct Lifting<'l, 'm> {
    types: &'m ComponentTypes,
    memory: Option<&'m [u8]>,
    cx: &'l mut LiftContext<'m>,
    writer: JsonWriter,
}

fn invalid(what: &str) -> wasmtime::Error {
    wasmtime::Error::msg(format!("the function returned an invalid {what}"))
}

fn out_of_bounds() -> wasmtime::Error {
    wasmtime::Error::msg("the function returned an address outside its memory")
}

fn no_text(why: NoText) -> wasmtime::Error {
    why.into()
}

impl<'m> Lifting<'_, 'm> {
    fn memory(&self) -> Lifted<&'m [u8]> {
        self.memory.ok_or_else(out_of_bounds)
    }

    /// Returns so many bytes at an address.
    fn slice(&self, address: usize, bytes: usize) -> Lifted<&'m [u8]> {
        let end = address.checked_add(bytes).ok_or_else(out_of_bounds)?;
        self.memory()?.get(address..end).ok_or_else(out_of_bounds)
    }

    /// Returns the bytes of a value at an address.
    fn bytes_of(&self, ty: &InterfaceType, address: usize) -> Lifted<&'m [u8]> {
        let abi = self.types.canonical_abi(ty);
        if !address.is_multiple_of(abi.align32 as usize) {
            return Err(invalid("address: it is not aligned"));
        }
        self.slice(address, abi.size32 as usize)
    }

    /// Writes a result: bytes as they are, everything else as JSON.
    fn answer(mut self, ty: Option<InterfaceType>, at: At<'m>) -> Lifted<Vec<u8>> {
        let Some(ty) = ty else { return Ok(b"null".to_vec()) };
        if let (InterfaceType::List(list), At::Memory(bytes)) = (ty, at)
            && self.types[list].element == InterfaceType::U8
        {
            let bytes = self.list(bytes, &InterfaceType::U8)?.0;
            if bytes.len() as u64 > bounds::OUTPUT_BYTES_MAX {
                return Err(no_text(NoText::TooLarge));
            }
            return Ok(bytes.to_vec());
        }
        self.json(Some(ty), at)
    }

    /// Writes JSON, also of bytes.
    fn json(mut self, ty: Option<InterfaceType>, at: At<'m>) -> Lifted<Vec<u8>> {
        let Some(ty) = ty else { return Ok(b"null".to_vec()) };
        self.value(&ty, at)?;
        Ok(self.writer.finish())
    }

    fn part(&mut self, part: &str) -> Lifted<()> {
        self.writer.part(part).map_err(no_text)
    }

    fn number<const N: usize>(&self, at: At<'m>) -> Lifted<u64> {
        match at {
            At::Flat(raw) if N == 8 => Ok(raw.get_u64()),
            // Core values have 32 bits at least; those above a narrower integer say nothing.
            At::Flat(raw) => Ok(u64::from(raw.get_u32()) & (u64::MAX >> (64 - 8 * N))),
            At::Memory(bytes) => {
                let mut all = [0; 8];
                all[..N].copy_from_slice(bytes.get(..N).ok_or_else(out_of_bounds)?);
                Ok(u64::from_le_bytes(all))
            }
        }
    }

    fn discriminant(&self, at: At<'m>, cases: usize) -> Lifted<usize> {
        let case = match (at, tag_bytes(cases)) {
            // Here the bits above it must be zero: it is a core value of 32 bits.
            (At::Flat(raw), _) => raw.get_u32().into(),
            (_, 1) => self.number::<1>(at)?,
            (_, 2) => self.number::<2>(at)?,
            _ => self.number::<4>(at)?,
        };
        usize::try_from(case).map_err(|_| invalid("case"))
    }

    /// Returns the case of a variant, and where its payload is. One that is a single core value has no payloads.
    fn case(&self, at: At<'m>, cases: usize, payload: u32) -> Lifted<(usize, At<'m>)> {
        let case = self.discriminant(at, cases)?;
        let payload = match at {
            At::Flat(raw) => At::Flat(raw),
            At::Memory(bytes) => At::Memory(bytes.get(payload as usize..).ok_or_else(out_of_bounds)?),
        };
        Ok((case, payload))
    }

    /// Returns the bytes of a list's elements, and the size of one.
    fn list(&mut self, pair: &'m [u8], element: &InterfaceType) -> Lifted<(&'m [u8], usize)> {
        let (address, length) = pointer(pair)?;
        let abi = self.types.canonical_abi(element);
        let size = abi.size32 as usize;
        if !address.is_multiple_of(abi.align32 as usize) {
            return Err(invalid("address: it is not aligned"));
        }
        let bytes = self.slice(address, length.checked_mul(size).ok_or_else(out_of_bounds)?)?;
        self.cx.consume_fuel(bytes.len())?;
        Ok((bytes, size))
    }

    fn value(&mut self, ty: &InterfaceType, at: At<'m>) -> Lifted<()> {
        let types = self.types;
        match ty {
            InterfaceType::Bool => {
                let is_true = match at {
                    At::Flat(raw) => raw.get_u32() != 0,
                    At::Memory(_) => self.number::<1>(at)? != 0,
                };
                self.part(if is_true { "true" } else { "false" })
            }
            InterfaceType::U8 => self.number::<1>(at).and_then(|bits| self.integer(i128::from(bits))),
            InterfaceType::U16 => self.number::<2>(at).and_then(|bits| self.integer(i128::from(bits))),
            InterfaceType::U32 => self.number::<4>(at).and_then(|bits| self.integer(i128::from(bits))),
            InterfaceType::U64 => self.number::<8>(at).and_then(|bits| self.integer(i128::from(bits))),
            InterfaceType::S8 => self.number::<1>(at).and_then(|bits| self.integer(i128::from(bits as i8))),
            InterfaceType::S16 => self.number::<2>(at).and_then(|bits| self.integer(i128::from(bits as i16))),
            InterfaceType::S32 => self.number::<4>(at).and_then(|bits| self.integer(i128::from(bits as i32))),
            InterfaceType::S64 => self.number::<8>(at).and_then(|bits| self.integer(i128::from(bits as i64))),
            InterfaceType::Float32 => {
                let number = f32::from_bits(self.number::<4>(at)? as u32);
                self.writer.f32(number).map_err(no_text)
            }
            InterfaceType::Float64 => {
                let number = f64::from_bits(self.number::<8>(at)?);
                self.writer.f64(number).map_err(no_text)
            }
            InterfaceType::Char => {
                let c = char::from_u32(self.number::<4>(at)? as u32).ok_or_else(|| invalid("character"))?;
                self.writer.string(c.encode_utf8(&mut [0; 4])).map_err(no_text)
            }
            InterfaceType::String => self.string(at),
            InterfaceType::List(index) => {
                let At::Memory(pair) = at else { return Err(invalid("list")) };
                let element = &types[*index].element;
                let (bytes, size) = self.list(pair, element)?;
                if *element == InterfaceType::U8 {
                    return self.writer.bytes(bytes).map_err(no_text);
                }
                self.part("[")?;
                for (place, one) in bytes.chunks_exact(size.max(1)).enumerate() {
                    if place > 0 {
                        self.part(",")?;
                    }
                    self.value(element, At::Memory(one))?;
                }
                self.part("]")
            }
            InterfaceType::Record(index) => {
                let mut offset = 0;
                for (place, field) in types[*index].fields.iter().enumerate() {
                    self.part(if place == 0 { "{" } else { "," })?;
                    self.name(&field.name)?;
                    let at = self.member(&field.ty, at, &mut offset)?;
                    self.value(&field.ty, at)?;
                }
                self.part("}")
            }
            InterfaceType::Tuple(index) => {
                let mut offset = 0;
                for (place, ty) in types[*index].types.iter().enumerate() {
                    self.part(if place == 0 { "[" } else { "," })?;
                    let at = self.member(ty, at, &mut offset)?;
                    self.value(ty, at)?;
                }
                self.part("]")
            }
            InterfaceType::Enum(index) => {
                let its = &types[*index];
                let case = self.discriminant(at, its.names.len())?;
                let name = its.names.iter().nth(case).ok_or_else(|| invalid("case of an enum"))?;
                self.writer.string(name).map_err(no_text)
            }
            InterfaceType::Flags(index) => {
                let its = &types[*index];
                let bits = match its.abi.size32 {
                    1 => self.number::<1>(at)?,
                    2 => self.number::<2>(at)?,
                    _ => self.number::<4>(at)?,
                };
                self.part("[")?;
                let mut is_first = true;
                for name in its.names.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| name) {
                    if !std::mem::take(&mut is_first) {
                        self.part(",")?;
                    }
                    self.writer.string(name).map_err(no_text)?;
                }
                self.part("]")
            }
            InterfaceType::Option(index) => {
                let its = &types[*index];
                match self.case(at, 2, its.info.payload_offset32)? {
                    (0, _) => self.part("null"),
                    (1, some) if matches!(its.ty, InterfaceType::Option(_)) => {
                        self.part("{\"some\":")?;
                        self.value(&its.ty, some)?;
                        self.part("}")
                    }
                    (1, some) => self.value(&its.ty, some),
                    _ => Err(invalid("case of an option")),
                }
            }
            InterfaceType::Result(index) => {
                let its = &types[*index];
                let (case, payload) = self.case(at, 2, its.info.payload_offset32)?;
                let (name, ty) = match case {
                    0 => ("{\"ok\":", its.ok),
                    1 => ("{\"err\":", its.err),
                    _ => return Err(invalid("case of a result")),
                };
                self.part(name)?;
                match ty {
                    Some(ty) => self.value(&ty, payload)?,
                    None => self.part("null")?,
                }
                self.part("}")
            }
            InterfaceType::Variant(index) => {
                let its = &types[*index];
                let (case, payload) = self.case(at, its.cases.len(), its.info.payload_offset32)?;
                let (name, ty) = its.cases.iter().nth(case).ok_or_else(|| invalid("case of a variant"))?;
                self.part("{\"tag\":")?;
                self.writer.string(name).map_err(no_text)?;
                if let Some(ty) = ty {
                    self.part(",\"val\":")?;
                    self.value(ty, payload)?;
                }
                self.part("}")
            }
            _ => Err(invalid("value: its type cannot be written as JSON")),
        }
    }

    fn integer(&mut self, number: i128) -> Lifted<()> {
        self.writer.integer(number).map_err(no_text)
    }

    fn name(&mut self, name: &str) -> Lifted<()> {
        self.writer.string(name).map_err(no_text)?;
        self.part(":")
    }

    /// Returns where the next member of a record or a tuple is. One that is a single core value has one member.
    fn member(&self, ty: &InterfaceType, at: At<'m>, end: &mut usize) -> Lifted<At<'m>> {
        let At::Memory(bytes) = at else { return Ok(at) };
        let abi = self.types.canonical_abi(ty);
        let offset = end.next_multiple_of(abi.align32 as usize);
        *end = offset + abi.size32 as usize;
        Ok(At::Memory(bytes.get(offset..).ok_or_else(out_of_bounds)?))
    }

    fn string(&mut self, at: At<'m>) -> Lifted<()> {
        let At::Memory(pair) = at else { return Err(invalid("string")) };
        let pair = pair.get(..8).ok_or_else(out_of_bounds)?;
        if self.cx.options().string_encoding != StringEncoding::Utf8 {
            let text = String::linear_lift_from_memory(self.cx, InterfaceType::String, pair)?;
            return self.writer.string(&text).map_err(no_text);
        }
        let (address, length) = pointer(pair)?;
        self.cx.consume_fuel(length)?;
        let text = std::str::from_utf8(self.slice(address, length)?).map_err(|_| invalid("string: it is not UTF-8"))?;
        self.writer.string(text).map_err(no_text)
    }
}

/// Reads the address and the length of a list or a string.
fn pointer(pair: &[u8]) -> Lifted<(usize, usize)> {
    let (address, rest) = pair.split_first_chunk::<4>().ok_or_else(out_of_bounds)?;
    let length = rest.first_chunk::<4>().ok_or_else(out_of_bounds)?;
    Ok((u32::from_le_bytes(*address) as usize, u32::from_le_bytes(*length) as usize))
}
