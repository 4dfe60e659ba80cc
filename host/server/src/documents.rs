//! Blocks of code in the documents, for the tests that hold them to the program.

use std::path::{Path, PathBuf};

/// One block of code, and its place.
#[derive(Debug)]
pub(crate) struct Block {
    /// File and line, for a failing test.
    pub(crate) place: String,
    /// First word behind the fence: the language.
    pub(crate) language: String,
    /// Rest of the line of the fence.
    pub(crate) info: String,
    pub(crate) text: String,
}

/// Returns the documents: the README, the pages of `host/docs`, the guide for contributors and what plugins say of themselves.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut all = vec![root.join("README.md"), root.join(".github/CONTRIBUTING.md"), root.join("plugins/README.md")];
    let mut open = vec![root.join("host/docs")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of pages") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                all.push(path);
            }
        }
    }
    all
}

/// Returns the fenced blocks of a document. A block in a list is indented, and its lines lose that.
fn blocks_of(name: &str, text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let bare = line.trim_start();
        let Some(fence) = bare.strip_prefix("```") else { continue };
        let indent = line.len() - bare.len();
        let (language, info) = fence.split_once(' ').unwrap_or((fence, ""));
        let inner = lines.by_ref().map(|(_, line)| line.get(indent.min(line.len())..).unwrap_or(line));
        let text: String = inner.take_while(|line| !line.starts_with("```")).flat_map(|line| [line, "\n"]).collect();
        found.push(Block {
            place: format!("{name}:{}", number + 1),
            language: language.to_owned(),
            info: info.to_owned(),
            text,
        });
    }
    found
}

/// Returns every block of code in every document.
pub(crate) fn blocks() -> Vec<Block> {
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).expect("a document can be read");
        blocks_of(&file.display().to_string(), &text)
    };
    documents().iter().flat_map(read).collect()
}

/// Returns the arguments of each call of `wharf` in a shell's text, as far as the documents use its language: quotes, lists,
/// pipes, redirections, assignments, comments.
pub(crate) fn calls_of_wharf(shell: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    let (mut words, mut word): (Vec<String>, Option<String>) = (Vec::new(), None);
    let mut chars = shell.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let quoted = chars.by_ref().take_while(|c| *c != '\'');
                word.get_or_insert_default().extend(quoted);
            }
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    let escaped = chars.next_if(|next| c == '\\' && "\"\\$`".contains(*next));
                    word.push(escaped.unwrap_or(c));
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next().filter(|c| *c != '\n')),
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\n' | ';' | '|' | '&' | '(' | ')' => {
                words.extend(word.take());
                end_of_call(&mut words, &mut calls);
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    end_of_call(&mut words, &mut calls);
    calls
}

/// Takes the words of one command, and keeps those that are arguments of `wharf`.
fn end_of_call(words: &mut Vec<String>, calls: &mut Vec<Vec<String>>) {
    let mut words = std::mem::take(words).into_iter().peekable();
    while words.next_if(|word| word == "{" || word.split_once('=').is_some_and(|(name, _)| is_name(name))).is_some() {}
    if words.next().is_some_and(|program| program == "wharf") {
        let is_redirection =
            |word: &String| word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['>', '<']);
        calls.push(words.take_while(|word| !is_redirection(word) && word != "}").collect());
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn calls_are_found_in_a_shells_text() {
    let text = "PATH=$PWD/x:$PATH\nA=1 wharf job show \"$ID\" # wharf no\n{ echo '{\"w\": 90}'; cat x; } | wharf job enqueue a/b --input - > small.png\n\
                printf 'wharf' >> f && wharf list\\\n --json\n(cd a && wharf check 'b c')\n";
    let calls = calls_of_wharf(text);
    let expected: [&[&str]; 4] =
        [&["job", "show", "$ID"], &["job", "enqueue", "a/b", "--input", "-"], &["list", "--json"], &["check", "b c"]];
    assert_eq!(calls, expected);
}

#[test]
fn blocks_are_found_in_a_list_too() {
    let found = blocks_of("a.md", "text\n```sh not-run=\"x\"\none\n```\n- item\n\n  ```toml\n  a = 1\n    b\n  ```\n");
    let found: Vec<_> =
        found.iter().map(|b| (b.place.as_str(), b.language.as_str(), b.info.as_str(), b.text.as_str())).collect();
    assert_eq!(found, [("a.md:2", "sh", "not-run=\"x\"", "one\n"), ("a.md:7", "toml", "", "a = 1\n  b\n")]);
}
