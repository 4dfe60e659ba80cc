//! `/openapi.json`: the description of the API, for generators of clients. `openapi/operations.rs` lists the operations; the
//! schemas are made from the types that the routes read and write, so they cannot differ.

mod schemas;
mod operation;
mod schedules;
mod operations;

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use operations::operations;
use schemas::Schemas;

use crate::config::PublicUrl;

/// The OpenAPI document of this host, which is made when somebody asks for it.
#[derive(Debug)]
pub(crate) struct Description {
    /// Address of the API: the public one, or the folder of the document itself, which holds below a path prefix, too.
    server: String,
    text: OnceLock<Bytes>,
}

impl Description {
    /// Returns the document of a host with this public address.
    pub(crate) fn new(public_url: Option<&PublicUrl>) -> Description {
        Description { server: public_url.map_or(".", PublicUrl::as_str).to_owned(), text: OnceLock::new() }
    }

    fn text(&self) -> Bytes {
        self.text.get_or_init(|| document(&self.server).to_string().into()).clone()
    }
}

/// Returns the OpenAPI document.
pub(crate) async fn openapi(State(description): State<Arc<Description>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], description.text())
}

fn document(server: &str) -> Value {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations(&mut schemas) {
        let (path, method) = (operation.path, operation.method);
        paths.entry(path).or_insert_with(|| json!({}))[method] = operation.document();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Wharf",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Jobs and broadcasts in WebAssembly sandboxes",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": server }],
        // A host on loopback may do without a token.
        "security": [{ "token": [] }, {}],
        "tags": [
            { "name": "jobs" },
            { "name": "broadcasts" },
            { "name": "plugins" },
            { "name": "limits" },
            { "name": "nodes" },
            { "name": "host", "description": "For probes, Prometheus and generators of clients" },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas.all(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::scope;

    /// Returns the routes in `http.rs`, as METHOD PATH.
    fn routed() -> BTreeSet<String> {
        let page = include_str!("../http.rs");
        let mut routes = BTreeSet::new();
        for line in page.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
            let (path, handlers) = line.split_once("\", ").unwrap();
            for method in ["get", "post", "put", "patch", "delete", "any", "on"] {
                if handlers.contains(&format!("{method}(")) {
                    routes.insert(format!("{method} {path}"));
                }
            }
        }
        routes
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let operations = operations(&mut Schemas::new());
        let described: BTreeSet<String> =
            operations.iter().map(|operation| format!("{} {}", operation.method, operation.path)).collect();
        assert_eq!(described.len(), operations.len());
        assert_eq!(described, routed());
    }

    #[test]
    fn each_method_of_each_route_needs_a_scope_but_for_probes_and_this_document() {
        for routed in routed() {
            let (method, path) = routed.split_once(' ').unwrap();
            let need = scope::need(&method.to_ascii_uppercase().parse().unwrap(), path).unwrap();
            let for_all = ["/openapi.json", "/health", "/ready"].contains(&path);
            assert_eq!(need.is_none(), for_all, "{routed}");
        }
    }

    /// Collects every `$ref` in a document.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    found.insert(reference.clone());
                }
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(members) => members.iter().for_each(|member| references(member, found)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_is_valid_and_is_used() {
        let document = document(".");
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let defined: BTreeSet<String> = schemas.keys().map(|name| format!("#/components/schemas/{name}")).collect();
        assert_eq!(found, defined);
        for (name, schema) in schemas {
            assert!(jsonschema::meta::is_valid(schema), "{name}: {schema}");
        }
    }

    #[test]
    fn each_operation_has_a_name_of_its_own_and_all_segments_of_its_path() {
        let mut names = BTreeSet::new();
        for operation in operations(&mut Schemas::new()) {
            let (path, document) = (operation.path, operation.document());
            let name = document["operationId"].as_str().unwrap().to_owned();
            assert!(names.insert(name.clone()), "{name}");
            let in_path: BTreeSet<&str> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            let none = Vec::new();
            let parameters = document["parameters"].as_array().unwrap_or(&none);
            let described: BTreeSet<&str> =
                parameters.iter().filter(|one| one["in"] == "path").map(|one| one["name"].as_str().unwrap()).collect();
            assert_eq!(in_path, described, "{name}");
        }
    }
}
