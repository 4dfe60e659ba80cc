//! Estimates how many checks a payload takes against a schema, before the payload is parsed: at most as many as this.
//!
//! A schema says for each level of a payload what it costs to check one value there; a single pass over the payload's
//! bytes counts the values of each level. The product is an upper bound: it takes the most that may apply to any value
//! of a level for each of them.

use regex_syntax::hir::{Hir, HirKind};
use serde_json::Value;

/// `serde_json` reads nothing that is nested deeper.
pub(crate) const PAYLOAD_DEPTH_MAX: usize = 128;
/// Bytes of a text that are searched, compared or measured in the time of one check.
const BYTES_PER_CHECK: u64 = 16;
/// Comparisons of a value with others by `uniqueItems`: arrays of up to 15 items are compared in pairs.
const UNIQUE_COMPARISONS: u64 = 16;
/// Positions of a regular expression for which one byte of a text costs one check.
const POSITIONS_PER_CHECK: u64 = 4;
/// Positions of a pattern that this cannot read: a pattern has no more states within the bound of its compiled size.
const UNREADABLE_POSITIONS: u64 = 8192;
/// Checks for each byte of a string that is itself compiled, as a regular expression or a URI.
const FORMAT_BYTE_CHECKS: u64 = 1;
const REGEX_BYTE_CHECKS: u64 = 4096;

/// Cost of one value where a schema applies to it, in checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ValueCost {
    pub(crate) value: u64,
    /// In addition for an object, and for each of its members.
    pub(crate) object: u64,
    pub(crate) member: u64,
    /// For each byte of a string, in parts of `BYTES_PER_CHECK`.
    pub(crate) byte: u64,
    /// For each byte of a member's name, in parts of `BYTES_PER_CHECK`.
    pub(crate) name_byte: u64,
    /// For each value below an array.
    pub(crate) below: u64,
}

impl ValueCost {
    /// Adds `other`, as often as it applies.
    pub(crate) fn add(&mut self, other: &ValueCost, times: u64) {
        for (sum, each) in self.parts().into_iter().zip(other.clone().parts()) {
            *sum = sum.saturating_add(each.saturating_mul(times));
        }
    }

    /// Takes the larger of each part.
    pub(crate) fn raise_to(&mut self, other: &ValueCost) {
        for (most, each) in self.parts().into_iter().zip(other.clone().parts()) {
            *most = (*most).max(*each);
        }
    }

    fn parts(&mut self) -> [&mut u64; 6] {
        [&mut self.value, &mut self.object, &mut self.member, &mut self.byte, &mut self.name_byte, &mut self.below]
    }

    /// Counts one keyword of a schema, without the schemas in it.
    pub(crate) fn count_keyword(&mut self, keyword: &str, value: &Value) {
        let names = |value: &Value| value.as_array().map_or(0, |all| all.len() as u64);
        self.value += 1;
        match (keyword, value) {
            ("enum", Value::Array(all)) if all.len() > 10 && all.iter().all(Value::is_string) => {}
            ("enum" | "const", value) => self.value += size(value),
            ("required", value) => self.object += names(value),
            ("dependentRequired" | "dependencies", Value::Object(all)) => {
                self.object += all.values().map(|needed| 1 + names(needed)).sum::<u64>();
            }
            ("dependentSchemas", Value::Object(all)) => self.object += all.len() as u64,
            ("properties", Value::Object(all)) => {
                self.object += all.len() as u64;
                self.member += 1;
            }
            ("patternProperties", Value::Object(all)) => {
                self.member += all.len() as u64;
                self.name_byte += all.keys().map(|pattern| pattern_byte(pattern)).sum::<u64>();
            }
            ("pattern", Value::String(pattern)) => self.byte += pattern_byte(pattern),
            ("additionalProperties" | "propertyNames" | "unevaluatedProperties", _) => self.member += 1,
            ("minLength" | "maxLength", _) => self.byte += 1,
            ("format", Value::String(format)) => {
                let checks = if format == "regex" { REGEX_BYTE_CHECKS } else { FORMAT_BYTE_CHECKS };
                self.byte += checks * BYTES_PER_CHECK;
            }
            ("contentEncoding" | "contentMediaType" | "contentSchema", _) => self.byte += BYTES_PER_CHECK,
            ("uniqueItems", Value::Bool(true)) => self.below += UNIQUE_COMPARISONS,
            _ => {}
        }
    }
}

/// Returns the number of comparisons that a value takes at most.
fn size(value: &Value) -> u64 {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<u64>(),
        Value::Object(fields) => 1 + fields.values().map(|value| 1 + size(value)).sum::<u64>(),
        Value::String(text) => 1 + text.len() as u64 / BYTES_PER_CHECK,
        _ => 1,
    }
}

/// Returns what matching costs for each byte of a text, in parts of `BYTES_PER_CHECK`. A search may go through all
/// positions of the pattern at each byte.
fn pattern_byte(pattern: &str) -> u64 {
    let positions = regex_syntax::parse(pattern).map_or(UNREADABLE_POSITIONS, |hir| positions(&hir));
    positions.saturating_mul(BYTES_PER_CHECK / POSITIONS_PER_CHECK)
}

fn positions(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Capture(capture) => positions(&capture.sub),
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            positions(&repetition.sub).saturating_mul(most.into())
        }
        HirKind::Concat(all) | HirKind::Alternation(all) => {
            all.iter().map(positions).fold(0, |sum: u64, each| sum.saturating_add(each))
        }
    }
}

/// The values of one level of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Level {
    values: u64,
    objects: u64,
    arrays: u64,
    members: u64,
    /// Bytes of strings and of members' names. A name counts to the level of its value, one below its object.
    bytes: u64,
}

/// Cost of a schema, level by level of a payload.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckCost {
    pub(crate) levels: Vec<ValueCost>,
}

impl CheckCost {
    /// Returns how many checks a payload takes at most. What is not JSON is only counted: parsing refuses it.
    pub(crate) fn of(&self, payload: &[u8]) -> u64 {
        let levels = levels(payload);
        let mut below = levels.iter().fold(0, |sum, level| sum + level.values + level.bytes / BYTES_PER_CHECK);
        let mut checks = 0_u64;
        for (depth, (cost, level)) in self.levels.iter().zip(&levels).enumerate() {
            let names = levels.get(depth + 1).map_or(0, |next| next.bytes);
            below -= level.values + level.bytes / BYTES_PER_CHECK;
            let parts = [
                (cost.value, level.values),
                (cost.object, level.objects),
                (cost.member, level.members),
                (cost.byte, level.bytes.div_ceil(BYTES_PER_CHECK)),
                (cost.name_byte, names.div_ceil(BYTES_PER_CHECK)),
                (if level.arrays > 0 { cost.below } else { 0 }, below),
            ];
            for (each, count) in parts {
                checks = checks.saturating_add(each.saturating_mul(count));
            }
        }
        checks
    }
}

/// Bytes that one value takes at most when it is parsed. An array that is full gets twice its room, and has the old one meanwhile.
const PARSED_VALUE_BYTES: u64 = 3 * size_of::<Value>() as u64;
/// Bytes that a member of an object takes at most besides its value: its name, and what the object reserves for it.
const PARSED_MEMBER_BYTES: u64 = 96;

/// Returns how many bytes a payload takes at most when it is parsed: an upper bound, found in one pass over its bytes.
pub(crate) fn parsed_bytes(payload: &[u8]) -> u64 {
    let of_level = |level: &Level| level.values * PARSED_VALUE_BYTES + level.members * PARSED_MEMBER_BYTES;
    levels(payload).iter().map(of_level).sum::<u64>() + payload.len() as u64
}

/// Counts the values of a payload by their level.
fn levels(payload: &[u8]) -> Vec<Level> {
    let mut levels = vec![Level::default()];
    let mut depth = 0;
    let mut bytes = payload.iter().copied().enumerate();
    // The values that need no mark of their own end where something else begins.
    let mut in_scalar = false;
    while let Some((at, byte)) = bytes.next() {
        let was_in_scalar = std::mem::take(&mut in_scalar);
        match byte {
            b'"' => {
                let mut end = at + 1;
                while let Some((at, byte)) = bytes.next() {
                    end = at;
                    match byte {
                        b'"' => break,
                        b'\\' => _ = bytes.next(),
                        _ => {}
                    }
                }
                levels[depth].values += 1;
                levels[depth].bytes += (end - at - 1) as u64;
            }
            b'{' | b'[' => {
                levels[depth].values += 1;
                if byte == b'{' {
                    levels[depth].objects += 1;
                } else {
                    levels[depth].arrays += 1;
                }
                depth = (depth + 1).min(PAYLOAD_DEPTH_MAX);
                if depth == levels.len() {
                    levels.push(Level::default());
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            // The string before it was a member's name.
            b':' => {
                levels[depth].values = levels[depth].values.saturating_sub(1);
                if depth > 0 {
                    levels[depth - 1].members += 1;
                }
            }
            b',' | b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => {
                levels[depth].values += u64::from(!was_in_scalar);
                in_scalar = true;
            }
        }
    }
    levels
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_counted_by_their_level() {
        let found = levels(br#" {"a": [1, -2.5e3, true], "b\"": {}, "c": "d\\"} "#);
        let level = |values, objects, arrays, members, bytes| Level { values, objects, arrays, members, bytes };
        assert_eq!(found, [level(1, 1, 0, 3, 0), level(3, 1, 1, 0, 8), level(3, 0, 0, 0, 0)]);
        assert_eq!(levels(b"17")[0].values, 1);
        for odd in [&b""[..], b"\"", b"\"\\", b"]]]}", b":::", &[b'['; 1000]] {
            assert!(levels(odd).len() <= PAYLOAD_DEPTH_MAX + 1, "not JSON, and yet counted");
        }
    }

    #[test]
    fn what_is_parsed_takes_more_the_more_values_there_are() {
        let text = json!("x".repeat(1 << 20)).to_string();
        assert!(parsed_bytes(text.as_bytes()) < (1 << 20) + 200);
        let numbers = format!("[{}0]", "0,".repeat(1 << 19));
        let parsed: Value = serde_json::from_str(&numbers).unwrap();
        let room = parsed.as_array().unwrap().capacity() * size_of::<Value>();
        let bytes = parsed_bytes(numbers.as_bytes()) as usize;
        assert!(bytes >= room * 3 / 2 && bytes <= 60 * numbers.len(), "{bytes} for {room}");
        assert!(parsed_bytes(br#"{"a": {"b": 1}}"#) > 2 * PARSED_MEMBER_BYTES);
    }

    #[test]
    fn keywords_cost_what_they_compare() {
        let cost = |keyword: &str, value: Value| {
            let mut cost = ValueCost::default();
            cost.count_keyword(keyword, &value);
            cost
        };
        assert_eq!(cost("type", json!("object")).value, 1);
        assert_eq!(cost("enum", json!([1, [2, 3]])).value, 1 + 5);
        assert_eq!(cost("enum", json!((0..99).map(|n| n.to_string()).collect::<Vec<_>>())).value, 1, "a hash set");
        assert_eq!(cost("required", json!(["a", "b"])).object, 2);
        let byte = |pattern: &str| cost("pattern", json!(pattern)).byte * POSITIONS_PER_CHECK / BYTES_PER_CHECK;
        assert_eq!((byte("abc"), byte("^[a-z]{1,64}$"), byte("(a|b){20}{20}")), (3, 66, 400));
        assert_eq!(byte("(?=a)"), UNREADABLE_POSITIONS);
        let names = cost("patternProperties", json!({"(a|b){20}{20}": {}}));
        assert_eq!((names.byte, names.name_byte * POSITIONS_PER_CHECK / BYTES_PER_CHECK), (0, 400));
        assert!(cost("uniqueItems", json!(false)).below == 0 && cost("uniqueItems", json!(true)).below > 0);
    }

    #[test]
    fn patterns_of_names_are_counted_by_the_bytes_of_the_names() {
        let mut of_object = ValueCost::default();
        of_object.count_keyword("patternProperties", &json!({"([ab]{1,60}){60}c": {}}));
        let cost = CheckCost { levels: vec![of_object] };
        let payload = |name_bytes: usize| format!(r#"{{"{}": 1}}"#, "a".repeat(name_bytes)).into_bytes();
        let (short, long) = (cost.of(&payload(16)), cost.of(&payload(1 << 20)));
        assert!(long > short * 10_000, "{short} checks, {long} checks");
        assert!(long > wharf_core::bounds::SCHEMA_CHECKS_MAX);
    }
}
