//! Conventions of wording: one type per name, doc lines that can be read alone, texts in plain English.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::{files_below, read, root};

const CRATES: [&str; 5] = ["core", "store", "engine", "runner", "server"];

/// The openers of doc lines that cannot be read without the line above them.
const DEPENDENT_OPENERS: [&str; 8] = ["The same", "Of ", "By ", "What ", "How ", "Where ", "Whether ", "Who "];

/// The endings of sentences such as "x is the most", "y is expected" and "z is possible".
const FOREIGN_ENDINGS: [&str; 3] = ["the most", "expected", "possible"];

/// The type names that a crate uses twice on purpose: the crate, the name, the reason.
const SHARED_NAMES: [(&str, &str, &str); 0] = [];

/// The texts that are correct although they match: a part of the text, the reason.
const RIGHT_TEXTS: [(&str, &str); 0] = [];

/// Returns the files of a crate with their code, without files and modules that contain only tests.
fn sources(name: &str) -> Vec<(PathBuf, String)> {
    let files = files_below(&root().join("host").join(name).join("src"), "rs").into_iter();
    let only_tests = ["tests.rs", "fuzz.rs", "error_samples.rs", "error_snapshot.rs"];
    let is_test = |file: &PathBuf| file.components().any(|part| part.as_os_str() == "tests");
    let files = files.filter(|file| !is_test(file));
    let files = files.filter(|file| file.file_name().is_some_and(|name| only_tests.iter().all(|other| name != *other)));
    let code = |text: String| text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
    files.map(|file| (file.strip_prefix(root()).expect("below").to_owned(), code(read(&file)))).collect()
}

/// Returns the name of the type that a line declares for other modules.
fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = rest.strip_prefix('(').map_or(Some(rest), |inner| Some(inner.split_once(')')?.1))?.trim_start();
    let kinds = ["struct ", "enum ", "trait ", "type ", "union ", "unsafe trait "];
    let name = kinds.into_iter().find_map(|kind| rest.strip_prefix(kind))?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

#[test]
fn no_type_name_is_used_twice_within_a_crate() {
    let mut twice = Vec::new();
    let mut found = 0;
    for name in CRATES {
        let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (file, code) in sources(name) {
            // Indented lines are associated types, or belong to a module within the file.
            for line in code.lines().filter(|line| !line.starts_with(' ')) {
                if let Some(type_name) = public_type(line) {
                    found += 1;
                    declared.entry(type_name.to_owned()).or_default().push(file.display().to_string());
                }
            }
        }
        let shared = |type_name: &str| SHARED_NAMES.iter().any(|(of, known, _)| *of == name && *known == type_name);
        let several = declared.into_iter().filter(|(type_name, files)| files.len() > 1 && !shared(type_name));
        twice.extend(several.map(|(type_name, files)| format!("{name}: {type_name} in {}", files.join(", "))));
    }
    assert!(found > 300, "the types are found: {found}");
    assert!(twice.is_empty(), "one name, one type:\n{}", twice.join("\n"));
}

#[test]
fn every_doc_line_can_be_read_alone() {
    let mut dependent = Vec::new();
    let mut found = 0;
    for (file, code) in CRATES.into_iter().flat_map(sources) {
        let mut in_block = false;
        for (number, line) in code.lines().enumerate() {
            let doc = line.trim_start().strip_prefix("///").map(str::trim_start);
            if let Some(doc) = doc.filter(|_| !in_block) {
                found += 1;
                if DEPENDENT_OPENERS.iter().any(|opener| doc.starts_with(opener)) {
                    dependent.push(format!("{}:{}: {doc}", file.display(), number + 1));
                }
            }
            in_block = doc.is_some();
        }
    }
    assert!(found > 1000, "the doc lines are found: {found}");
    assert!(dependent.is_empty(), "{} doc lines need the line above:\n{}", dependent.len(), dependent.join("\n"));
}

/// Returns the string literals of a file with their line numbers, without the reasons of `expect`, which are for developers.
fn texts(code: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = code.chars().collect();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    let mut before = String::new();
    while at < chars.len() {
        let next = chars.get(at + 1).copied().unwrap_or_default();
        match chars[at] {
            '/' if next == '/' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
                continue;
            }
            // A character literal. Any other apostrophe starts a lifetime.
            '\'' if next == '\\' => {
                at += 3;
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
            }
            '\'' if chars.get(at + 2) == Some(&'\'') => at += 2,
            '"' => {
                let hashes = before.chars().rev().take_while(|c| *c == '#').count();
                let is_raw = before.trim_end_matches('#').ends_with('r') && !before.ends_with("br\"");
                let (start, mut text) = (line, String::new());
                at += 1;
                while at < chars.len() {
                    let closes = chars[at] == '"'
                        && (!is_raw || chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes);
                    if closes {
                        break;
                    }
                    if chars[at] == '\n' {
                        line += 1;
                    }
                    if chars[at] == '\\' && !is_raw {
                        at += 1;
                        if chars.get(at) == Some(&'\n') {
                            line += 1;
                            while chars.get(at + 1).is_some_and(|c| c.is_whitespace()) {
                                at += 1;
                                line += usize::from(chars[at] == '\n');
                            }
                        } else {
                            text.push(chars.get(at).copied().unwrap_or_default());
                        }
                    } else {
                        text.push(chars[at]);
                    }
                    at += 1;
                }
                let code_before = before.trim_end_matches(['r', '#']).trim_end();
                if !code_before.ends_with("expect(") && !code_before.ends_with("reason =") {
                    found.push((start, text));
                }
                before.clear();
            }
            c => {
                line += usize::from(c == '\n');
                before.push(c);
                at += 1;
                continue;
            }
        }
        before.clear();
        at += 1;
    }
    found
}

/// Returns the doc lines of a file that declares commands, since clap prints them as help.
fn help(code: &str) -> Vec<(usize, String)> {
    if !code.contains("use clap::") {
        return Vec::new();
    }
    let doc =
        |(number, line): (usize, &str)| Some((number + 1, line.trim_start().strip_prefix("///")?.trim().to_owned()));
    code.lines().enumerate().filter_map(doc).collect()
}

/// Returns the part of a text that is not plain English: "is no job", "is the most", "are expected", "is possible".
fn foreign(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches(['`', '(', ')', '"'])).collect();
    let bare = |word: &str| word.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned();
    (0..words.len()).find_map(|at| {
        let verb = words[at];
        let [second, third] = [1, 2].map(|more| words.get(at + more).map(|word| bare(word)).unwrap_or_default());
        let is_negated = ["is", "has", "have"].contains(&verb) && second == "no" && !third.is_empty();
        let pair = format!("{second} {third}");
        let ends =
            |ending: &&str| pair.split(' ').take(ending.split(' ').count()).collect::<Vec<_>>().join(" ") == **ending;
        let is_foreign = ["is", "are"].contains(&verb) && FOREIGN_ENDINGS.iter().any(ends);
        (is_negated || is_foreign).then(|| format!("{verb} {pair}"))
    })
}

#[test]
fn texts_are_plain_english() {
    let mut odd = Vec::new();
    let mut found = 0;
    for (file, code) in CRATES.into_iter().flat_map(sources) {
        for (number, text) in texts(&code).into_iter().chain(help(&code)) {
            found += 1;
            let is_right = RIGHT_TEXTS.iter().any(|(part, _)| text.contains(part));
            if let Some(part) = foreign(&text).filter(|_| !is_right) {
                odd.push(format!("{}:{number}: {part}: {text}", file.display()));
            }
        }
    }
    assert!(found > 1000, "the texts are found: {found}");
    assert!(odd.is_empty(), "{} texts are not plain English:\n{}", odd.len(), odd.join("\n"));
}

#[test]
fn the_search_for_words_finds_some() {
    assert_eq!(public_type("pub(crate) struct Job<'a> {"), Some("Job"));
    assert_eq!(public_type("pub enum State {"), Some("State"));
    assert_eq!((public_type("struct Own;"), public_type("pub fn run() {}")), (None, None));
    assert_eq!(foreign("`x` is no job id").as_deref(), Some("is no job"));
    assert_eq!(foreign("100 is the most; stop").as_deref(), Some("is the most"));
    assert_eq!(foreign("text or json is possible").as_deref(), Some("is possible "));
    assert_eq!((foreign("this has nothing"), foreign("it is expectedly so")), (None, None));
    let code = "f(\"one \\\"x\\\" \\\n   two\", 'a', '\"', b'\\'', r#\"a \"b\"\"#); // \"no\"\nlet x: &'a str = y.expect(\"why\");\n g(\"z\")";
    let expected = [(1, "one \"x\" two"), (2, "a \"b\""), (4, "z")].map(|(line, text)| (line, text.to_owned()));
    assert_eq!(texts(code), expected);
}
