//! Counts the lines, words and characters of a text. Nothing in it is made for one host.

wit_bindgen::generate!({ path: "wit" });

struct Functions;

impl Guest for Functions {
    fn count(text: String) -> Result<Totals, String> {
        if text.is_empty() {
            return Err("the text is empty".into());
        }
        let number = |all: usize| u32::try_from(all).unwrap_or(u32::MAX);
        Ok(Totals {
            lines: number(text.lines().count()),
            words: number(text.split_whitespace().count()),
            characters: number(text.chars().count()),
        })
    }
}

export!(Functions);
