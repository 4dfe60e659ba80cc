//! A form for the payload of a task, from its schema: one field for each plain property. Whatever is more than that is written as
//! JSON.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::http::problem::Problem;

use super::form::Form;
use super::text::{first_line, line};

/// The number of properties up to which a schema becomes fields.
const FIELDS_MAX: usize = 30;
/// The number of values up to which an `enum` becomes a choice.
const CHOICES_MAX: usize = 100;

/// The kind of a field.
#[derive(Clone, Debug, PartialEq)]
enum Input {
    Text,
    Number { whole: bool },
    Check,
    Choice(Vec<Value>),
}

/// One field.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    name: String,
    input: Input,
    required: bool,
    note: Option<String>,
}

/// Returns the fields of a schema; `None` if its payloads are more than an object of plain values.
pub(super) fn fields(schema: &str) -> Option<Vec<Field>> {
    let schema: Value = serde_json::from_str(schema).ok()?;
    let properties = schema.get("properties")?.as_object()?;
    if schema.get("type")?.as_str()? != "object" || properties.is_empty() || properties.len() > FIELDS_MAX {
        return None;
    }
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|each| each.as_str() == Some(name)));
    let of_property = |(name, of): (&String, &Value)| {
        let note = of.get("description").and_then(Value::as_str).map(|text| first_line(text, 120));
        Some(Field { name: name.clone(), input: input(of)?, required: is_required(name), note })
    };
    let mut fields: Vec<Field> = properties.iter().map(of_property).collect::<Option<_>>()?;
    fields.sort_by_key(|field| !field.required);
    Some(fields)
}

fn input(of: &Value) -> Option<Input> {
    if let Some(values) = of.get("enum").and_then(Value::as_array) {
        return (values.len() <= CHOICES_MAX).then(|| Input::Choice(values.clone()));
    }
    match of.get("type")?.as_str()? {
        "string" => Some(Input::Text),
        "integer" => Some(Input::Number { whole: true }),
        "number" => Some(Input::Number { whole: false }),
        "boolean" => Some(Input::Check),
        _ => None,
    }
}

/// An object of JSON, with each value as it was written: a number may have more digits than a machine's.
pub(super) type Object = BTreeMap<String, Box<RawValue>>;

/// Returns true if a form of these fields gives the payload back that it began with.
pub(super) fn hold(fields: &[Field], object: &Object) -> bool {
    object.iter().all(|(name, raw)| {
        let value: Option<Value> = serde_json::from_str(raw.get()).ok();
        let field = fields.iter().find(|field| field.name == *name);
        match (field.map(|field| (&field.input, field.required)), value) {
            // An empty text that need not be there is left out.
            (Some((Input::Text, required)), Some(Value::String(text))) => {
                (required || !text.is_empty()) && super::text::is_kept(&text)
            }
            (Some((Input::Number { whole }, _)), Some(Value::Number(_))) => {
                !whole || raw.get().bytes().all(|byte| byte == b'-' || byte.is_ascii_digit())
            }
            (Some((Input::Check, _)), Some(Value::Bool(_))) => true,
            (Some((Input::Choice(values), _)), Some(value)) => values.contains(&value),
            _ => false,
        }
    })
}

/// Returns the fields as a part of a form, with the values that a payload has.
pub(super) fn inputs(fields: &[Field], like: Option<&Object>) -> Markup {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let of = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or(Value::Null);
    html! {
        @for field in fields {
            @let name = format!("json.{}", field.name);
            @let raw = like.and_then(|like| like.get(&field.name));
            @let value = raw.map(|raw| of(raw));
            @let value = value.as_ref();
            label class="field" {
                span { (line(&field.name)) @if field.required { span class="dim" { " required" } } }
                @match &field.input {
                    Input::Text => textarea class="one" name=(name) rows="1" required[field.required] spellcheck="false" { "\n" (value.map(plain).unwrap_or_default()) },
                    Input::Number { whole } => input type="number" name=(name) step=(if *whole { "1" } else { "any" }) required[field.required] value=[raw.map(|raw| raw.get())];,
                    Input::Check => select name=(name) { option value="" { "–" } @for word in ["true", "false"] { option value=(word) selected[value.map(plain).as_deref() == Some(word)] { (word) } } },
                    Input::Choice(values) => select name=(name) {
                        option value="" { "–" }
                        @for each in values {
                            option value=(each) selected[value == Some(each)] { (first_line(&plain(each), 80)) }
                        }
                    },
                }
                @if let Some(note) = &field.note { small { (note) } }
            }
        }
    }
}

/// Returns the payload that a form of these fields describes. A field that was left empty is left out, unless it is a required text.
///
/// # Errors
/// If a number is none.
pub(super) fn payload(fields: &[Field], form: &Form) -> Result<Vec<u8>, Problem> {
    let mut object = Object::new();
    for field in fields {
        let Some((_, text)) = form.below("json.").find(|(name, _)| *name == field.name) else { continue };
        let invalid = || {
            let expected = "expected a number or a value of the list";
            Problem::bad_request(format!("`{}`: {expected}, got `{text}`", field.name))
        };
        let json = match &field.input {
            Input::Text if text.is_empty() && !field.required => continue,
            // A browser ends the lines of a text with both characters.
            Input::Text => Value::from(text.replace("\r\n", "\n")).to_string(),
            _ if text.trim().is_empty() => continue,
            Input::Number { .. } | Input::Check | Input::Choice(_) => text.trim().to_owned(),
        };
        object.insert(field.name.clone(), RawValue::from_string(json).map_err(|_| invalid())?);
    }
    serde_json::to_vec(&object).map_err(|error| Problem::bad_request(format!("invalid form: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type": "object", "required": ["text"], "properties": {"text": {"type": "string"},
        "pause-ms": {"type": "integer"}, "sure": {"type": "boolean"}, "fail": {"enum": ["retry", 7]}}}"#;

    #[test]
    fn a_schema_of_plain_properties_is_a_form() {
        let fields = fields(SCHEMA).unwrap();
        let form = |text: &str| Form::parse(text.as_bytes()).unwrap();
        let read =
            |text: &str| payload(&fields, &form(text)).map(|json| serde_json::from_slice::<Value>(&json).unwrap());
        let all = read("json.text=a%0D%0Ab&json.pause-ms=12&json.sure=true&json.fail=7&json.other=1").unwrap();
        assert_eq!(all, serde_json::json!({"text": "a\nb", "pause-ms": 12, "sure": true, "fail": 7}));
        assert_eq!(read("json.text=&json.pause-ms=&json.fail=").unwrap(), serde_json::json!({"text": ""}));
        assert!(read("json.pause-ms=x").is_err());
    }

    #[test]
    fn fields_are_used_only_for_a_payload_that_they_give_back() {
        let fields = fields(SCHEMA).unwrap();
        let object = |text: &str| serde_json::from_str::<Object>(text).unwrap();
        for kept in [
            "{}",
            r#"{"text": ""}"#,
            r#"{"text": "a\n\u202e", "pause-ms": 12345678901234567890123, "sure": false, "fail": 7}"#,
        ] {
            assert!(hold(&fields, &object(kept)), "{kept}");
        }
        for lost in [
            r#"{"other": 1}"#,
            r#"{"text": null}"#,
            r#"{"text": [1]}"#,
            r#"{"text": "a\r"}"#,
            r#"{"text": "\u0000"}"#,
            r#"{"pause-ms": 1.5}"#,
            r#"{"pause-ms": "1"}"#,
            r#"{"sure": "true"}"#,
            r#"{"fail": "other"}"#,
        ] {
            assert!(!hold(&fields, &object(lost)), "{lost}");
        }
        let long = Form::parse(b"json.pause-ms=12345678901234567890123").unwrap();
        assert_eq!(payload(&fields, &long).unwrap(), br#"{"pause-ms":12345678901234567890123}"#);
        let html = inputs(&fields, Some(&object(r#"{"pause-ms": 12345678901234567890123}"#))).into_string();
        assert!(html.contains("value=\"12345678901234567890123\""), "{html}");
    }

    #[test]
    fn what_is_more_than_that_is_json() {
        for schema in [
            r#"{"type": "object", "properties": {"a": {"type": "array"}}}"#,
            r#"{"type": "string"}"#,
            r#"{"type": "object"}"#,
            "{}",
        ] {
            assert_eq!(fields(schema), None, "{schema}");
        }
    }

    #[test]
    fn a_hostile_schema_stays_text() {
        let schema = r#"{"type": "object", "properties": {"\"><script>": {"enum": ["<img src=x onerror=y>", "'\""], "description": "</label><script>"}}}"#;
        let html = inputs(&fields(schema).unwrap(), None).into_string();
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
    }
}
