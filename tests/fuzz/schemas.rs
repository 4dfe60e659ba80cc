//! Payload schemas of strangers, and the payloads that are checked against them.

use std::time::Duration;

use wharf_engine::spec::payload::{KeyPointer, Schema};

use super::driver::{Target, fuzz};

const TARGET: Target = Target {
    name: "schemas",
    tokens: &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "true",
        "false",
        "null",
        "\0",
        "{\"type\":\"object\"}",
        "\"type\":",
        "\"string\"",
        "\"integer\"",
        "\"$ref\":\"#\"",
        "\"$ref\":\"#/$defs/a\"",
        "\"$defs\":{\"a\":",
        "\"properties\":{\"a\":",
        "\"additionalProperties\":",
        "\"patternProperties\":{\"a\":",
        "\"propertyNames\":",
        "\"items\":",
        "\"prefixItems\":[",
        "\"contains\":",
        "\"allOf\":[",
        "\"anyOf\":[",
        "\"oneOf\":[",
        "\"not\":",
        "\"if\":",
        "\"then\":",
        "\"else\":",
        "\"dependentSchemas\":{\"a\":",
        "\"unevaluatedProperties\":",
        "\"unevaluatedItems\":",
        "\"enum\":[",
        "\"const\":",
        "\"pattern\":\"(a+)+$\"",
        "\"pattern\":\"\\\\p{L}{9}\"",
        "\"format\":\"date-time\"",
        "\"minLength\":1",
        "\"multipleOf\":0.1",
        "\"uniqueItems\":true",
        "\"required\":[\"a\"]",
        "\"$id\":\"a\"",
        "\"$schema\":\"http://json-schema.org/draft-07/schema#\"",
        "\"$dynamicRef\":\"#a\"",
        "\"$vocabulary\":",
        "\"$anchor\":\"a\"",
        "/a",
        "~1",
        "\\ud800",
        "1e400",
    ],
    longest: 16 * 1024,
    cpu: Duration::from_secs(3),
    make: None,
    check,
};

/// A schema, a payload, and where the payload has its key, with zero bytes between them.
fn check(input: &[u8]) -> String {
    let mut parts = input.split(|byte| *byte == 0);
    let schema = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let payload = parts.next().unwrap_or_default();
    let pointer = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let mut came_to = match Schema::parse(&schema) {
        Ok(schema) => match schema.check(payload) {
            Ok(()) => "it fits".to_owned(),
            Err(bad) => bad.to_string(),
        },
        Err(why) => why,
    };
    came_to.push('\n');
    came_to.push_str(&match KeyPointer::parse(&pointer).map(|pointer| pointer.find(payload)) {
        Ok(Ok(key)) => format!("key {}", key.is_some()),
        Ok(Err(bad)) => bad.to_string(),
        Err(why) => why,
    });
    // Ten errors of a payload, each with what it quotes of the payload and of the schema.
    assert!(came_to.len() <= 64 * 1024 + 20 * input.len(), "{} bytes of text", came_to.len());
    came_to.lines().map(gist).collect::<Vec<_>>().join("\n")
}

/// What a line says, without the values that it begins with and those that it ends with.
fn gist(line: &str) -> String {
    let says = [" is ", " are ", " has ", " does ", " do ", " was ", " may ", " refers ", " uses "];
    let from = says.iter().filter_map(|word| line.rfind(word)).max().unwrap_or(0);
    line[from..].chars().take(24).collect()
}

#[test]
fn holds() {
    fuzz(module_path!(), &TARGET);
}
