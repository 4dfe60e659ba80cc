//! Calls a function through wasmtime's dynamic values: for what cannot be called directly, and as the measure of what is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wasmtime::Store;
use wasmtime::component::{Func, Val};
use wharf_core::bounds;

use crate::attempt::typed::answer::Answer;
use crate::inspect::resource_makers::{Maker, MakerResult};
use crate::spec::typed::json_reader::{JsonReader, Kind, NotJson};
use crate::spec::typed::json_writer::{JsonWriter, NoText};
use crate::spec::typed::signature::{Returns, Signature};
use crate::spec::typed::types::{Int, Type, TypeRef, TypeTable};
use crate::spec::typed::value_reader::{self, BadValue, Members};

/// Calls a function.
pub(super) async fn call<T: Send + 'static>(
    store: &mut Store<T>,
    function: Func,
    signature: &Signature,
    payload: &[u8],
) -> wasmtime::Result<Answer> {
    let params = parameters(signature, payload).map_err(|_| changed())?;
    call_with(store, function, signature, params).await
}

/// Makes a resource, calls a method of that resource, and drops the resource.
pub(super) async fn call_method<T: Send + 'static>(
    store: &mut Store<T>,
    (making, maker): (Func, &Maker),
    method: Func,
    signature: &Signature,
    payload: &[u8],
) -> wasmtime::Result<Answer> {
    let mut params = parameters(signature, payload).map_err(|_| changed())?;
    let of_method = params.split_off(maker.params);
    let mut made = [Val::Bool(false)];
    making.call_async(&mut *store, &params, &mut made).await?;
    drop(params);
    let [made] = made;
    let made = match (made, maker.returns) {
        (Val::Result(Ok(Some(made))), MakerResult::ResourceOrError(_)) => *made,
        (Val::Result(Err(error)), MakerResult::ResourceOrError(ty)) => {
            return Ok(Answer::Err(as_json(&signature.table, ty, error.as_deref())?));
        }
        (made, _) => made,
    };
    let Val::Resource(resource) = made else { return Err(changed()) };
    let params = std::iter::once(Val::Resource(resource)).chain(of_method).collect();
    let answer = call_with(store, method, signature, params).await?;
    resource.resource_drop_async(store).await?;
    Ok(answer)
}

async fn call_with<T: Send + 'static>(
    store: &mut Store<T>,
    function: Func,
    signature: &Signature,
    params: Vec<Val>,
) -> wasmtime::Result<Answer> {
    let mut results = vec![Val::Bool(false); usize::from(signature.result.is_some())];
    function.call_async(&mut *store, &params, &mut results).await?;
    drop(params);
    let result = match (signature.result, results.pop()) {
        (Some(ty), Some(value)) => answer(signature, ty, value),
        _ => Ok(Answer::Ok(b"null".to_vec())),
    };
    result.map_err(Into::into)
}

fn changed() -> wasmtime::Error {
    wasmtime::Error::msg("the payload is not the one that was checked; this is a bug of the host")
}

type Written = Result<(), NoText>;
type Made<T> = Result<T, Box<BadValue>>;

fn json<T>(read: Result<T, NotJson>) -> Made<T> {
    Ok(read?)
}

/// Returns the parameters that a checked payload has.
pub(super) fn parameters(signature: &Signature, payload: &[u8]) -> Made<Vec<Val>> {
    let text = std::str::from_utf8(payload).unwrap_or_default();
    let mut reader = JsonReader::new(text);
    let is_absent = text.trim_ascii().is_empty() || json(reader.kind())? == Kind::Null;
    let mut reader = if is_absent { JsonReader::new("{}") } else { reader };
    let params = members(&mut reader, &signature.table, (&signature.params, &[]))?;
    Ok(params.into_iter().map(|(_, value)| value).collect())
}

fn members(reader: &mut JsonReader<'_>, table: &TypeTable, of: Members<'_>) -> Made<Vec<(String, Val)>> {
    let fields = of.0;
    let mut values: Vec<(String, Val)> = fields.iter().map(|field| (field.name.clone(), Val::Option(None))).collect();
    let mut expected = 0;
    let mut more = json(reader.open(b'{'))?;
    while more {
        let name = value_reader::text(json(reader.name())?)?;
        if let Some(place) = value_reader::member(of, &name, expected) {
            values[place].1 = value(reader, table, fields[place].ty)?;
            expected = place + 1;
        }
        more = json(reader.next(b'{'))?;
    }
    Ok(values)
}

fn value(reader: &mut JsonReader<'_>, table: &TypeTable, ty: TypeRef) -> Made<Val> {
    let kind = json(reader.kind())?;
    Ok(match table.ty(ty) {
        Type::Bool => Val::Bool(json(reader.bool())?),
        Type::Int(int) => {
            let value = value_reader::integer(json(reader.number())?, *int).unwrap_or_default();
            match int {
                Int::U8 => Val::U8(value as u8),
                Int::U16 => Val::U16(value as u16),
                Int::U32 => Val::U32(value as u32),
                Int::U64 => Val::U64(value as u64),
                Int::S8 => Val::S8(value as i8),
                Int::S16 => Val::S16(value as i16),
                Int::S32 => Val::S32(value as i32),
                Int::S64 => Val::S64(value as i64),
            }
        }
        Type::F32 => Val::Float32(value_reader::float32(json(reader.number())?).unwrap_or_default()),
        Type::F64 => Val::Float64(value_reader::float64(json(reader.number())?).unwrap_or_default()),
        Type::Char => Val::Char(value_reader::text(json(reader.string())?)?.chars().next().unwrap_or_default()),
        Type::String => Val::String(value_reader::text(json(reader.string())?)?.into_owned()),
        Type::List(element) if table.is_bytes(*element) => {
            let text = value_reader::text(json(reader.string())?)?;
            let bytes = STANDARD.decode(text.as_bytes()).unwrap_or_default();
            Val::List(bytes.into_iter().map(Val::U8).collect())
        }
        Type::List(element) => {
            let mut values = Vec::new();
            let mut more = json(reader.open(b'['))?;
            while more {
                values.push(value(reader, table, *element)?);
                more = json(reader.next(b'['))?;
            }
            Val::List(values)
        }
        Type::Record(fields) => Val::Record(members(reader, table, (fields, table.sorted(ty)))?),
        Type::Tuple(types) => {
            json(reader.open(b'['))?;
            let mut values = Vec::new();
            for ty in types {
                values.push(value(reader, table, *ty)?);
                json(reader.next(b'['))?;
            }
            Val::Tuple(values)
        }
        Type::Enum(_) => Val::Enum(value_reader::text(json(reader.string())?)?.into_owned()),
        Type::Flags(_) => {
            let mut names = Vec::new();
            let mut more = json(reader.open(b'['))?;
            while more {
                names.push(value_reader::text(json(reader.string())?)?.into_owned());
                more = json(reader.next(b'['))?;
            }
            Val::Flags(names)
        }
        Type::Option(_) if kind == Kind::Null => {
            json(reader.null())?;
            Val::Option(None)
        }
        Type::Option(some) if table.may_be_null(*some) => {
            value_reader::sole(reader, &["some"])?;
            let some = value(reader, table, *some)?;
            value_reader::sole_end(reader)?;
            Val::Option(Some(Box::new(some)))
        }
        Type::Option(some) => Val::Option(Some(Box::new(value(reader, table, *some)?))),
        Type::Variant(cases) => {
            let found = value_reader::tagged(reader, cases, table.sorted(ty))?;
            let case = &cases[found.case];
            let payload = match (case.ty, found.val) {
                (Some(ty), Some(mut val)) => Some(Box::new(value(&mut val, table, ty)?)),
                _ => None,
            };
            Val::Variant(case.name.clone(), payload)
        }
        Type::Result(ok, err) => {
            let which = value_reader::sole(reader, &["ok", "err"])?;
            let payload = match if which == 0 { ok } else { err } {
                Some(ty) => Some(Box::new(value(reader, table, *ty)?)),
                None => {
                    json(reader.kind())?;
                    json(reader.null())?;
                    None
                }
            };
            value_reader::sole_end(reader)?;
            Val::Result(if which == 0 { Ok(payload) } else { Err(payload) })
        }
    })
}

fn answer(signature: &Signature, ty: TypeRef, value: Val) -> Result<Answer, NoText> {
    match (signature.returns(), value) {
        (Returns::Fallible(ok, _), Val::Result(Ok(value))) => {
            text(&signature.table, ok, value.as_deref()).map(Answer::Ok)
        }
        (Returns::Fallible(_, err), Val::Result(Err(value))) => {
            as_json(&signature.table, err, value.as_deref()).map(Answer::Err)
        }
        (_, value) => text(&signature.table, Some(ty), Some(&value)).map(Answer::Ok),
    }
}

/// Writes a result: bytes as they are, everything else as JSON.
fn text(table: &TypeTable, ty: Option<TypeRef>, value: Option<&Val>) -> Result<Vec<u8>, NoText> {
    let (Some(ty), Some(value)) = (ty, value) else { return Ok(b"null".to_vec()) };
    if let (Type::List(element), Val::List(values)) = (table.ty(ty), value)
        && table.is_bytes(*element)
    {
        let bytes = bytes(values);
        return if bytes.len() as u64 > bounds::OUTPUT_BYTES_MAX { Err(NoText::TooLarge) } else { Ok(bytes) };
    }
    as_json(table, Some(ty), Some(value))
}

/// Writes JSON, also of bytes.
fn as_json(table: &TypeTable, ty: Option<TypeRef>, value: Option<&Val>) -> Result<Vec<u8>, NoText> {
    let (Some(ty), Some(value)) = (ty, value) else { return Ok(b"null".to_vec()) };
    let mut text = Text { table, writer: JsonWriter::default() };
    text.value(ty, value)?;
    Ok(text.writer.finish())
}

fn bytes(values: &[Val]) -> Vec<u8> {
    values.iter().map(|value| if let Val::U8(byte) = value { *byte } else { 0 }).collect()
}

struct Text<'t> {
    table: &'t TypeTable,
    writer: JsonWriter,
}

impl Text<'_> {
    /// Writes values between brackets.
    fn all(&mut self, brackets: [&str; 2], values: impl Iterator<Item = impl FnOnce(&mut Self) -> Written>) -> Written {
        self.writer.part(brackets[0])?;
        for (place, value) in values.enumerate() {
            if place > 0 {
                self.writer.part(",")?;
            }
            value(self)?;
        }
        self.writer.part(brackets[1])
    }

    fn option(&mut self, ty: Option<TypeRef>, value: Option<&Val>) -> Written {
        match (ty, value) {
            (Some(ty), Some(value)) => self.value(ty, value),
            _ => self.writer.part("null"),
        }
    }

    fn value(&mut self, ty: TypeRef, value: &Val) -> Written {
        let table = self.table;
        match (table.ty(ty), value) {
            (_, Val::Bool(value)) => self.writer.part(if *value { "true" } else { "false" }),
            (_, Val::U8(value)) => self.writer.integer((*value).into()),
            (_, Val::U16(value)) => self.writer.integer((*value).into()),
            (_, Val::U32(value)) => self.writer.integer((*value).into()),
            (_, Val::U64(value)) => self.writer.integer((*value).into()),
            (_, Val::S8(value)) => self.writer.integer((*value).into()),
            (_, Val::S16(value)) => self.writer.integer((*value).into()),
            (_, Val::S32(value)) => self.writer.integer((*value).into()),
            (_, Val::S64(value)) => self.writer.integer((*value).into()),
            (_, Val::Float32(value)) => self.writer.f32(*value),
            (_, Val::Float64(value)) => self.writer.f64(*value),
            (_, Val::Char(value)) => self.writer.string(value.encode_utf8(&mut [0; 4])),
            (_, Val::String(value) | Val::Enum(value)) => self.writer.string(value),
            (Type::List(element), Val::List(values)) if table.is_bytes(*element) => self.writer.bytes(&bytes(values)),
            (Type::List(element), Val::List(values)) => {
                self.all(["[", "]"], values.iter().map(|value| |text: &mut Self| text.value(*element, value)))
            }
            (Type::Tuple(types), Val::Tuple(values)) => {
                let each = types.iter().zip(values);
                self.all(["[", "]"], each.map(|(ty, value)| |text: &mut Self| text.value(*ty, value)))
            }
            (Type::Record(fields), Val::Record(values)) => {
                let each = fields.iter().zip(values);
                self.all(
                    ["{", "}"],
                    each.map(|(field, (_, value))| {
                        |text: &mut Self| {
                            text.writer.string(&field.name)?;
                            text.writer.part(":")?;
                            text.value(field.ty, value)
                        }
                    }),
                )
            }
            (_, Val::Flags(names)) => {
                self.all(["[", "]"], names.iter().map(|name| |text: &mut Self| text.writer.string(name)))
            }
            (Type::Option(some), Val::Option(Some(value))) if table.may_be_null(*some) => {
                self.writer.part("{\"some\":")?;
                self.value(*some, value)?;
                self.writer.part("}")
            }
            (Type::Option(some), Val::Option(value)) => self.option(Some(*some), value.as_deref()),
            (Type::Variant(cases), Val::Variant(name, payload)) => {
                self.writer.part("{\"tag\":")?;
                self.writer.string(name)?;
                let ty = cases.iter().find(|case| case.name == *name).and_then(|case| case.ty);
                if let (Some(ty), Some(payload)) = (ty, payload) {
                    self.writer.part(",\"val\":")?;
                    self.value(ty, payload)?;
                }
                self.writer.part("}")
            }
            (Type::Result(ok, err), Val::Result(result)) => {
                let (name, ty, payload) = match result {
                    Ok(payload) => ("{\"ok\":", ok, payload),
                    Err(payload) => ("{\"err\":", err, payload),
                };
                self.writer.part(name)?;
                self.option(*ty, payload.as_deref())?;
                self.writer.part("}")
            }
            // A function that is linked has the types that it was linked with.
            _ => self.writer.part("null"),
        }
    }
}
