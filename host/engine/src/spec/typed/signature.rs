//! The type of one exported function: what its payload and its result are.

use std::sync::Arc;

use crate::spec::typed::types::{FLAT_MANY, Field, Type, TypeRef, TypeTable};

/// The type of a function.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    pub(crate) table: Arc<TypeTable>,
    pub(crate) params: Vec<Field>,
    pub(crate) result: Option<TypeRef>,
}

/// The kinds of return values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Returns {
    /// Nothing, or a value that is the result.
    Value(Option<TypeRef>),
    /// A `result`: either the result, or an error with which the attempt fails.
    Fallible(Option<TypeRef>, Option<TypeRef>),
}

impl Signature {
    pub(crate) fn returns(&self) -> Returns {
        match self.result.map(|ty| self.table.ty(ty)) {
            Some(Type::Result(ok, err)) => Returns::Fallible(*ok, *err),
            _ => Returns::Value(self.result),
        }
    }

    /// Returns the type of the result that a job has.
    pub(crate) fn ok(&self) -> Option<TypeRef> {
        match self.returns() {
            Returns::Value(ty) | Returns::Fallible(ty, _) => ty,
        }
    }

    /// Returns true if the result is bytes as they are, and no JSON.
    pub(crate) fn returns_bytes(&self) -> bool {
        self.ok().is_some_and(|ty| matches!(self.table.ty(ty), Type::List(element) if self.table.is_bytes(*element)))
    }

    /// Returns true if a payload may have a value there, by the segments of a JSON pointer. Within a tuple, a list, or a type with
    /// cases, all is taken to be there.
    pub(crate) fn may_have(&self, segments: &[String]) -> bool {
        let mut fields = &self.params;
        for (place, segment) in segments.iter().enumerate() {
            let Some(field) = fields.iter().find(|field| field.name == *segment) else { return false };
            let mut ty = field.ty;
            if let Type::Option(some) = self.table.ty(ty)
                && !self.table.may_be_null(*some)
            {
                ty = *some;
            }
            match self.table.ty(ty) {
                Type::Record(within) => fields = within,
                Type::List(_)
                | Type::Tuple(_)
                | Type::Option(_)
                | Type::Variant(_)
                | Type::Result(..)
                | Type::Flags(_) => {
                    return true;
                }
                _ => return place + 1 == segments.len(),
            }
        }
        true
    }

    /// Returns how many core values the parameters are.
    pub(crate) fn flat_params(&self) -> u32 {
        self.params.iter().fold(0, |sum, param| (sum + self.table.layout(param.ty).flat).min(FLAT_MANY))
    }

    /// Returns how many core values the result is.
    pub(crate) fn flat_result(&self) -> u32 {
        self.result.map_or(0, |ty| self.table.layout(ty).flat)
    }
}
