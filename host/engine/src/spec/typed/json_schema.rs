//! JSON Schema of payloads and results, from the types of a function.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::spec::typed::signature::Signature;
use crate::spec::typed::types::{Field, Type, TypeRef, TypeTable};

/// The strictness of the schema of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// The schema for users: members as WIT writes them.
    Exact,
    /// The schema for a check where the plugin is not: takes everything that the plugin's own check takes.
    Lenient,
    /// As lenient, but with members as WIT writes them: for tasks of which a key is found by its name.
    LenientAsWit,
}

impl Signature {
    /// Returns the schema of the payloads.
    pub(crate) fn payload_schema(&self, strictness: Strictness) -> Value {
        let mut schemas = Schemas { table: &self.table, strictness, definitions: BTreeMap::new() };
        let mut schema = schemas.members(&self.params);
        let takes_nothing = self.params.iter().all(|param| self.table.may_be_null(param.ty));
        if strictness != Strictness::Exact && takes_nothing {
            schema["type"] = json!(["object", "null"]);
        }
        schemas.whole(schema)
    }

    /// Returns the schema of the results; `None` if they are bytes as they are.
    pub(crate) fn result_schema(&self) -> Option<Value> {
        if self.returns_bytes() {
            return None;
        }
        let mut schemas = Schemas { table: &self.table, strictness: Strictness::Exact, definitions: BTreeMap::new() };
        let schema = self.ok().map_or_else(|| json!({"type": "null"}), |ty| schemas.schema(ty));
        Some(schemas.whole(schema))
    }
}

struct Schemas<'t> {
    table: &'t TypeTable,
    strictness: Strictness,
    /// The schemas of types that have parts: each once, however often it is used.
    definitions: BTreeMap<TypeRef, Value>,
}

impl Schemas<'_> {
    fn whole(self, mut schema: Value) -> Value {
        if !self.definitions.is_empty() {
            let definitions = self.definitions.into_iter().map(|(ty, schema)| (name(ty), schema));
            schema["$defs"] = Value::Object(definitions.collect());
        }
        schema
    }

    fn schema(&mut self, ty: TypeRef) -> Value {
        let table = self.table;
        // A type that has parts or names is written once: written out at each use, a small file would be a schema of gigabytes.
        let is_short = match table.ty(ty) {
            Type::Bool | Type::Int(_) | Type::F32 | Type::F64 | Type::Char | Type::String => true,
            Type::List(element) => table.is_bytes(*element),
            _ => false,
        };
        if is_short {
            return self.written_out(ty);
        }
        if !self.definitions.contains_key(&ty) {
            let schema = self.written_out(ty);
            self.definitions.insert(ty, schema);
        }
        json!({"$ref": format!("#/$defs/{}", name(ty))})
    }

    fn written_out(&mut self, ty: TypeRef) -> Value {
        let table = self.table;
        match table.ty(ty) {
            Type::Bool => json!({"type": "boolean"}),
            Type::Int(int) => {
                let (min, max) = int.range();
                // Both fit one of the kinds of numbers that are written as they are.
                let number = |bound: i128| match (u64::try_from(bound), i64::try_from(bound)) {
                    (Ok(bound), _) => json!(bound),
                    (_, bound) => json!(bound.unwrap_or(i64::MIN)),
                };
                json!({"type": "integer", "minimum": number(min), "maximum": number(max)})
            }
            Type::F32 | Type::F64 => json!({"type": "number"}),
            Type::Char => json!({"type": "string", "minLength": 1, "maxLength": 1}),
            Type::String => json!({"type": "string"}),
            Type::List(element) if table.is_bytes(*element) => match self.strictness {
                Strictness::Exact => json!({"type": "string", "contentEncoding": "base64"}),
                Strictness::Lenient | Strictness::LenientAsWit => json!({"type": "string"}),
            },
            Type::List(element) => json!({"type": "array", "items": self.schema(*element)}),
            Type::Tuple(types) => {
                let items: Vec<Value> = types.iter().map(|ty| self.schema(*ty)).collect();
                json!({"type": "array", "prefixItems": items, "items": false, "minItems": types.len()})
            }
            Type::Record(fields) => self.members(fields),
            Type::Enum(names) => json!({"enum": names}),
            Type::Flags(names) => json!({"type": "array", "items": {"enum": names}, "uniqueItems": true}),
            Type::Option(some) if table.may_be_null(*some) => {
                let some = self.one("some", Some(*some));
                json!({"anyOf": [{"type": "null"}, some]})
            }
            Type::Option(some) => {
                let some = self.schema(*some);
                json!({"anyOf": [{"type": "null"}, some]})
            }
            Type::Variant(cases) => {
                let cases: Vec<Value> = cases
                    .iter()
                    .map(|case| {
                        let mut properties = Map::from_iter([("tag".to_owned(), json!({"const": case.name}))]);
                        let mut required = vec!["tag"];
                        let val = case.ty.map_or_else(|| json!({"type": "null"}), |ty| self.schema(ty));
                        properties.insert("val".to_owned(), val);
                        if case.ty.is_some() {
                            required.push("val");
                        }
                        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
                    })
                    .collect();
                json!({"oneOf": cases})
            }
            Type::Result(ok, err) => json!({"oneOf": [self.one("ok", *ok), self.one("err", *err)]}),
        }
    }

    /// An object with one member.
    fn one(&mut self, name: &str, ty: Option<TypeRef>) -> Value {
        let value = ty.map_or_else(|| json!({"type": "null"}), |ty| self.schema(ty));
        json!({"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": false})
    }

    fn members(&mut self, fields: &[Field]) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in fields {
            let schema = self.schema(field.ty);
            let has_other_name = self.strictness == Strictness::Lenient && field.name.contains('-');
            if !has_other_name && !self.table.may_be_null(field.ty) {
                required.push(field.name.clone());
            }
            if has_other_name {
                properties.insert(field.name.replace('-', "_"), schema.clone());
            }
            properties.insert(field.name.clone(), schema);
        }
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }
}

fn name(ty: TypeRef) -> String {
    format!("t{ty}")
}
