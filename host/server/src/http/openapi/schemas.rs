//! JSON schemas of the documents, made from the types themselves.

use schemars::generate::{Contract, SchemaSettings};
use schemars::transform::ReplaceBoolSchemas;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::http::problem::Kind;

const PREFIX: &str = "#/components/schemas/";

/// The schemas that operations have used so far.
pub(super) struct Schemas {
    /// Schemas of responses: types as they are serialized.
    responses: SchemaGenerator,
    /// Schemas of requests: types as they are deserialized.
    requests: SchemaGenerator,
    /// Schemas of requests by name, and the one of problems, which are not made from a type.
    named: Map<String, Value>,
}

impl Schemas {
    /// Starts without schemas, except for the one of problems.
    pub(super) fn new() -> Schemas {
        let settings = |contract: Contract| {
            let settings = SchemaSettings::draft2020_12().with(|settings| {
                settings.contract = contract;
                settings.definitions_path = "/components/schemas".into();
                settings.inline_subschemas = settings.contract == Contract::Deserialize;
            });
            // Generators of clients do not know the schema `true`.
            let mut objects = ReplaceBoolSchemas::default();
            objects.skip_additional_properties = true;
            settings.with_transform(objects)
        };
        let named = Map::from_iter([("Problem".to_owned(), problem())]);
        Schemas {
            responses: settings(Contract::Serialize).into_generator(),
            requests: settings(Contract::Deserialize).into_generator(),
            named,
        }
    }

    /// Returns the schema of a response.
    pub(super) fn response<T: JsonSchema>(&mut self) -> Value {
        self.responses.subschema_for::<T>().into()
    }

    /// Returns the schema of a request, under a name of its own.
    pub(super) fn request<T: JsonSchema>(&mut self, name: &str, description: &str) -> Value {
        let mut schema = self.requests.subschema_for::<T>();
        schema.insert("description".to_owned(), json!(description));
        self.named.insert(name.to_owned(), schema.into());
        reference(name)
    }

    /// Returns the parameters of a query.
    pub(super) fn query<T: JsonSchema>(&mut self) -> Vec<Value> {
        let schema = Value::from(self.requests.subschema_for::<T>());
        let Some(Value::Object(members)) = schema.get("properties") else { return Vec::new() };
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let parameter = |(name, schema): (&String, &Value)| {
            let mut schema = schema.clone();
            if let Some(Value::Array(types)) = schema.get("type") {
                schema["type"] = types.iter().find(|one| *one != "null").cloned().unwrap_or_default();
            }
            if let Some(Value::Array(values)) = schema.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let mut parameter = json!({ "name": name, "in": "query", "schema": schema });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            if required.iter().any(|one| one == name) {
                parameter["required"] = json!(true);
            }
            parameter
        };
        members.iter().map(parameter).collect()
    }

    /// Returns all schemas by name.
    pub(super) fn all(mut self) -> Map<String, Value> {
        self.named.extend(self.responses.take_definitions(true));
        self.named
    }
}

/// Returns a reference to the schema with this name.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{PREFIX}{name}") })
}

/// Returns the schema of problem documents. Kinds add members of their own.
fn problem() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let codes: Vec<&str> = Kind::ALL.iter().map(|kind| kind.code).collect();
    json!({
        "description": "A problem document (RFC 9457).",
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": { "type": "string", "format": "uri" },
            "title": text("Title of the kind: it depends only on the code."),
            "status": { "type": "integer" },
            "code": { "type": "string", "examples": codes, "description": "Stable code, for programs. Codes are never changed." },
            "detail": text("What happened, and what to do."),
        },
    })
}
