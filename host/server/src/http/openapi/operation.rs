//! One operation of the API: a method at a path, its parameters and its responses.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schemas::reference;
use crate::http::problem::Kind;
use crate::http::scope::{self, Need};

/// Problems of every operation; `store-busy` while the host waits for its store at the start.
const EVERYWHERE: [Kind; 7] = [
    Kind::BAD_REQUEST,
    Kind::UNAUTHORIZED,
    Kind::CROSS_ORIGIN,
    Kind::PROXY_UNTRUSTED,
    Kind::INTERNAL,
    Kind::STORE_BUSY,
    Kind::TOO_MANY_CONNECTIONS,
];
/// Problems of every operation that uses the store.
const OF_STORE: [Kind; 3] = [Kind::STORE_BROKEN, Kind::STORE_REFUSED, Kind::OUTCOME_UNKNOWN];
/// Problems of every operation that reads a body.
const OF_BODY: [Kind; 2] = [Kind::TOO_LARGE, Kind::TOO_SLOW];

/// An operation as OpenAPI describes it.
pub(super) struct Operation {
    /// HTTP method, in lower case.
    pub(super) method: &'static str,
    /// Path with its segments in braces.
    pub(super) path: &'static str,
    members: Map<String, Value>,
    parameters: Vec<Value>,
    responses: Map<String, Value>,
    problems: Vec<Kind>,
}

impl Operation {
    /// Starts an operation; `name` is the name of its function in generated clients.
    pub(super) fn new(tag: &str, name: &str, method: &'static str, path: &'static str, summary: &str) -> Operation {
        let members = Map::from_iter([
            ("operationId".to_owned(), json!(name)),
            ("tags".to_owned(), json!([tag])),
            ("summary".to_owned(), json!(summary)),
        ]);
        let (parameters, responses, problems) = (Vec::new(), Map::new(), EVERYWHERE.to_vec());
        Operation { method, path, members, parameters, responses, problems }
    }

    /// Sets the description, in Markdown.
    pub(super) fn description(mut self, text: &str) -> Operation {
        self.members.insert("description".to_owned(), json!(text));
        self
    }

    /// Adds a segment of the path.
    pub(super) fn segment(mut self, name: &str, description: &str) -> Operation {
        self.parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": description, "schema": { "type": "string" },
        }));
        self
    }

    /// Adds a request header.
    pub(super) fn header(mut self, name: &str, description: &str) -> Operation {
        let schema = json!({ "type": "string" });
        self.parameters.push(json!({ "name": name, "in": "header", "description": description, "schema": schema }));
        self
    }

    /// Adds the parameters of a query.
    pub(super) fn query(mut self, parameters: Vec<Value>) -> Operation {
        self.parameters.extend(parameters);
        self
    }

    /// Sets the request body; `content` has a schema for each media type.
    pub(super) fn body(mut self, required: bool, description: &str, content: Value) -> Operation {
        let body = json!({ "required": required, "description": description, "content": media(content) });
        self.members.insert("requestBody".to_owned(), body);
        self.problems.extend(OF_BODY);
        self
    }

    /// Adds a response; `content` has a schema for each media type, or is null if the response has no body.
    pub(super) fn response(mut self, status: u16, description: &str, content: Value) -> Operation {
        let mut response = json!({ "description": description });
        if !content.is_null() {
            response["content"] = media(content);
        }
        self.responses.insert(status.to_string(), response);
        self
    }

    /// Adds problems of this operation.
    pub(super) fn problems(mut self, kinds: &[Kind]) -> Operation {
        self.problems.extend(kinds);
        self
    }

    /// Adds the problems of the store.
    pub(super) fn uses_store(self) -> Operation {
        self.problems(&OF_STORE)
    }

    /// Returns what the operation needs of a token.
    pub(super) fn need(&self) -> Option<Need> {
        let method = self.method.to_ascii_uppercase().parse().ok()?;
        scope::need(&method, self.path.replace("/broadcasts/{id}", "/broadcasts/{topic}").as_str()).ok().flatten()
    }

    /// Says what the operation needs of a token.
    pub(super) fn needs(mut self, need: Need) -> Operation {
        self.members.insert("x-scope".to_owned(), json!(need.scope()));
        self.members.insert("x-by-key".to_owned(), json!(need.is_by_key()));
        self.problems(&[Kind::FORBIDDEN])
    }

    /// Marks an operation that needs neither a token nor the store.
    pub(super) fn open(mut self) -> Operation {
        self.members.insert("security".to_owned(), json!([{}]));
        self.problems = vec![Kind::BAD_REQUEST, Kind::CROSS_ORIGIN];
        self
    }

    /// Returns the operation as a JSON document.
    pub(super) fn document(self) -> Value {
        let Operation { mut members, parameters, mut responses, problems, .. } = self;
        let mut by_status: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for kind in problems {
            by_status.entry(kind.status).or_default().push(format!("`{}`: {}.", kind.code, kind.title));
        }
        for (status, kinds) in by_status {
            let content = json!({ "application/problem+json": { "schema": reference("Problem") } });
            let response = json!({ "description": kinds.join("\n\n"), "content": content });
            // A response of the operation itself has precedence: a probe's 503 is not a problem document.
            responses.entry(status.to_string()).or_insert(response);
        }
        if !parameters.is_empty() {
            members.insert("parameters".to_owned(), Value::Array(parameters));
        }
        members.insert("responses".to_owned(), Value::Object(responses));
        Value::Object(members)
    }
}

/// Puts each schema into the media type object of OpenAPI.
fn media(content: Value) -> Value {
    let Value::Object(content) = content else { return json!({}) };
    content.into_iter().map(|(kind, schema)| (kind, json!({ "schema": schema }))).collect()
}
