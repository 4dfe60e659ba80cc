//! One member of a JSON text is set; all others stay as they are written.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Returns `json` with a string as the member to which the names in `fields` lead, from the outermost on. Objects that are missing on
/// the way are made, and `null` counts as an empty object. Returns `None` if another value is in the way, or if `json` is not JSON.
pub fn with_text(json: &str, fields: &[String], text: &str) -> Option<String> {
    let Some((field, rest)) = fields.split_first() else { return serde_json::to_string(text).ok() };
    let mut members: BTreeMap<String, Box<RawValue>> = match json.trim() {
        "null" => BTreeMap::new(),
        json => serde_json::from_str(json).ok()?,
    };
    let value = with_text(members.get(field).map_or("null", |value| value.get()), rest, text)?;
    members.insert(field.clone(), RawValue::from_string(value).ok()?);
    serde_json::to_string(&members).ok()
}
