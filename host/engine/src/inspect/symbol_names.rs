//! Makes names of functions readable. A name comes from an untrusted file: it can be a megabyte long, and written so
//! that demangling it never ends.

use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use wharf_core::bounds;

/// Maximum time for the names of one component; those that are left stay mangled.
const TIME_MAX: Duration = Duration::from_secs(2);
/// A longer mangled name is not demangled.
const MANGLED_BYTES_MAX: usize = 2048;

/// Demangles names within a limit of time.
pub(crate) struct Demangler {
    until: Instant,
}

impl Demangler {
    pub(crate) fn new() -> Demangler {
        Demangler { until: Instant::now() + TIME_MAX }
    }

    /// Returns the name without its crate hash, cut to [`bounds::FUNCTION_NAME_BYTES_MAX`].
    pub(crate) fn name(&self, name: &str) -> String {
        let mut short = BoundedName(String::new());
        let is_mangled = name.len() <= MANGLED_BYTES_MAX
            && Instant::now() < self.until
            && rustc_demangle::try_demangle(name).is_ok_and(|name| {
                // Fails when the name is long enough, which ends the demangler's work.
                let _ = write!(short, "{name:#}");
                true
            });
        if !is_mangled {
            let _ = short.write_str(name);
        }
        short.0
    }
}

/// A text that is at most as long as a name may be.
struct BoundedName(String);

impl Write for BoundedName {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const CUT: &str = "...";
        let bytes_left = (bounds::FUNCTION_NAME_BYTES_MAX - CUT.len()).saturating_sub(self.0.len());
        // Control characters do not belong in a name, and would affect the terminal that shows it.
        let mut shown = text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
        let mut taken = 0;
        for c in shown.by_ref() {
            if taken + c.len_utf8() > bytes_left {
                self.0.push_str(CUT);
                return Err(fmt::Error);
            }
            taken += c.len_utf8();
            self.0.push(c);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_readable_and_short() {
        let demangler = Demangler::new();
        assert_eq!(demangler.name("_ZN5words6handle17h0123456789abcdefE"), "words::handle");
        assert_eq!(demangler.name("main.run"), "main.run");
        assert_eq!(demangler.name("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        let long = demangler.name(&"ä".repeat(100_000));
        assert!(long.len() <= bounds::FUNCTION_NAME_BYTES_MAX && long.ends_with("ä..."), "{long}");
    }

    /// A name of a few hundred bytes whose text would have a million: each level refers twice to the one before it.
    #[test]
    fn a_name_that_would_unfold_for_ever_is_cut() {
        let mut name = "_RNvC1aIC1bu".to_owned();
        let mut last = name.len() - 1;
        for _ in 0..40 {
            let place = name.len();
            let back = |at: usize| {
                let digits: Vec<char> = ('0'..='9').chain('a'..='z').chain('A'..='Z').collect();
                let (mut number, mut text) = (at - 1, String::new());
                while number > 0 {
                    text.insert(0, digits[(number - 1) % 62]);
                    number = (number - 1) / 62;
                }
                format!("B{text}_")
            };
            let twice = format!("T{}{}E", back(last - 1), back(last - 1));
            name.push_str(&twice);
            last = place;
        }
        let demangler = Demangler::new();
        for name in [name.clone(), name.replacen("_RNvC1aIC1bu", "_RINvC1a1bu", 1) + "E"] {
            assert!(demangler.name(&name).len() <= bounds::FUNCTION_NAME_BYTES_MAX);
        }
    }
}
