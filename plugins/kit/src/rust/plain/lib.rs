//! Counts the lines of a text, and what stands between its spaces: a function over plain data, which is a task as it is.

wit_bindgen::generate!({ path: "wit" });

struct Counter;

impl Guest for Counter {
    fn count(text: String) -> Result<Totals, String> {
        if text.is_empty() {
            return Err("the text is empty".into());
        }
        let count = |all: usize| u32::try_from(all).unwrap_or(u32::MAX);
        Ok(Totals { lines: count(text.lines().count()), tokens: count(text.split_whitespace().count()) })
    }
}

export!(Counter);
