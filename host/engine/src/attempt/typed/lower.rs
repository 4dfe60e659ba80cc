//! Writes the values of a checked payload to where a guest's function takes them: core values, and what these point to in the
//! guest's memory.

use std::mem::MaybeUninit;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wasmtime::ValRaw;
use wasmtime::component::__internal::{InterfaceType, LowerContext};
use wasmtime::component::Lower;

use crate::spec::typed::json_reader::{JsonReader, Kind, NotJson};
use crate::spec::typed::signature::Signature;
use crate::spec::typed::types::{MemberPlace, Type, TypeRef, TypeTable};
use crate::spec::typed::value_reader::{self, BadValue, Members, Seen};

type Lowered = wasmtime::Result<()>;

/// The place to which a value goes.
#[derive(Clone, Copy)]
enum Place {
    /// An address in the guest's memory, which was checked to be within it.
    Memory(usize),
    /// The number of its first core value.
    Flat(usize),
}

impl Place {
    fn member(self, member: MemberPlace) -> Place {
        match self {
            Place::Memory(at) => Place::Memory(at + member.offset as usize),
            Place::Flat(at) => Place::Flat(at + member.flat as usize),
        }
    }
}

/// Writes the parameters. `flat` has a core value for each that the parameters are.
///
/// # Errors
/// If the guest does not give the memory, or if the payload is another than the one that was checked.
pub(super) fn parameters<T: 'static>(
    cx: &mut LowerContext<'_, T>,
    signature: &Signature,
    (payload, lengths): (&[u8], &[u32]),
    flat: &mut [ValRaw],
) -> Lowered {
    // What is absent is none: its case is 0, as are the core values of a payload that it does not have.
    flat.fill(ValRaw::u64(0));
    let text = std::str::from_utf8(payload).map_err(|_| changed())?;
    let mut reader = JsonReader::new(text);
    if text.trim_ascii().is_empty() || reader.kind().map_err(not_json)? == Kind::Null {
        return Ok(());
    }
    let places = signature.table.places(signature.params.iter().map(|param| param.ty));
    let mut lowering = Lowering { cx, table: &signature.table, lengths: lengths.iter(), flat };
    lowering.members(&mut reader, ((&signature.params, &[]), &places), Place::Flat(0))
}

struct Lowering<'l, 'c, T: 'static> {
    cx: &'l mut LowerContext<'c, T>,
    table: &'l TypeTable,
    lengths: std::slice::Iter<'l, u32>,
    flat: &'l mut [ValRaw],
}

fn changed() -> wasmtime::Error {
    wasmtime::Error::msg("the payload is not the one that was checked; this is a bug of the host")
}

fn not_json(_: NotJson) -> wasmtime::Error {
    changed()
}

fn bad(_: Box<BadValue>) -> wasmtime::Error {
    changed()
}

impl<T: 'static> Lowering<'_, '_, T> {
    /// Writes the low bytes of a number, or all of it as a core value. A core value that is narrower than its place, as in a
    /// variant, is filled up with zeros.
    fn scalar(&mut self, at: Place, bits: u64, bytes: u32) -> Lowered {
        match (at, bytes) {
            (Place::Flat(at), _) => *self.flat.get_mut(at).ok_or_else(changed)? = ValRaw::u64(bits),
            (Place::Memory(at), 1) => *self.cx.get::<1>(at) = [bits as u8],
            (Place::Memory(at), 2) => *self.cx.get::<2>(at) = (bits as u16).to_le_bytes(),
            (Place::Memory(at), 4) => *self.cx.get::<4>(at) = (bits as u32).to_le_bytes(),
            (Place::Memory(at), _) => *self.cx.get::<8>(at) = bits.to_le_bytes(),
        }
        Ok(())
    }

    fn pointer(&mut self, at: Place, address: usize, length: usize) -> Lowered {
        self.scalar(at, address as u64, 4)?;
        self.scalar(at.member(MemberPlace { offset: 4, flat: 1 }), length as u64, 4)
    }

    fn members(&mut self, reader: &mut JsonReader<'_>, of: (Members<'_>, &[MemberPlace]), at: Place) -> Lowered {
        let (members, places) = of;
        let fields = members.0;
        let mut seen = Seen::default();
        let mut expected = 0;
        let mut more = reader.open(b'{').map_err(not_json)?;
        while more {
            let name = value_reader::text(reader.name().map_err(not_json)?).map_err(bad)?;
            let place = value_reader::member(members, &name, expected).ok_or_else(changed)?;
            seen.note(place);
            self.value(reader, fields[place].ty, at.member(places[place]))?;
            expected = place + 1;
            more = reader.next(b'{').map_err(not_json)?;
        }
        if let Place::Memory(_) = at {
            for absent in (0..fields.len()).filter(|place| !seen.has(*place)) {
                self.scalar(at.member(places[absent]), 0, 1)?;
            }
        }
        Ok(())
    }

    /// Returns the place of the payload of a variant.
    fn payload(&self, at: Place, ty: TypeRef) -> Place {
        at.member(MemberPlace { offset: self.table.layout(ty).payload, flat: 1 })
    }

    fn value(&mut self, reader: &mut JsonReader<'_>, ty: TypeRef, at: Place) -> Lowered {
        let table = self.table;
        match table.ty(ty) {
            Type::Bool => {
                reader.kind().map_err(not_json)?;
                let value = reader.bool().map_err(not_json)?;
                self.scalar(at, value.into(), 1)
            }
            Type::Int(int) => {
                reader.kind().map_err(not_json)?;
                let number = reader.number().map_err(not_json)?;
                let value = value_reader::integer(number, *int).map_err(|_| changed())?;
                // Core values of 32 bits have the sign in them, and zeros above.
                let bits = if int.bytes() == 8 { value as u64 } else { u64::from(value as u32) };
                self.scalar(at, bits, int.bytes())
            }
            Type::F32 => {
                reader.kind().map_err(not_json)?;
                let number = value_reader::float32(reader.number().map_err(not_json)?).map_err(|_| changed())?;
                self.scalar(at, number.to_bits().into(), 4)
            }
            Type::F64 => {
                reader.kind().map_err(not_json)?;
                let number = value_reader::float64(reader.number().map_err(not_json)?).map_err(|_| changed())?;
                self.scalar(at, number.to_bits(), 8)
            }
            Type::Char => {
                let text = value_reader::text(reader.string().map_err(not_json)?).map_err(bad)?;
                let c = text.chars().next().ok_or_else(changed)?;
                self.scalar(at, u32::from(c).into(), 4)
            }
            Type::String => {
                let text = value_reader::text(reader.string().map_err(not_json)?).map_err(bad)?;
                self.string(at, &text)
            }
            Type::List(element) if table.is_bytes(*element) => {
                let text = value_reader::text(reader.string().map_err(not_json)?).map_err(bad)?;
                let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
                let length = (text.len() / 4 * 3).checked_sub(padding).ok_or_else(changed)?;
                let address = self.cx.realloc(0, 0, 1, length)?;
                let memory = &mut self.cx.as_slice_mut()[address..address + length];
                let decoded = STANDARD.decode_slice(text.as_bytes(), memory).map_err(|_| changed())?;
                if decoded != length {
                    return Err(changed());
                }
                self.pointer(at, address, length)
            }
            Type::List(element) => {
                let length = *self.lengths.next().ok_or_else(changed)? as usize;
                let layout = table.layout(*element);
                let size = layout.size as usize;
                let bytes = length.checked_mul(size).filter(|bytes| u32::try_from(*bytes).is_ok());
                let bytes =
                    bytes.ok_or_else(|| wasmtime::Error::msg("a list is larger than any memory of the guest"))?;
                let address = self.cx.realloc(0, 0, layout.align, bytes)?;
                let mut more = reader.open(b'[').map_err(not_json)?;
                for place in 0..length {
                    if !more {
                        return Err(changed());
                    }
                    self.value(reader, *element, Place::Memory(address + place * size))?;
                    more = reader.next(b'[').map_err(not_json)?;
                }
                if more {
                    return Err(changed());
                }
                self.pointer(at, address, length)
            }
            Type::Record(fields) => self.members(reader, ((fields, table.sorted(ty)), table.members(ty)), at),
            Type::Tuple(types) => {
                reader.open(b'[').map_err(not_json)?;
                for (ty, place) in types.iter().zip(table.members(ty)) {
                    self.value(reader, *ty, at.member(*place))?;
                    reader.next(b'[').map_err(not_json)?;
                }
                Ok(())
            }
            Type::Enum(names) => {
                let name = value_reader::text(reader.string().map_err(not_json)?).map_err(bad)?;
                let case = value_reader::named(names, table.sorted(ty), &name).ok_or_else(changed)?;
                self.scalar(at, case as u64, table.layout(ty).tag.max(table.layout(ty).size))
            }
            Type::Flags(names) => {
                let mut bits = 0_u64;
                let mut more = reader.open(b'[').map_err(not_json)?;
                while more {
                    let name = value_reader::text(reader.string().map_err(not_json)?).map_err(bad)?;
                    bits |= 1 << names.iter().position(|known| *known == *name).ok_or_else(changed)?;
                    more = reader.next(b'[').map_err(not_json)?;
                }
                self.scalar(at, bits, table.layout(ty).size)
            }
            Type::Option(some) => {
                if reader.kind().map_err(not_json)? == Kind::Null {
                    reader.null().map_err(not_json)?;
                    return self.scalar(at, 0, 1);
                }
                self.scalar(at, 1, 1)?;
                let payload = self.payload(at, ty);
                if !table.may_be_null(*some) {
                    return self.value(reader, *some, payload);
                }
                value_reader::sole(reader, &["some"]).map_err(bad)?;
                self.value(reader, *some, payload)?;
                value_reader::sole_end(reader).map_err(bad)
            }
            Type::Variant(cases) => {
                let found = value_reader::tagged(reader, cases, table.sorted(ty)).map_err(bad)?;
                self.scalar(at, found.case as u64, table.layout(ty).tag)?;
                match (cases[found.case].ty, found.val) {
                    (Some(its), Some(mut val)) => self.value(&mut val, its, self.payload(at, ty)),
                    (Some(_), None) => Err(changed()),
                    (None, _) => Ok(()),
                }
            }
            Type::Result(ok, err) => {
                let which = value_reader::sole(reader, &["ok", "err"]).map_err(bad)?;
                self.scalar(at, which as u64, 1)?;
                match if which == 0 { ok } else { err } {
                    Some(its) => self.value(reader, *its, self.payload(at, ty))?,
                    None => {
                        reader.kind().map_err(not_json)?;
                        reader.null().map_err(not_json)?;
                    }
                }
                value_reader::sole_end(reader).map_err(bad)
            }
        }
    }

    /// Writes a string in the encoding that the guest has.
    fn string(&mut self, at: Place, text: &str) -> Lowered {
        match at {
            Place::Memory(at) => text.linear_lower_to_memory(self.cx, InterfaceType::String, at),
            Place::Flat(at) => {
                let mut pair = MaybeUninit::uninit();
                text.linear_lower_to_flat(self.cx, InterfaceType::String, &mut pair)?;
                #[expect(unsafe_code, reason = "the trait of wasmtime writes to memory that is not initialised")]
                // SAFETY: the method initialises all of it before it returns `Ok`, as its contract says.
                let pair: [ValRaw; 2] = unsafe { pair.assume_init() };
                self.flat.get_mut(at..at + 2).ok_or_else(changed)?.copy_from_slice(&pair);
                Ok(())
            }
        }
    }
}
