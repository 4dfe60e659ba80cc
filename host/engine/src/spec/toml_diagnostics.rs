//! Reads TOML so that each mistake is reported with its line, its column and the nearest valid name, and so that one
//! mistake does not hide the next.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::spec::problem::{Problem, in_one_line};

/// Maximum number of problems that are reported for one text.
const PROBLEMS_MAX: usize = 20;
/// Maximum length of one problem, in characters: what it quotes may be as long as the whole text.
const PROBLEM_CHARS_MAX: usize = 1000;

/// Reads `text` as a `T`.
///
/// # Errors
/// Every problem that can be found: each unknown key and each value of the wrong type, not only the first.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Vec<Problem>> {
    let (mut table, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        return Err(syntax.iter().take(PROBLEMS_MAX).map(|error| toml_problem(text, error)).collect());
    }
    let mut problems = Vec::new();
    loop {
        let error = match T::deserialize(Deserializer::from(table.clone())) {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => return Err(problems),
            Err(error) => error,
        };
        problems.push(toml_problem(text, &error));
        // The wrong entry is removed and the rest read again, until no further problem is found.
        let gone = error.span().is_some_and(|span| remove_at(table.get_mut(), &span));
        if !gone || problems.len() == PROBLEMS_MAX {
            return Err(problems);
        }
    }
}

/// Returns the first problems, each cut if it is too long to be read, with the number of those that are left out.
pub(crate) fn truncate_problems(mut problems: Vec<Problem>) -> Vec<Problem> {
    let more = problems.len().saturating_sub(PROBLEMS_MAX);
    problems.truncate(PROBLEMS_MAX);
    for problem in &mut problems {
        cut(&mut problem.what);
        cut(&mut problem.hint);
    }
    if more > 0 {
        problems.push(Problem::new(format!("and {more} more")));
    }
    problems
}

fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(PROBLEM_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
}

/// Converts a TOML error of `text`: adds its line and column, and for an unknown key the nearest known one.
pub fn toml_problem(text: &str, error: &toml::de::Error) -> Problem {
    let at = error.span().map(|span| position(text, span.start));
    // It quotes names and values of the text.
    let message = in_one_line(error.message());
    match parse_unknown(&message) {
        Some((word, known)) if message.starts_with("unknown variant") => {
            Problem::new(format!("unknown value `{word}`; expected one of {}", list(&known)))
                .at(at)
                .hint(nearest_hint(word, &known))
        }
        Some((word, known)) => {
            let nearest = nearest_hint(word, &known);
            let hint = if nearest.is_empty() { format!("the keys here are {}", list(&known)) } else { nearest };
            Problem::new(format!("unknown key `{word}`")).at(at).hint(hint)
        }
        None => Problem::new(message).at(at),
    }
}

/// The longest word that is compared with others, in characters: every known name is shorter.
const COMPARED_CHARS_MAX: usize = 100;

/// Returns the one of `known` that is so similar to `word` that a slip is likely.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let max = |candidate: &str| 1 + candidate.len().min(word.len()) / 4;
    let length = word.chars().count();
    // Comparing takes time and memory in proportion to both lengths, and both can be a stranger's: a word that is quoted in
    // an error, and what stands between backticks in it.
    if length > COMPARED_CHARS_MAX {
        return None;
    }
    known
        .into_iter()
        // Before the two are compared, which takes time and memory in proportion to both: a word may be as long as a
        // payload.
        .filter(|candidate| length.abs_diff(candidate.chars().count()) <= max(candidate))
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= max(candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns the line and the column of a byte, both from 1; columns count characters.
pub fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn nearest_hint(word: &str, known: &[&str]) -> String {
    nearest(word, known.iter().copied()).map_or_else(String::new, |near| format!("did you mean `{near}`?"))
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Parses serde's texts, such as "unknown field `x`, expected one of `a`, `b`".
fn parse_unknown(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let (word, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((word, known))
}

/// Removes the entry whose key or value is at `span`, however deep. Returns true if there was one.
fn remove_at(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let named =
        table.iter().find(|(key, value)| key.span() == *span || value.span() == *span).map(|(key, _)| key.clone());
    match named {
        Some(key) => table.remove(&key).is_some(),
        None => table.iter_mut().any(|(_, value)| remove_at_below(value, span)),
    }
}

fn remove_at_below(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => remove_at(table, span),
        DeValue::Array(array) if array.iter().any(|item| item.span() == *span) => {
            *array = array.iter().filter(|item| item.span() != *span).cloned().collect();
            true
        }
        DeValue::Array(array) => array.iter_mut().any(|item| remove_at_below(item, span)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct RawExample {
        #[expect(dead_code, reason = "only its key matters here")]
        keep_finished: Option<String>,
        #[expect(dead_code, reason = "only its key matters here")]
        port: Option<u16>,
    }

    /// A parser whose guard counts brackets that it skips, too, recurses for each of these lines: the first version that does
    /// not is `toml_parser` 1.1.6.
    #[test]
    fn open_tables_behind_skipped_brackets_are_an_error_and_no_overflow() {
        for skipped in ["{ [x]\nk = ", "[ {x}\n[", "{ k {x}\nk = "] {
            let text = format!("k = {}", skipped.repeat(60_000 / skipped.len()));
            assert!(!read::<RawExample>(&text).unwrap_err().is_empty());
        }
    }

    #[test]
    fn every_problem_is_told_with_its_place_and_the_nearest_key() {
        let text = "keep-finised = \"7d\"\nport = \"x\"\n\"ü\" = 1\n";
        let problems = read::<RawExample>(text).unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "line 1, column 1: unknown key `keep-finised`\n    did you mean `keep-finished`?",
                "line 2, column 8: invalid type: string \"x\", expected u16",
                "line 3, column 1: unknown key `ü`\n    the keys here are `keep-finished`, `port`",
            ]
        );
    }

    #[test]
    fn a_quoted_name_forges_no_line() {
        for text in ["\"k\\n2026 INFO\\r\\u001b[2J\\u202e\" = 1", "port = \"x\\n2026 INFO\\r\\u001b[2J\\u202e\""] {
            let problem = read::<RawExample>(text).unwrap_err().remove(0);
            assert!(problem.what.contains(r"\n2026 INFO\r\u{1b}[2J\u{202e}"), "{problem}");
            assert!(!problem.to_string().contains(['\r', '\x1b', '\u{202e}']), "{problem}");
        }
    }

    #[test]
    fn a_key_as_long_as_a_payload_is_compared_with_nothing() {
        let long = "x".repeat(30_000_000);
        assert_eq!(nearest(&long, ["port", "keep-finished"]), None);
        // What it is compared with may be as long, and a stranger's, too.
        let other = long.replace('x', "y");
        assert_eq!(nearest(&long, [other.as_str()]), None);
        assert_eq!(nearest("prot", ["port", "keep-finished"]), Some("port"));
    }

    #[test]
    fn of_many_problems_the_first_are_told_and_none_at_full_length() {
        let problems: Vec<Problem> = (0..25).map(|n| Problem::new(format!("{n}{}", "ü".repeat(5000)))).collect();
        let shown = truncate_problems(problems);
        assert_eq!((shown.len(), shown[20].what.as_str()), (21, "and 5 more"));
        assert_eq!((shown[19].what.chars().count(), &shown[19].what[..2]), (1001, "19"));
        assert_eq!(truncate_problems(vec![Problem::new("one")]), [Problem::new("one")]);
    }

    #[test]
    fn syntax_errors_have_a_place_too() {
        let problems = read::<RawExample>("port = \n").unwrap_err();
        assert_eq!(problems[0].at.map(|at| at.0), Some(1));
    }
}
