//! The schemas of the documents, from the structs themselves.

use schemars::generate::{Contract, SchemaSettings};
use schemars::transform::ReplaceBoolSchemas;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::http::problem::Kind;

const PLACE: &str = "#/components/schemas/";

pub(super) struct Schemas {
    /// Of what is answered: as it is written.
    answered: SchemaGenerator,
    /// Of what is asked: as it is read.
    asked: SchemaGenerator,
    /// Those of what is asked, by name, and the one that comes from no struct.
    named: Map<String, Value>,
}

impl Schemas {
    pub(super) fn new() -> Schemas {
        let settings = |contract: Contract| {
            let settings = SchemaSettings::draft2020_12().with(|settings| {
                settings.contract = contract;
                settings.definitions_path = "/components/schemas".into();
                settings.inline_subschemas = settings.contract == Contract::Deserialize;
            });
            // Makers of clients know no schema that is `true`.
            let mut objects = ReplaceBoolSchemas::default();
            objects.skip_additional_properties = true;
            settings.with_transform(objects)
        };
        let named = Map::from_iter([("Problem".to_owned(), problem())]);
        Schemas {
            answered: settings(Contract::Serialize).into_generator(),
            asked: settings(Contract::Deserialize).into_generator(),
            named,
        }
    }

    /// What a route answers.
    pub(super) fn answer<T: JsonSchema>(&mut self) -> Value {
        self.answered.subschema_for::<T>().into()
    }

    /// What a route is asked, under a name of its own.
    pub(super) fn asked<T: JsonSchema>(&mut self, name: &str, description: &str) -> Value {
        let mut schema = self.asked.subschema_for::<T>();
        schema.insert("description".to_owned(), json!(description));
        self.named.insert(name.to_owned(), schema.into());
        reference(name)
    }

    /// The parameters of a query, each of which may be absent.
    pub(super) fn query<T: JsonSchema>(&mut self) -> Vec<Value> {
        let schema = Value::from(self.asked.subschema_for::<T>());
        let Some(Value::Object(members)) = schema.get("properties") else { return Vec::new() };
        let parameter = |(name, schema): (&String, &Value)| {
            let mut schema = schema.clone();
            if let Some(Value::Array(types)) = schema.get("type") {
                schema["type"] = types.iter().find(|one| *one != "null").cloned().unwrap_or_default();
            }
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let mut parameter = json!({ "name": name, "in": "query", "schema": schema });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            parameter
        };
        members.iter().map(parameter).collect()
    }

    pub(super) fn all(mut self) -> Map<String, Value> {
        self.named.extend(self.answered.take_definitions(true));
        self.named
    }
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{PLACE}{name}") })
}

/// A problem document. Kinds add members of their own.
fn problem() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let codes: Vec<&str> = Kind::ALL.iter().map(|kind| kind.code).collect();
    json!({
        "description": "What went wrong, as RFC 9457 has it.",
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": { "type": "string", "format": "uri" },
            "title": text("The same for all problems of this code."),
            "status": { "type": "integer" },
            "code": { "type": "string", "examples": codes, "description": "What programs go by. Codes are never changed." },
            "detail": text("What happened, and what to do."),
        },
    })
}
