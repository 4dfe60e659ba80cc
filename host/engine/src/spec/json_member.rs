//! One member of a JSON text is set; all other members stay in their order, with their values as they are written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object, in their order. A name may be there more than once.
struct Members(Vec<(String, Box<RawValue>)>);

/// Returns `json` with a string as the member to which the names in `fields` lead, from the outermost on. Objects that are missing on
/// the way are made, and `null` counts as an empty object. Of members of one name the last one counts, as for most readers. Returns
/// `None` if another value is in the way, or if `json` is not JSON.
pub fn with_text(json: &str, fields: &[String], text: &str) -> Option<String> {
    let Some((field, rest)) = fields.split_first() else { return serde_json::to_string(text).ok() };
    let Members(mut members) = match json.trim() {
        "null" => Members(Vec::new()),
        json => serde_json::from_str(json).ok()?,
    };
    let at = members.iter().rposition(|(name, _)| name == field);
    let value = with_text(at.map_or("null", |at| members[at].1.get()), rest, text)?;
    let value = RawValue::from_string(value).ok()?;
    match at {
        Some(at) => members[at].1 = value,
        None => members.push((field.clone(), value)),
    }
    let written =
        members.iter().map(|(name, value)| Some(format!("{}:{}", serde_json::to_string(name).ok()?, value.get())));
    Some(format!("{{{}}}", written.collect::<Option<Vec<String>>>()?.join(",")))
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Members, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_members_stay_in_their_order_also_those_of_one_name() {
        let with = |json: &str| with_text(json, &["at".to_owned()], "now").unwrap();
        assert_eq!(with(r#"{"z": 1, "at": 2, "a": [ 3 ]}"#), r#"{"z":1,"at":"now","a":[ 3 ]}"#);
        assert_eq!(with(r#"{"z": 1, "a": 2, "z": 3}"#), r#"{"z":1,"a":2,"z":3,"at":"now"}"#);
        assert_eq!(with(r#"{"at": 1, "at": 2}"#), r#"{"at":1,"at":"now"}"#);
        let inner = with_text(r#"{"b": 1, "a": {"y": 1, "x": 1}}"#, &["a".to_owned(), "x".to_owned()], "now");
        assert_eq!(inner.unwrap(), r#"{"b":1,"a":{"y":1,"x":"now"}}"#);
    }
}
