//! `/openapi.json`: the API for programs that write clients or call it by its description. What each route takes and answers
//! stands in `openapi/operations.rs`; the schemas come from the structs that are read and written, so that they cannot differ.

mod operation;
mod operations;
mod schemas;

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use operations::operations;
use schemas::Schemas;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

pub(crate) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

fn document() -> Value {
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
        "servers": [{ "url": "/" }],
        // On loopback a token may be absent.
        "security": [{ "token": [] }, {}],
        "tags": [
            { "name": "jobs" },
            { "name": "broadcasts" },
            { "name": "plugins" },
            { "name": "limits" },
            { "name": "nodes" },
            { "name": "host", "description": "For probes, Prometheus and programs that write clients" },
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

    /// The routes in `mod.rs`, as METHOD PATH.
    fn routed() -> BTreeSet<String> {
        let page = include_str!("mod.rs");
        let mut routes = BTreeSet::new();
        for line in page.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
            let (path, handlers) = line.split_once("\", ").unwrap();
            for method in ["get", "post", "put", "delete"] {
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
        let described: BTreeSet<String> = operations.iter().map(|of| format!("{} {}", of.method, of.path)).collect();
        assert_eq!(described.len(), operations.len());
        assert_eq!(described, routed());
    }

    /// Every `$ref` in it.
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
    fn every_schema_is_one_and_is_used() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let there: BTreeSet<String> = schemas.keys().map(|name| format!("#/components/schemas/{name}")).collect();
        assert_eq!(found, there);
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
            let told: BTreeSet<&str> =
                parameters.iter().filter(|of| of["in"] == "path").map(|of| of["name"].as_str().unwrap()).collect();
            assert_eq!(in_path, told, "{name}");
        }
    }
}
