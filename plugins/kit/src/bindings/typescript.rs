//! TypeScript: declarations of what a module sees of a world, in the forms that componentize-qjs 0.4.5 gives to values.

use std::fmt::Write;

use anyhow::{Result, bail};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::{
    Docs, Function, FunctionKind, Handle, InterfaceId, Resolve, Type, TypeDef, TypeDefKind, TypeId, TypeOwner, WorldId,
    WorldItem, WorldKey,
};

/// Words that no parameter may be called; a property may.
const RESERVED: [&str; 13] = [
    "arguments",
    "case",
    "class",
    "default",
    "delete",
    "enum",
    "export",
    "function",
    "import",
    "in",
    "new",
    "package",
    "this",
];

pub(super) fn generate(resolve: &Resolve, world: WorldId, files: &mut Files) -> Result<()> {
    let world = &resolve.worlds[world];
    let declared = Declared { resolve };
    let mut text = "// Written by `wharf bindings typescript`.\n".to_owned();
    for (key, item) in &world.imports {
        let exported = world.exports.contains_key(key);
        text += &declared.module(key, interface(resolve, key, item)?, true, exported);
    }
    for (key, item) in world.exports.iter().filter(|(key, _)| !world.imports.contains_key(*key)) {
        text += &declared.module(key, interface(resolve, key, item)?, false, true);
    }
    files.push("wit.d.ts", text.as_bytes());
    Ok(())
}

fn interface(resolve: &Resolve, key: &WorldKey, item: &WorldItem) -> Result<InterfaceId> {
    match item {
        WorldItem::Interface { id, .. } => Ok(*id),
        WorldItem::Function(_) | WorldItem::Type { .. } => {
            bail!(
                "`{}` stands in the world itself; for TypeScript put it into an interface",
                resolve.name_world_key(key)
            )
        }
    }
}

/// Who has a function: the plugin throws the value of a failure itself, the host's come wrapped.
#[derive(Clone, Copy)]
enum Side {
    Host,
    Plugin,
}

struct Declared<'a> {
    resolve: &'a Resolve,
}

impl Declared<'_> {
    /// One interface: its types, the functions to call as the module's default, those to write as a type.
    fn module(&self, key: &WorldKey, id: InterfaceId, imported: bool, exported: bool) -> String {
        let interface = &self.resolve.interfaces[id];
        let mut text = String::new();
        describe(&mut text, "", &interface.docs, None);
        let _ = writeln!(text, "declare module \"{}\" {{", self.resolve.name_world_key(key));
        for (name, ty) in &interface.types {
            text += &self.named(id, &pascal(name), *ty);
        }
        let free: Vec<_> = interface
            .functions
            .values()
            .filter(|function| matches!(function.kind, FunctionKind::Freestanding | FunctionKind::AsyncFreestanding))
            .collect();
        if exported && let Some(name) = &interface.name {
            let _ = writeln!(text, "  export interface {} {{", pascal(name));
            for function in &free {
                self.function(&mut text, "    ", function, Side::Plugin);
            }
            text.push_str("  }\n");
        }
        let classes: Vec<_> = interface.types.iter().filter(|(_, ty)| self.is_resource(**ty)).collect();
        if imported && !interface.functions.is_empty() {
            text.push_str("  const imported: {\n");
            for (name, ty) in classes {
                self.class(&mut text, id, &pascal(name), *ty);
            }
            for function in free {
                self.function(&mut text, "    ", function, Side::Host);
            }
            text.push_str("  };\n  export default imported;\n");
        }
        text + "}\n"
    }

    fn is_resource(&self, ty: TypeId) -> bool {
        matches!(self.resolve.types[ty].kind, TypeDefKind::Resource)
    }

    /// The type of this name. That of a resource has its methods.
    fn named(&self, id: InterfaceId, name: &str, ty: TypeId) -> String {
        let def = &self.resolve.types[ty];
        let mut text = String::new();
        describe(&mut text, "  ", &def.docs, None);
        match &def.kind {
            TypeDefKind::Resource => {
                let _ = writeln!(text, "  export interface {name} {{");
                for function in self.resolve.interfaces[id].functions.values() {
                    if matches!(function.kind, FunctionKind::Method(of) | FunctionKind::AsyncMethod(of) if of == ty) {
                        self.function(&mut text, "    ", function, Side::Host);
                    }
                }
                text.push_str("    [Symbol.dispose](): void;\n  }\n");
            }
            TypeDefKind::Record(record) => {
                let _ = writeln!(text, "  export interface {name} {{");
                for field in &record.fields {
                    describe(&mut text, "    ", &field.docs, None);
                    let _ = writeln!(text, "    {}: {};", camel(&field.name), self.shown(&field.ty));
                }
                text.push_str("  }\n");
            }
            TypeDefKind::Variant(variant) => {
                let _ = write!(text, "  export type {name} =");
                for case in &variant.cases {
                    text.push('\n');
                    describe(&mut text, "    ", &case.docs, None);
                    let value = case.ty.map(|ty| format!("; val: {}", self.shown(&ty))).unwrap_or_default();
                    let _ = write!(text, "    | {{ tag: \"{}\"{value} }}", case.name);
                }
                text.push_str(";\n");
            }
            _ => {
                let _ = writeln!(text, "  export type {name} = {};", self.unnamed(def));
            }
        }
        text
    }

    /// What `new` makes of a resource, and its static functions.
    fn class(&self, text: &mut String, id: InterfaceId, name: &str, ty: TypeId) {
        let mut inside = String::new();
        for function in self.resolve.interfaces[id].functions.values() {
            match function.kind {
                FunctionKind::Constructor(of) if of == ty => {
                    describe(&mut inside, "      ", &function.docs, None);
                    let _ = writeln!(inside, "      new ({}): {name};", self.parameters(function));
                }
                FunctionKind::Static(of) | FunctionKind::AsyncStatic(of) if of == ty => {
                    self.function(&mut inside, "      ", function, Side::Host);
                }
                _ => {}
            }
        }
        if !inside.is_empty() {
            let _ = write!(text, "    {name}: {{\n{inside}    }};\n");
        }
    }

    fn function(&self, text: &mut String, indent: &str, function: &Function, side: Side) {
        let (mut result, mut thrown) = (function.result.map_or("void".to_owned(), |ty| self.shown(&ty)), None);
        if let Some(Type::Id(id)) = function.result
            && let TypeDefKind::Result(of) = &self.resolve.types[id].kind
        {
            result = of.ok.map_or("void".to_owned(), |ty| self.shown(&ty));
            let value = of.err.map_or("undefined".to_owned(), |ty| self.shown(&ty));
            thrown = Some(match side {
                Side::Host => format!("Error & {{ payload: {value} }}"),
                Side::Plugin => value,
            });
        }
        if function.kind.is_async() {
            result = format!("Promise<{result}>");
        }
        describe(text, indent, &function.docs, thrown.as_deref());
        let name = camel(function.item_name());
        let _ = writeln!(text, "{indent}{name}({}): {result};", self.parameters(function));
    }

    /// Without `self`, which stands before the point.
    fn parameters(&self, function: &Function) -> String {
        let own = matches!(function.kind, FunctionKind::Method(_) | FunctionKind::AsyncMethod(_));
        let shown = function.params.iter().skip(usize::from(own)).map(|parameter| {
            let name = camel(&parameter.name);
            let mark = if RESERVED.contains(&name.as_str()) { "_" } else { "" };
            format!("{name}{mark}: {}", self.shown(&parameter.ty))
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    fn shown(&self, ty: &Type) -> String {
        match ty {
            Type::Bool => "boolean".to_owned(),
            Type::Char | Type::String => "string".to_owned(),
            Type::ErrorContext => "unknown".to_owned(),
            Type::Id(id) => {
                let def = &self.resolve.types[*id];
                def.name.as_ref().map_or_else(|| self.unnamed(def), |name| pascal(name))
            }
            _ => "number".to_owned(),
        }
    }

    fn unnamed(&self, def: &TypeDef) -> String {
        let all = |types: &[Type]| types.iter().map(|ty| self.shown(ty)).collect::<Vec<_>>().join(", ");
        let optional = |ty: &Option<Type>| ty.map_or("void".to_owned(), |ty| self.shown(&ty));
        match &def.kind {
            TypeDefKind::List(Type::U8) | TypeDefKind::FixedLengthList(Type::U8, _) => "Uint8Array".to_owned(),
            TypeDefKind::List(ty) | TypeDefKind::FixedLengthList(ty, _) => format!("Array<{}>", self.shown(ty)),
            TypeDefKind::Map(key, value) => format!("Map<{}, {}>", self.shown(key), self.shown(value)),
            TypeDefKind::Tuple(tuple) => format!("[{}]", all(&tuple.types)),
            TypeDefKind::Option(ty) => format!("{} | null", self.shown(ty)),
            TypeDefKind::Enum(of) => {
                of.cases.iter().map(|case| format!("\"{}\"", case.name)).collect::<Vec<_>>().join(" | ")
            }
            TypeDefKind::Flags(of) => {
                let flags = of.flags.iter().map(|flag| format!("{}: boolean", camel(&flag.name)));
                format!("{{ {} }}", flags.collect::<Vec<_>>().join("; "))
            }
            TypeDefKind::Result(of) => {
                format!("{{ tag: \"ok\"; val: {} }} | {{ tag: \"err\"; val: {} }}", optional(&of.ok), optional(&of.err))
            }
            TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) => self.shown(&Type::Id(*id)),
            TypeDefKind::Type(Type::Id(id)) => self.elsewhere(*id),
            TypeDefKind::Type(ty) => self.shown(ty),
            // Streams and futures, which a module without async functions never sees.
            _ => "unknown".to_owned(),
        }
    }

    /// A type that another interface has, or this one under another name.
    fn elsewhere(&self, id: TypeId) -> String {
        let def = &self.resolve.types[id];
        match (def.owner, &def.name) {
            (TypeOwner::Interface(owner), Some(name)) => {
                let module = self.resolve.id_of(owner).unwrap_or_default();
                format!("import(\"{module}\").{}", pascal(name))
            }
            _ => self.shown(&Type::Id(id)),
        }
    }
}

/// What the WIT says of it, as editors show it.
fn describe(text: &mut String, indent: &str, docs: &Docs, thrown: Option<&str>) {
    let mut lines: Vec<String> = docs.contents.iter().flat_map(|docs| docs.trim().lines()).map(str::to_owned).collect();
    lines.extend(thrown.map(|what| format!("@throws {{{what}}}")));
    for line in &mut lines {
        *line = line.replace("*/", "* /");
    }
    match lines.as_slice() {
        [] => {}
        [line] => {
            let _ = writeln!(text, "{indent}/** {line} */");
        }
        _ => {
            let _ = writeln!(text, "{indent}/**");
            for line in lines {
                let _ = writeln!(text, "{indent}{}", format!(" * {line}").trim_end());
            }
            let _ = writeln!(text, "{indent} */");
        }
    }
}

fn pascal(name: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        first.to_uppercase() + &rest.to_lowercase()
    };
    name.split('-').map(word).collect()
}

fn camel(name: &str) -> String {
    let name = pascal(name);
    let (first, rest) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
    first.to_lowercase() + rest
}
