//! Takes out of a message what differs between two failures of one cause.

/// Maximum number of characters of a message that are looked at.
const READ_CHARS_MAX: usize = 1000;
/// Maximum length in bytes of a normalised message.
pub(super) const MESSAGE_BYTES_MAX: usize = 300;
/// Stands for a number, a time, an ID or a hash.
const NUMBER: char = '#';
/// Stands for a quoted text.
const QUOTED: &str = "<text>";
/// A word with at least this many characters that are all hexadecimal digits is a hash.
const HASH_CHARS_MIN: usize = 8;
/// A name with a number at its end, such as `order17`, has at least this many letters.
const NAME_LETTERS_MIN: usize = 3;
/// The lengths of the five parts of a UUID.
const UUID_PARTS: [usize; 5] = [8, 4, 4, 4, 12];

/// Returns a message without quoted texts, numbers, times, IDs and hashes, in one line of at most `MESSAGE_BYTES_MAX` bytes.
pub(super) fn normalised(message: &str) -> String {
    let chars: Vec<char> = message.chars().take(READ_CHARS_MAX).collect();
    let mut text = Normalised::default();
    let mut rest = &chars[..];
    let mut before = ' ';
    while let Some(&first) = rest.first() {
        let taken = if let Some(length) = quoted_length(before, rest) {
            text.push_word(QUOTED);
            length
        } else if let Some(length) = uuid_length(before, rest) {
            text.push_number();
            length
        } else if first.is_alphanumeric() {
            let length = rest.iter().position(|c| !c.is_alphanumeric()).unwrap_or(rest.len());
            text.push_alphanumeric(&rest[..length]);
            length
        } else {
            text.push_other(first);
            1
        };
        before = rest[taken - 1];
        rest = &rest[taken..];
    }
    text.finish()
}

/// Returns the length of the quoted text with which `rest` begins, its quotes included. An apostrophe within a word quotes
/// nothing.
fn quoted_length(before: char, rest: &[char]) -> Option<usize> {
    let quote = *rest.first().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    if before.is_alphanumeric() {
        return None;
    }
    let mut is_escaped = false;
    for (index, &c) in rest.iter().enumerate().skip(1) {
        let ends_word = rest.get(index + 1).is_none_or(|next| !next.is_alphanumeric());
        if c == quote && !is_escaped && ends_word {
            return Some(index + 1);
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    None
}

fn uuid_length(before: char, rest: &[char]) -> Option<usize> {
    if before.is_alphanumeric() {
        return None;
    }
    let mut length = 0;
    for (number, part) in UUID_PARTS.into_iter().enumerate() {
        if number > 0 {
            rest.get(length).filter(|c| **c == '-')?;
            length += 1;
        }
        rest.get(length..length + part)?.iter().all(char::is_ascii_hexdigit).then_some(())?;
        length += part;
    }
    rest.get(length).is_none_or(|next| !next.is_alphanumeric()).then_some(length)
}

/// A normalised message that is being written.
#[derive(Default)]
struct Normalised {
    text: String,
    /// The characters after the last number, if no word has followed that number.
    after_number: Option<String>,
}

impl Normalised {
    fn push_alphanumeric(&mut self, word: &[char]) {
        let is_digit = |c: &char| c.is_numeric();
        if !word.iter().any(is_digit) {
            if word.len() >= HASH_CHARS_MIN && word.iter().all(char::is_ascii_hexdigit) {
                return self.push_number();
            }
            return self.push_word(&word.iter().collect::<String>());
        }
        let letters = word.iter().take_while(|c| !is_digit(c)).count();
        if letters >= NAME_LETTERS_MIN && word[letters..].iter().all(is_digit) {
            self.push_word(&word[..letters].iter().collect::<String>());
        }
        self.push_number();
    }

    fn push_word(&mut self, word: &str) {
        self.flush();
        self.text.push_str(word);
    }

    /// Adds a number. One that belongs to the last, as in a time, a version or a list, adds nothing.
    fn push_number(&mut self) {
        let joins =
            |between: &str| matches!(between, "" | "." | "," | ":" | "-" | "/" | "+" | "_" | ", " | ".." | "::");
        match self.after_number.take() {
            Some(between) if joins(&between) => {}
            between => {
                self.text.push_str(&between.unwrap_or_default());
                // The sign of a number is part of it.
                if self.text.strip_suffix(['-', '+']).is_some_and(|before| !before.ends_with(char::is_alphanumeric)) {
                    self.text.pop();
                }
                self.text.push(NUMBER);
            }
        }
        self.after_number = Some(String::new());
    }

    fn push_other(&mut self, c: char) {
        let c = if c.is_whitespace() || c.is_control() { ' ' } else { c };
        let to = self.after_number.as_mut().unwrap_or(&mut self.text);
        if c != ' ' || !to.ends_with(' ') {
            to.push(c);
        }
    }

    fn flush(&mut self) {
        self.text.push_str(&self.after_number.take().unwrap_or_default());
    }

    fn finish(mut self) -> String {
        self.flush();
        self.text.truncate(self.text.floor_char_boundary(MESSAGE_BYTES_MAX));
        self.text.truncate(self.text.trim_end().len());
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(expected: &str, messages: &[&str]) {
        for message in messages {
            assert_eq!(normalised(message), expected, "{message}");
        }
    }

    #[test]
    fn numbers_times_and_versions_become_one_sign() {
        becomes("order # failed", &["order 17 failed", "order 4,711 failed", "order -3.5 failed", "order 1e9 failed"]);
        becomes("at # it broke", &["at 2026-11-29T19:21:59Z it broke", "at 12:00 it broke", "at 29.11.2026 it broke"]);
        becomes("took #", &["took 1.5s", "took 250ms", "took 3"]);
        becomes("no route to #", &["no route to 10.0.0.1:80", "no route to 192.168.17.254:8080"]);
        becomes(
            "panicked at src/lib.rs:#: left != right",
            &["panicked at src/lib.rs:3:5: left != right", "panicked at src/lib.rs:1200:17: left != right"],
        );
        becomes("items [#]", &["items [1, 2, 3]", "items [17]"]);
        becomes("from # to #", &["from 1 to 2", "from 10 to 20"]);
    }

    #[test]
    fn ids_and_hashes_become_one_sign() {
        becomes(
            "no user #",
            &[
                "no user 0b5f0a3e-54cc-4f3a-9c2e-7f6f0d6d7a11",
                "no user deadbeef-dead-beef-dead-beefdeadbeef",
                "no user 0x7fff2a10",
                "no user 0b2jrqs2w0001",
                "no user deadbeefcafe",
            ],
        );
        becomes("no order#", &["no order17", "no order4711"]);
        becomes("no usr_#", &["no usr_8Zk2p", "no usr_17"]);
    }

    #[test]
    fn quoted_text_is_taken_out_and_apostrophes_are_not_quotes() {
        becomes(
            "KeyError: <text>",
            &["KeyError: 'acme'", "KeyError: \"it's\"", "KeyError: 'it\\'s'", "KeyError: `x y`"],
        );
        becomes("can't find <text>, isn't there", &["can't find 'a', isn't there", "can't find 'b c', isn't there"]);
        becomes("an open ' quote", &["an open ' quote"]);
    }

    #[test]
    fn words_stay_and_a_message_is_one_short_line() {
        becomes("TypeError: x is null", &["TypeError: x is null", "TypeError:  x\tis\nnull "]);
        becomes("", &["", "  "]);
        let long = normalised(&"wörter ".repeat(10_000));
        assert!(
            (MESSAGE_BYTES_MAX - 2..=MESSAGE_BYTES_MAX).contains(&long.len()) && long.starts_with("wörter w"),
            "{long}"
        );
        assert_ne!(normalised("cannot read a"), normalised("cannot write a"));
    }
}
