//! Which characters of a stranger's text are shown as they are.

/// Returns true for a character that must not be shown as it is: a control character (C0, DEL, C1), a mark that changes the
/// direction of text, or one that is invisible. Shown as escapes, such characters forge nothing.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::is_unsafe;

    #[test]
    fn what_controls_reorders_or_hides_is_unsafe_and_words_are_not() {
        for c in ['\0', '\n', '\u{1b}', '\u{7f}', '\u{9b}', '\u{ad}', '\u{202e}', '\u{200d}', '\u{fffa}', '\u{e0041}'] {
            assert!(is_unsafe(c), "{}", c.escape_unicode());
        }
        for c in [' ', 'a', '\u{e9}', '\u{5d0}', '\u{4e2d}', '\u{1f680}'] {
            assert!(!is_unsafe(c), "{c}");
        }
    }
}
