//! Functions and types of a contract as text: two types are equal exactly if their texts are.

use wit_parser::{Function, Handle, Param, Resolve, Type, TypeDefKind};

/// Maximum size of a text in bytes. Types can share parts, so that a small component can have a type whose text fills
/// the disk.
const TEXT_BYTES_MAX: usize = 4096;

/// Returns a function's type, such as `func(job: record { id: string, ... }) -> result<list<u8>, ...>`, without the
/// word `async`.
pub(crate) fn function(resolve: &Resolve, function: &Function) -> String {
    let mut text = Text { resolve, text: String::new() };
    text.push("func(");
    text.each(&function.params, |text, Param { name, ty, .. }| {
        // A method's first parameter is the resource itself.
        text.push(name);
        text.push(": ");
        text.ty(ty);
    });
    text.push(")");
    if let Some(result) = &function.result {
        text.push(" -> ");
        text.ty(result);
    }
    if text.full() {
        text.text.truncate(text.text.floor_char_boundary(TEXT_BYTES_MAX));
        text.text.push_str(" ...");
    }
    text.text
}

/// Returns true if the function's type has a stream or a future in it.
pub(crate) fn has_stream(resolve: &Resolve, function: &Function) -> bool {
    let text = self::function(resolve, function);
    text.contains("stream<") || text.contains("future<")
}

struct Text<'a> {
    resolve: &'a Resolve,
    text: String,
}

impl Text<'_> {
    fn full(&self) -> bool {
        self.text.len() > TEXT_BYTES_MAX
    }

    fn push(&mut self, part: &str) {
        self.text.push_str(part);
    }

    fn each<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                self.push(", ");
            }
            write(self, item);
            if self.full() {
                return;
            }
        }
    }

    fn generic(&mut self, name: &str, types: &[Option<&Type>]) {
        self.push(name);
        if types.iter().all(Option::is_none) {
            return;
        }
        self.push("<");
        self.each(types, |text, ty| match ty {
            Some(ty) => text.ty(ty),
            None => text.push("_"),
        });
        self.push(">");
    }

    fn named(&mut self, kind: &str, names: impl Iterator<Item = String>) {
        let names: Vec<String> = names.collect();
        self.push(kind);
        self.push(" { ");
        self.each(&names, |text, name| text.push(name));
        self.push(" }");
    }

    fn ty(&mut self, ty: &Type) {
        if self.full() {
            return;
        }
        match ty {
            Type::Bool => self.push("bool"),
            Type::U8 => self.push("u8"),
            Type::U16 => self.push("u16"),
            Type::U32 => self.push("u32"),
            Type::U64 => self.push("u64"),
            Type::S8 => self.push("s8"),
            Type::S16 => self.push("s16"),
            Type::S32 => self.push("s32"),
            Type::S64 => self.push("s64"),
            Type::F32 => self.push("f32"),
            Type::F64 => self.push("f64"),
            Type::Char => self.push("char"),
            Type::String => self.push("string"),
            Type::ErrorContext => self.push("error-context"),
            Type::Id(id) => {
                let resolve = self.resolve;
                let defined = &resolve.types[*id];
                self.kind(&defined.kind, defined.name.as_deref());
            }
        }
    }

    fn kind(&mut self, kind: &TypeDefKind, name: Option<&str>) {
        match kind {
            TypeDefKind::Record(record) => {
                self.push("record { ");
                self.each(&record.fields, |text, field| {
                    text.push(&field.name);
                    text.push(": ");
                    text.ty(&field.ty);
                });
                self.push(" }");
            }
            TypeDefKind::Variant(variant) => {
                self.push("variant { ");
                self.each(&variant.cases, |text, case| {
                    text.push(&case.name);
                    if let Some(ty) = &case.ty {
                        text.push("(");
                        text.ty(ty);
                        text.push(")");
                    }
                });
                self.push(" }");
            }
            TypeDefKind::Enum(enumeration) => {
                self.named("enum", enumeration.cases.iter().map(|case| case.name.clone()))
            }
            TypeDefKind::Flags(flags) => self.named("flags", flags.flags.iter().map(|flag| flag.name.clone())),
            TypeDefKind::Resource => self.push(name.unwrap_or("resource")),
            TypeDefKind::Handle(Handle::Own(id)) => self.ty(&Type::Id(*id)),
            TypeDefKind::Handle(Handle::Borrow(id)) => self.generic("borrow", &[Some(&Type::Id(*id))]),
            TypeDefKind::Tuple(tuple) => self.generic("tuple", &tuple.types.iter().map(Some).collect::<Vec<_>>()),
            TypeDefKind::Option(ty) => self.generic("option", &[Some(ty)]),
            TypeDefKind::Result(result) if result.err.is_none() => self.generic("result", &[result.ok.as_ref()]),
            TypeDefKind::Result(result) => self.generic("result", &[result.ok.as_ref(), result.err.as_ref()]),
            TypeDefKind::List(ty) => self.generic("list", &[Some(ty)]),
            TypeDefKind::Map(key, value) => self.generic("map", &[Some(key), Some(value)]),
            TypeDefKind::FixedLengthList(ty, length) => {
                self.generic("list", &[Some(ty)]);
                self.push(&format!("[{length}]"));
            }
            TypeDefKind::Future(ty) => {
                self.push("future<");
                ty.iter().for_each(|ty| self.ty(ty));
                self.push(">");
            }
            TypeDefKind::Stream(ty) => {
                self.push("stream<");
                ty.iter().for_each(|ty| self.ty(ty));
                self.push(">");
            }
            TypeDefKind::Type(ty) => self.ty(ty),
            TypeDefKind::Unknown => self.push("unknown"),
        }
    }
}
