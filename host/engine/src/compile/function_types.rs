//! Holds the types of a function as its description has them against those of the compiled code. The values of a call are laid
//! out by the former, so that they must be the latter.

use wasmtime::component::Type as CodeType;
use wasmtime::component::types::ComponentFunc;

use crate::inspect::resource_makers::{Maker, MakerResult};
use crate::spec::typed::signature::Signature;
use crate::spec::typed::types::{Field, Int, Type, TypeRef, TypeTable};

/// Maximum number of types within a function's types, counted as often as they occur. A function with more is no task.
const STEPS_MAX: u32 = 100_000;

/// Returns true if a function's types are the same; false as well if they are too large to say.
pub(crate) fn agree(signature: &Signature, code: &ComponentFunc) -> bool {
    let mut compare = Compare { table: &signature.table, steps: 0 };
    compare.params(&signature.params, &mut code.params()) && compare.result(signature.result, code)
}

/// Returns true if the types of a method, and of the function that makes its resource, are those of the code.
pub(crate) fn agree_with_maker(
    signature: &Signature,
    maker: &Maker,
    (making, method): (&ComponentFunc, &ComponentFunc),
) -> bool {
    let mut compare = Compare { table: &signature.table, steps: 0 };
    let Some((of_maker, of_method)) = signature.params.split_at_checked(maker.params) else { return false };
    let mut made = making.results();
    let resource = match (made.next(), maker.returns) {
        (Some(CodeType::Own(resource)), MakerResult::Resource) => resource,
        (Some(CodeType::Result(result)), MakerResult::ResourceOrError(error)) => match result.ok() {
            Some(CodeType::Own(resource)) if compare.is_same_option(error, result.err().as_ref()) => resource,
            _ => return false,
        },
        _ => return false,
    };
    let mut params = method.params();
    matches!(params.next(), Some((_, CodeType::Borrow(own))) if own == resource)
        && made.next().is_none()
        && compare.params(of_maker, &mut making.params())
        && compare.params(of_method, &mut params)
        && compare.result(signature.result, method)
}

struct Compare<'t> {
    table: &'t TypeTable,
    steps: u32,
}

impl Compare<'_> {
    /// Returns true if these are all parameters that are left.
    fn params<'n>(&mut self, own: &[Field], code: &mut impl Iterator<Item = (&'n str, CodeType)>) -> bool {
        own.iter().all(|param| code.next().is_some_and(|(name, ty)| name == param.name && self.is_same(param.ty, &ty)))
            && code.next().is_none()
    }

    fn result(&mut self, own: Option<TypeRef>, code: &ComponentFunc) -> bool {
        let mut results = code.results();
        self.is_same_option(own, results.next().as_ref()) && results.next().is_none()
    }

    fn is_same(&mut self, own: TypeRef, code: &CodeType) -> bool {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return false;
        }
        let table = self.table;
        match (table.ty(own), code) {
            (Type::Bool, CodeType::Bool)
            | (Type::F32, CodeType::Float32)
            | (Type::F64, CodeType::Float64)
            | (Type::Char, CodeType::Char)
            | (Type::String, CodeType::String)
            | (Type::Int(Int::U8), CodeType::U8)
            | (Type::Int(Int::U16), CodeType::U16)
            | (Type::Int(Int::U32), CodeType::U32)
            | (Type::Int(Int::U64), CodeType::U64)
            | (Type::Int(Int::S8), CodeType::S8)
            | (Type::Int(Int::S16), CodeType::S16)
            | (Type::Int(Int::S32), CodeType::S32)
            | (Type::Int(Int::S64), CodeType::S64) => true,
            (Type::List(own), CodeType::List(code)) => self.is_same(*own, &code.ty()),
            (Type::Option(own), CodeType::Option(code)) => self.is_same(*own, &code.ty()),
            (Type::Result(ok, err), CodeType::Result(code)) => {
                self.is_same_option(*ok, code.ok().as_ref()) && self.is_same_option(*err, code.err().as_ref())
            }
            (Type::Record(fields), CodeType::Record(code)) => {
                let mut theirs = code.fields();
                theirs.len() == fields.len()
                    && fields.iter().all(|own| {
                        theirs.next().is_some_and(|code| code.name == own.name && self.is_same(own.ty, &code.ty))
                    })
            }
            (Type::Tuple(types), CodeType::Tuple(code)) => {
                let mut theirs = code.types();
                theirs.len() == types.len()
                    && types.iter().all(|own| theirs.next().is_some_and(|code| self.is_same(*own, &code)))
            }
            (Type::Variant(cases), CodeType::Variant(code)) => {
                let mut theirs = code.cases();
                theirs.len() == cases.len()
                    && cases.iter().all(|own| {
                        theirs
                            .next()
                            .is_some_and(|code| code.name == own.name && self.is_same_option(own.ty, code.ty.as_ref()))
                    })
            }
            (Type::Enum(names), CodeType::Enum(code)) => names.iter().map(String::as_str).eq(code.names()),
            (Type::Flags(names), CodeType::Flags(code)) => names.iter().map(String::as_str).eq(code.names()),
            _ => false,
        }
    }

    fn is_same_option(&mut self, own: Option<TypeRef>, code: Option<&CodeType>) -> bool {
        match (own, code) {
            (None, None) => true,
            (Some(own), Some(code)) => self.is_same(own, code),
            _ => false,
        }
    }
}
