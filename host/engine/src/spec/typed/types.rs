//! The types of a component's functions, in one table, and how the canonical ABI lays out their values.
//!
//! A type refers to others by their places in the table, which are below its own: so there are no circles, and types that
//! share parts take no more room than they are written with.

use serde::{Deserialize, Serialize};

use crate::spec::typed::names;

/// The place of a type in the table.
pub(crate) type TypeRef = u32;

/// A type of plain data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Type {
    Bool,
    Int(Int),
    F32,
    F64,
    Char,
    String,
    List(TypeRef),
    Record(Vec<Field>),
    Tuple(Vec<TypeRef>),
    Variant(Vec<Case>),
    Enum(Vec<String>),
    Flags(Vec<String>),
    Option(TypeRef),
    Result(Option<TypeRef>, Option<TypeRef>),
}

/// The width of an integer, and whether it has a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Int {
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
}

impl Int {
    pub(crate) const fn bytes(self) -> u32 {
        match self {
            Int::U8 | Int::S8 => 1,
            Int::U16 | Int::S16 => 2,
            Int::U32 | Int::S32 => 4,
            Int::U64 | Int::S64 => 8,
        }
    }

    /// Returns the least and the largest value.
    pub(crate) const fn range(self) -> (i128, i128) {
        match self {
            Int::U8 => (0, u8::MAX as i128),
            Int::U16 => (0, u16::MAX as i128),
            Int::U32 => (0, u32::MAX as i128),
            Int::U64 => (0, u64::MAX as i128),
            Int::S8 => (i8::MIN as i128, i8::MAX as i128),
            Int::S16 => (i16::MIN as i128, i16::MAX as i128),
            Int::S32 => (i32::MIN as i128, i32::MAX as i128),
            Int::S64 => (i64::MIN as i128, i64::MAX as i128),
        }
    }
}

/// A member of a record, or a parameter of a function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Field {
    /// As WIT writes it.
    pub(crate) name: String,
    pub(crate) ty: TypeRef,
}

/// A case of a variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) ty: Option<TypeRef>,
}

/// The layout of values of a type in a guest's memory, and the number of core values that they are as parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) size: u32,
    pub(crate) align: u32,
    /// Number of core values; [`FLAT_MANY`] for more than can be passed.
    pub(crate) flat: u32,
    /// The offset of a payload in a variant, an option or a result.
    pub(crate) payload: u32,
    /// Size of the discriminant of these.
    pub(crate) tag: u32,
    /// Depth of the nesting.
    depth: u32,
}

/// More core values than a function's parameters may be.
pub(crate) const FLAT_MANY: u32 = 1000;
/// Maximum nesting of a type.
pub(crate) const DEPTH_MAX: u32 = 32;

/// The place of a member of a record or a tuple: in memory, and among the core values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberPlace {
    pub(crate) offset: u32,
    pub(crate) flat: u32,
}

/// The types of a component, with their layouts.
#[derive(Debug)]
pub(crate) struct TypeTable {
    types: Vec<Type>,
    layouts: Vec<Layout>,
    /// The members of each record and tuple.
    members: Vec<Vec<MemberPlace>>,
    /// The order of the names that each type has, by which they are found.
    sorted: Vec<Vec<u32>>,
}

impl TypeTable {
    /// Makes the table; `None` if a type refers to one that is not below it, is empty, or nests too deep.
    pub(crate) fn new(types: Vec<Type>) -> Option<TypeTable> {
        let mut layouts: Vec<Layout> = Vec::with_capacity(types.len());
        for ty in &types {
            let layout = layout(ty, &layouts)?;
            if layout.depth > DEPTH_MAX {
                return None;
            }
            layouts.push(layout);
        }
        let sorted = types.iter().map(order).collect();
        let mut table = TypeTable { types, layouts, members: Vec::new(), sorted };
        table.members = table.types.iter().map(|ty| table.places_in(ty)).collect();
        Some(table)
    }

    fn places_in(&self, ty: &Type) -> Vec<MemberPlace> {
        match ty {
            Type::Record(fields) => self.places(fields.iter().map(|field| field.ty)),
            Type::Tuple(types) => self.places(types.iter().copied()),
            _ => Vec::new(),
        }
    }

    pub(crate) fn ty(&self, at: TypeRef) -> &Type {
        &self.types[at as usize]
    }

    pub(crate) fn layout(&self, at: TypeRef) -> Layout {
        self.layouts[at as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.types.len()
    }

    /// Returns the order of the names of a type's members, cases or flags.
    pub(crate) fn sorted(&self, at: TypeRef) -> &[u32] {
        &self.sorted[at as usize]
    }

    /// Returns how many members may be absent at most in one object.
    pub(crate) fn absent_max(&self) -> u64 {
        let absent = |ty: &Type| match ty {
            Type::Record(fields) => fields.iter().filter(|field| self.may_be_null(field.ty)).count(),
            _ => 0,
        };
        self.types.iter().map(absent).max().unwrap_or(0) as u64
    }

    /// Returns true if these are bytes, which are base64 in JSON.
    pub(crate) fn is_bytes(&self, element: TypeRef) -> bool {
        *self.ty(element) == Type::Int(Int::U8)
    }

    /// Returns true if a value of the type may be `null` in JSON.
    pub(crate) fn may_be_null(&self, at: TypeRef) -> bool {
        matches!(self.ty(at), Type::Option(_))
    }

    /// Returns the places of the members of a record or a tuple, by its type.
    pub(crate) fn members(&self, at: TypeRef) -> &[MemberPlace] {
        &self.members[at as usize]
    }

    /// Returns the places of values that follow one another, as members of a record or parameters.
    pub(crate) fn places(&self, members: impl Iterator<Item = TypeRef>) -> Vec<MemberPlace> {
        let mut end = MemberPlace { offset: 0, flat: 0 };
        members
            .map(|ty| {
                let layout = self.layout(ty);
                let place = MemberPlace { offset: aligned(end.offset, layout.align), ..end };
                end = MemberPlace { offset: place.offset + layout.size, flat: place.flat + layout.flat };
                place
            })
            .collect()
    }
}

fn order(ty: &Type) -> Vec<u32> {
    let names: Vec<&str> = match ty {
        Type::Record(fields) => fields.iter().map(|field| field.name.as_str()).collect(),
        Type::Variant(cases) => cases.iter().map(|case| case.name.as_str()).collect(),
        Type::Enum(names) => names.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    names::sorted(&names)
}

/// Returns the next multiple of `align`, which is a power of two, from `offset` on.
fn aligned(offset: u32, align: u32) -> u32 {
    (offset + align - 1) & !(align - 1)
}

fn scalar(size: u32) -> Layout {
    Layout { size, align: size, flat: 1, payload: 0, tag: 0, depth: 1 }
}

/// The size of a discriminant for so many cases.
pub(crate) fn tag_bytes(cases: usize) -> u32 {
    match cases {
        0..=256 => 1,
        257..=65_536 => 2,
        _ => 4,
    }
}

fn layout(ty: &Type, below: &[Layout]) -> Option<Layout> {
    let of = |at: &TypeRef| below.get(*at as usize).copied();
    let layout = match ty {
        Type::Bool => scalar(1),
        Type::Int(int) => scalar(int.bytes()),
        Type::F32 | Type::Char => scalar(4),
        Type::F64 => scalar(8),
        Type::String => Layout { flat: 2, size: 8, ..scalar(4) },
        Type::List(element) => Layout { flat: 2, size: 8, depth: of(element)?.depth + 1, ..scalar(4) },
        Type::Record(fields) => members(fields.iter().map(|field| of(&field.ty)))?,
        Type::Tuple(types) => members(types.iter().map(of))?,
        Type::Enum(names) if names.is_empty() => return None,
        Type::Enum(names) => scalar(tag_bytes(names.len())),
        Type::Flags(names) => match names.len() {
            1..=8 => scalar(1),
            9..=16 => scalar(2),
            17..=32 => scalar(4),
            _ => return None,
        },
        Type::Variant(cases) if cases.is_empty() => return None,
        Type::Variant(cases) => variant(cases.len(), cases.iter().filter_map(|case| case.ty.as_ref()).map(of))?,
        Type::Option(some) => variant(2, [of(some)].into_iter())?,
        Type::Result(ok, err) => variant(2, [ok, err].into_iter().flatten().map(of))?,
    };
    Some(layout)
}

fn members(all: impl Iterator<Item = Option<Layout>>) -> Option<Layout> {
    let mut sum = Layout { size: 0, align: 1, flat: 0, payload: 0, tag: 0, depth: 0 };
    for member in all {
        let member = member?;
        let offset = sum.size.checked_add(member.align - 1)? & !(member.align - 1);
        sum.size = offset.checked_add(member.size)?;
        sum.align = sum.align.max(member.align);
        sum.flat = (sum.flat + member.flat).min(FLAT_MANY);
        sum.depth = sum.depth.max(member.depth);
    }
    // Records and tuples have at least one member.
    (sum.size > 0).then_some(())?;
    sum.size = sum.size.checked_add(sum.align - 1)? & !(sum.align - 1);
    sum.depth += 1;
    Some(sum)
}

fn variant(cases: usize, payloads: impl Iterator<Item = Option<Layout>>) -> Option<Layout> {
    let tag = tag_bytes(cases);
    let (mut size, mut align, mut flat, mut depth) = (0, 1, 0, 0);
    for payload in payloads {
        let payload = payload?;
        size = payload.size.max(size);
        align = payload.align.max(align);
        flat = payload.flat.max(flat);
        depth = payload.depth.max(depth);
    }
    let offset = aligned(tag, align);
    let whole = align.max(tag);
    let size = offset.checked_add(size)?.checked_add(whole - 1)? & !(whole - 1);
    let flat = (flat + 1).min(FLAT_MANY);
    Some(Layout { size, align: whole, flat, payload: offset, tag, depth: depth + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layouts(types: Vec<Type>) -> Option<Vec<(u32, u32, u32)>> {
        let table = TypeTable::new(types)?;
        Some((0..table.len() as u32).map(|at| table.layout(at)).map(|its| (its.size, its.align, its.flat)).collect())
    }

    #[test]
    fn values_lie_as_the_canonical_abi_says() {
        let field = |ty| Field { name: "a".to_owned(), ty };
        let (u8s, u64s, text) = (0, 1, 2);
        let types = vec![
            Type::Int(Int::U8),
            Type::Int(Int::U64),
            Type::String,
            Type::Record(vec![field(u8s), field(u64s), field(u8s)]),
            Type::Option(u64s),
            Type::Option(u8s),
            Type::Result(Some(text), None),
            Type::Variant((0..257).map(|_| Case { name: "c".to_owned(), ty: None }).collect()),
            Type::Flags((0..9).map(|n| n.to_string()).collect()),
            Type::Tuple(vec![u8s, 5]),
        ];
        let expected = [
            (1, 1, 1),
            (8, 8, 1),
            (8, 4, 2),
            (24, 8, 3),
            (16, 8, 2),
            (2, 1, 2),
            (12, 4, 3),
            (2, 2, 1),
            (2, 2, 1),
            (3, 1, 3),
        ];
        assert_eq!(layouts(types).unwrap(), expected);
    }

    #[test]
    fn a_table_that_is_no_table_is_refused() {
        for types in [
            vec![Type::List(0)],
            vec![Type::List(1), Type::Bool],
            vec![Type::Record(Vec::new())],
            vec![Type::Flags(Vec::new())],
            vec![Type::Flags((0..33).map(|n| n.to_string()).collect())],
            vec![Type::Enum(Vec::new())],
            vec![Type::Variant(Vec::new())],
        ] {
            assert_eq!(layouts(types.clone()), None, "{types:?}");
        }
        let nested = |depth: u32| (0..depth).map(|at| if at == 0 { Type::Bool } else { Type::List(at - 1) }).collect();
        assert!(layouts(nested(DEPTH_MAX)).is_some() && layouts(nested(DEPTH_MAX + 1)).is_none());
    }

    #[test]
    fn what_is_too_large_for_any_memory_is_refused() {
        let mut types = vec![Type::Int(Int::U64)];
        for at in 0..30 {
            types.push(Type::Tuple(vec![at; 4]));
        }
        assert_eq!(layouts(types), None);
    }
}
