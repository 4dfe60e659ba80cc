//! One operation of the API: a method at a path, and what it takes and answers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schemas::reference;
use crate::http::problem::Kind;

/// Whatever is asked may end in one of these; in the last while the host waits for its store at the start.
const EVERYWHERE: [Kind; 5] =
    [Kind::BAD_REQUEST, Kind::UNAUTHORIZED, Kind::CROSS_ORIGIN, Kind::INTERNAL, Kind::STORE_BUSY];
/// So may what asks the store.
const OF_STORE: [Kind; 2] = [Kind::STORE_BROKEN, Kind::OUTCOME_UNKNOWN];
/// So may what reads a body.
const OF_BODY: [Kind; 2] = [Kind::TOO_LARGE, Kind::TOO_SLOW];

pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    members: Map<String, Value>,
    parameters: Vec<Value>,
    answers: Map<String, Value>,
    problems: Vec<Kind>,
}

impl Operation {
    /// `name` is what generated clients call it.
    pub(super) fn new(tag: &str, name: &str, method: &'static str, path: &'static str, summary: &str) -> Operation {
        let members = Map::from_iter([
            ("operationId".to_owned(), json!(name)),
            ("tags".to_owned(), json!([tag])),
            ("summary".to_owned(), json!(summary)),
        ]);
        let (parameters, answers, problems) = (Vec::new(), Map::new(), EVERYWHERE.to_vec());
        Operation { method, path, members, parameters, answers, problems }
    }

    pub(super) fn description(mut self, text: &str) -> Operation {
        self.members.insert("description".to_owned(), json!(text));
        self
    }

    /// A segment of the path.
    pub(super) fn segment(mut self, name: &str, description: &str) -> Operation {
        self.parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": description, "schema": { "type": "string" },
        }));
        self
    }

    pub(super) fn header(mut self, name: &str, description: &str) -> Operation {
        let schema = json!({ "type": "string" });
        self.parameters.push(json!({ "name": name, "in": "header", "description": description, "schema": schema }));
        self
    }

    pub(super) fn query(mut self, parameters: Vec<Value>) -> Operation {
        self.parameters.extend(parameters);
        self
    }

    /// `content` has a schema for each media type.
    pub(super) fn body(mut self, required: bool, description: &str, content: Value) -> Operation {
        let body = json!({ "required": required, "description": description, "content": media(content) });
        self.members.insert("requestBody".to_owned(), body);
        self.problems.extend(OF_BODY);
        self
    }

    pub(super) fn answers(mut self, status: u16, description: &str, content: Value) -> Operation {
        let mut answer = json!({ "description": description });
        if !content.is_null() {
            answer["content"] = media(content);
        }
        self.answers.insert(status.to_string(), answer);
        self
    }

    pub(super) fn problems(mut self, kinds: &[Kind]) -> Operation {
        self.problems.extend(kinds);
        self
    }

    pub(super) fn asks_the_store(self) -> Operation {
        self.problems(&OF_STORE)
    }

    /// It is answered without a token, and only by the host itself.
    pub(super) fn open(mut self) -> Operation {
        self.members.insert("security".to_owned(), json!([{}]));
        self.problems = vec![Kind::CROSS_ORIGIN];
        self
    }

    pub(super) fn document(self) -> Value {
        let Operation { mut members, parameters, mut answers, problems, .. } = self;
        let mut by_status: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for kind in problems {
            by_status.entry(kind.status).or_default().push(format!("`{}`: {}.", kind.code, kind.title));
        }
        for (status, kinds) in by_status {
            let content = json!({ "application/problem+json": { "schema": reference("Problem") } });
            let answer = json!({ "description": kinds.join("\n\n"), "content": content });
            // An answer of its own comes first: a probe's 503 is no problem document.
            answers.entry(status.to_string()).or_insert(answer);
        }
        if !parameters.is_empty() {
            members.insert("parameters".to_owned(), Value::Array(parameters));
        }
        members.insert("responses".to_owned(), Value::Object(answers));
        Value::Object(members)
    }
}

/// Schemas by media type, as OpenAPI has them.
fn media(content: Value) -> Value {
    let Value::Object(content) = content else { return json!({}) };
    content.into_iter().map(|(kind, schema)| (kind, json!({ "schema": schema }))).collect()
}
