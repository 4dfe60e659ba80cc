//! A layout of JSON for users: spread over lines, with no value altered. Numbers, names and their order stay as they came,
//! even if a number is larger than this program could represent.

/// The nesting depth up to which JSON is spread. Deeper levels stay as they came: text that is all brackets would become
/// many times as long.
const SPREAD_LEVELS: usize = 6;

/// Lays JSON text out over many lines.
pub(crate) fn spread(json: &str) -> String {
    let mut to = String::with_capacity(2 * json.len());
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut chars = json.trim_ascii().chars().peekable();
    while let Some(c) = chars.next() {
        if in_string {
            to.push(c);
            (in_string, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        let spreads = depth <= SPREAD_LEVELS;
        match c {
            '"' => {
                in_string = true;
                to.push(c);
            }
            '[' | '{' => {
                depth += 1;
                to.push(c);
                if depth <= SPREAD_LEVELS {
                    while chars.next_if(char::is_ascii_whitespace).is_some() {}
                    if chars.peek().is_some_and(|next| !matches!(next, ']' | '}')) {
                        new_line(&mut to, depth);
                    }
                }
            }
            ']' | '}' => {
                depth = depth.saturating_sub(1);
                if spreads && !to.ends_with(['[', '{']) {
                    new_line(&mut to, depth);
                }
                to.push(c);
            }
            ',' if spreads => {
                to.push(c);
                new_line(&mut to, depth);
            }
            ':' if spreads => to.push_str(": "),
            c if spreads && c.is_ascii_whitespace() => {}
            // Between tokens, and the only white space that moves back on a terminal.
            '\r' => to.push(' '),
            c => to.push(c),
        }
    }
    to
}

fn new_line(to: &mut String, depth: usize) {
    to.push('\n');
    (0..depth).for_each(|_| to.push_str("  "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_usual_one_and_no_value_changes() {
        let text = r#" {"b":1e400, "a" :[12345678901234567890123,{}, [ ] ,"x: [,]\"{"],"a":"\ud800"} "#;
        let shown = "{\n  \"b\": 1e400,\n  \"a\": [\n    12345678901234567890123,\n    {},\n    [],\n    \"x: [,]\\\"{\"\n  ],\n  \"a\": \"\\ud800\"\n}";
        assert_eq!(spread(text), shown);
        assert_eq!(spread("7"), "7");
        let value: serde_json::Value =
            serde_json::from_str(r#"{"a":[{"b":[],"c":{}},[[1,2],null]],"d":"e\\"}"#).unwrap();
        assert_eq!(spread(&value.to_string()), serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn deeply_nested_json_does_not_grow() {
        let deep = format!("{}1, 2{}", "[".repeat(100_000), "]".repeat(100_000));
        let shown = spread(&deep);
        assert!(shown.len() < deep.len() + 200 && shown.contains("[[1, 2]]"), "{}", shown.len());
        let without: String = shown.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        assert_eq!(without, deep.replace(' ', ""));
    }
}
