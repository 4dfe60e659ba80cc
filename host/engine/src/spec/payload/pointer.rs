//! Finds a value in JSON text by a pointer, and returns its text as it is written: numbers are not parsed.

use serde::de::IgnoredAny;

/// Maximum number of nested fields in a pointer: each costs a pass over the value that it is in.
const FIELDS_MAX: usize = 32;

/// A JSON pointer (RFC 6901) to a field, such as "/tenant".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    text: String,
    /// With escapes resolved.
    fields: Vec<String>,
}

/// Why the value cannot be found without doubt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FindError {
    NotJson(String),
    /// The object at `at` has this member more than once. Some readers take the first, some the last.
    Twice {
        at: String,
        member: String,
    },
}

impl Pointer {
    pub(super) fn parse(text: &str) -> Result<Pointer, String> {
        let escaped = |text: &str| text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let Some(fields) = text.strip_prefix('/').filter(|fields| escaped(fields)) else {
            return Err(format!(
                "invalid JSON pointer `{text}`: expected `/` before the name of each field, such as \"/tenant\" or \"/user/id\""
            ));
        };
        let fields: Vec<String> = fields.split('/').map(|field| field.replace("~1", "/").replace("~0", "~")).collect();
        if fields.len() > FIELDS_MAX {
            return Err(format!(
                "invalid JSON pointer `{text}`: it names {} fields; the limit is {FIELDS_MAX}",
                fields.len()
            ));
        }
        Ok(Pointer { text: text.to_owned(), fields })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the text of the value in `json`; `None` if there is none. Checks that `json` is valid.
    pub(super) fn find<'t>(&self, json: &'t [u8]) -> Result<Option<&'t str>, FindError> {
        let text = std::str::from_utf8(json)
            .map_err(|error| FindError::NotJson(format!("byte {} is not UTF-8", error.valid_up_to())))?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| FindError::NotJson(error.to_string()))?;
        self.find_in_valid(text)
    }

    /// Returns the text of the value in `text`, which must be valid JSON; `None` if there is none. Nothing here recurses with
    /// the depth of the text.
    pub(super) fn find_in_valid<'t>(&self, text: &'t str) -> Result<Option<&'t str>, FindError> {
        let mut value = text.trim_ascii();
        for (depth, field) in self.fields.iter().enumerate() {
            let found = match value.as_bytes().first() {
                Some(b'{') => member(value, field).map_err(|Twice| FindError::Twice {
                    at: self.text.split('/').take(depth + 1).collect::<Vec<_>>().join("/"),
                    member: field.clone(),
                })?,
                Some(b'[') => index(field).and_then(|index| element(value, index)),
                _ => None,
            };
            match found {
                Some(found) => value = found,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }
}

struct Twice;

/// Finds the value of a member of an object. Names are compared with escapes resolved.
fn member<'t>(object: &'t str, name: &str) -> Result<Option<&'t str>, Twice> {
    let (mut rest, mut found) = (inside(object), None);
    while rest.starts_with('"') {
        let (key, after) = rest.split_at(value_bytes(rest));
        let value = after.trim_ascii_start()[1..].trim_ascii_start();
        let (value, after) = value.split_at(value_bytes(value));
        if is_name(key, name) && found.replace(value).is_some() {
            return Err(Twice);
        }
        rest = next(after);
    }
    Ok(found)
}

fn element(array: &str, index: usize) -> Option<&str> {
    let mut rest = inside(array);
    for _ in 0..index {
        // The index is a stranger's and may be far past the end.
        if is_end(rest) {
            return None;
        }
        rest = next(&rest[value_bytes(rest)..]);
    }
    Some(&rest[..value_bytes(rest)]).filter(|_| !is_end(rest))
}

fn index(field: &str) -> Option<usize> {
    let plain = field == "0" || !field.starts_with(['0', '+']);
    field.parse().ok().filter(|_| plain)
}

/// Returns what follows the opening bracket of an object or an array.
fn inside(container: &str) -> &str {
    container[1..].trim_ascii_start()
}

/// Returns what follows the comma behind a value; without a comma, the closing bracket and all after it.
fn next(after: &str) -> &str {
    let after = after.trim_ascii_start();
    after.strip_prefix(',').map_or(after, str::trim_ascii_start)
}

/// Returns true if what follows a value, or the opening bracket, is the end of the container.
fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with([']', '}'])
}

/// Returns true if a JSON string is `name`. A string with half of a surrogate pair is not a name.
fn is_name(string: &str, name: &str) -> bool {
    let plain = &string[1..string.len() - 1];
    if plain.contains('\\') {
        serde_json::from_str::<String>(string).is_ok_and(|read| read == name)
    } else {
        plain == name
    }
}

/// Returns the size in bytes of the value that `text` starts with.
fn value_bytes(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(b'"') => string_bytes(bytes),
        Some(b'{' | b'[') => container_bytes(bytes),
        _ => bytes.iter().position(|byte| b",]} \t\r\n".contains(byte)).unwrap_or(bytes.len()),
    }
}

fn string_bytes(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn container_bytes(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0u64);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at += string_bytes(&bytes[at..]) - 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'t>(pointer: &str, json: &'t str) -> Result<Option<&'t str>, FindError> {
        Pointer::parse(pointer).unwrap().find(json.as_bytes())
    }

    #[test]
    fn an_index_far_past_the_end_costs_no_more_than_the_array() {
        let far = format!("/{}", usize::MAX);
        assert!(matches!(find(&far, "[1,2]"), Ok(None)) && matches!(find(&far, "[]"), Ok(None)));
        assert!(matches!(find("/1", "[[],{}]"), Ok(Some("{}"))) && matches!(find("/2", "[[],{}]"), Ok(None)));
    }

    #[test]
    fn a_value_is_found_as_it_is_written() {
        let text = r#" { "a\"}" : [1, {"b" : [ ] , "n" :-1.50E+2 } ,"x"], "s": "\"]}\\" , "": 0, "o":{} } "#;
        for (pointer, value) in [
            ("/a\"}/0", Some("1")),
            ("/a\"}/1", Some(r#"{"b" : [ ] , "n" :-1.50E+2 }"#)),
            ("/a\"}/1/b", Some("[ ]")),
            ("/a\"}/1/b/0", None),
            ("/a\"}/1/n", Some("-1.50E+2")),
            ("/a\"}/2", Some("\"x\"")),
            ("/a\"}/3", None),
            ("/a\"}/01", None),
            ("/a\"}/+1", None),
            ("/s", Some(r#""\"]}\\""#)),
            ("/s/0", None),
            ("/", Some("0")),
            ("/o/a", None),
            ("/b", None),
        ] {
            assert_eq!(find(pointer, text), Ok(value), "{pointer}");
        }
        assert_eq!(find("/a~1b~01", r#"{"a/b~1":7}"#), Ok(Some("7")));
    }

    #[test]
    fn it_finds_what_a_reader_of_all_of_the_text_finds() {
        let texts = [
            r#"{"a":{"b":[true,null,{"c":"d"}]},"e":"f","\u0061b":1}"#,
            r#"[[],{},"",0,[[["deep"]]]]"#,
            "\n{\t\"a\"\r:\n[\t1 ,\r2\n]\t}\n",
            "7",
            "\"text\"",
        ];
        let pointers =
            ["/a", "/a/b", "/a/b/0", "/a/b/1", "/a/b/2/c", "/e", "/ab", "/4/0/0/0", "/2", "/1", "/0/0", "/a/1", "/"];
        for text in texts {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            for pointer in pointers {
                let read = find(pointer, text).unwrap().map(|found| serde_json::from_str(found).unwrap());
                assert_eq!(read.as_ref(), value.pointer(pointer), "{pointer} in {text}");
            }
        }
    }

    #[test]
    fn a_member_on_the_way_that_is_there_twice_is_refused_and_no_other() {
        let twice = |at: &str, member: &str| Err(FindError::Twice { at: at.to_owned(), member: member.to_owned() });
        assert_eq!(find("/a/b", r#"{"a":{"b":1},"c":0,"a":{"b":1}}"#), twice("", "a"));
        assert_eq!(find("/a/b", r#"{"a":{"b":1,"b":null}}"#), twice("/a", "b"));
        assert_eq!(find("/tenant", r#"{"tenant":1,"ten\u0061nt":2}"#), twice("", "tenant"));
        assert_eq!(find("/a/b", r#"{"c":1,"c":2,"a":{"d":1,"b":3,"d":2}}"#), Ok(Some("3")));
    }

    #[test]
    fn no_text_is_too_deep_and_none_is_taken_that_is_no_json() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(find("/b", &format!(r#"{{"a":{deep},"b":1}}"#)), Ok(Some("1")));
        assert_eq!(find("/0/0", &deep).map(|found| found.map(str::len)), Ok(Some(deep.len() - 4)));
        for bad in ["", "{", "{\"a\":1,}", "{\"a\":01}", "{\"a\" 1}", "[1}", "{\"a\n\":1}", "1 2", "{\"a\":\"\t\"}"] {
            assert!(matches!(find("/a", bad), Err(FindError::NotJson(_))), "{bad:?}");
        }
        let message = Pointer::parse("/a").unwrap().find(b"{\"a\":\"\xff\"}");
        assert_eq!(message, Err(FindError::NotJson("byte 6 is not UTF-8".to_owned())));
    }

    #[test]
    fn a_name_with_half_of_a_pair_is_no_name_that_a_pointer_has() {
        assert_eq!(find("/a", r#"{"\ud800":1,"a":2}"#), Ok(Some("2")));
        assert_eq!(find("/\u{1f600}", r#"{"\ud83d\ude00":3}"#), Ok(Some("3")));
    }

    #[test]
    fn a_pointer_names_a_field() {
        for bad in ["tenant", "", "/a~2", "/~", &"/a".repeat(FIELDS_MAX + 1)] {
            assert!(Pointer::parse(bad).is_err(), "{bad}");
        }
        assert!(Pointer::parse(&"/a".repeat(FIELDS_MAX)).is_ok());
    }
}
