//! Moments, lengths, sizes and texts of others, as pages show them.

use std::borrow::Cow;

use bytesize::ByteSize;
use maud::{Markup, html};
use wharf_core::time::Timestamp;

use crate::http::api::Moment;
use crate::output::{escape_line, escape_text};

/// Returns a text for one line of a page. Characters that reorder a line or cannot be seen are shown as escapes.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    escape_line(text)
}

/// Returns a text that may have lines, with its unsafe characters escaped.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    escape_text(text)
}

/// Returns true if a field of a form gives this text back: a browser makes other ends of lines, and another character of a zero.
pub(super) fn is_kept(text: &str) -> bool {
    !text.contains(['\r', '\0'])
}

/// Returns the first line of a text, at most `max` characters long.
pub(super) fn first_line(text: &str, max: usize) -> String {
    let first = text.lines().next().unwrap_or_default();
    match first.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", line(&first[..at])),
        None => line(first).into_owned(),
    }
}

/// Returns how long ago a moment was, as an element that the pages' script keeps current.
pub(super) fn ago(moment: Moment, now: Timestamp) -> Markup {
    let date = moment.date();
    html! { time datetime=(format!("{date:.3}")) title=(format!("{date:.0}")) data-ago { (relative(moment.0, now)) } }
}

/// Returns how long ago a moment was, or for how long it lies ahead.
pub(super) fn relative(moment: Timestamp, now: Timestamp) -> String {
    if moment > now {
        return format!("in {}", length(moment.since(now).as_secs_f64() * 1000.0, 1));
    }
    match now.since(moment).as_secs() {
        0 => "now".to_owned(),
        seconds => format!("{} ago", length(seconds as f64 * 1000.0, 1)),
    }
}

/// Returns the time of day of a moment, in UTC.
pub(super) fn clock(moment: Moment) -> String {
    moment.date().strftime("%H:%M:%S%.3f").to_string()
}

/// Returns the date and the time of a moment, in UTC.
pub(super) fn full(moment: Moment) -> String {
    moment.date().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Returns a number of milliseconds in at most `parts` units.
pub(super) fn length(ms: f64, parts: usize) -> String {
    let seconds = ms / 1000.0;
    if ms < 9.995 {
        return format!("{ms:.2} ms");
    }
    if ms < 999.5 {
        return format!("{ms:.0} ms");
    }
    if seconds < 9.95 && parts > 1 {
        return format!("{seconds:.1} s");
    }
    if seconds < 59.5 {
        return format!("{seconds:.0} s");
    }
    let whole = seconds.round() as u64;
    let (large, small, names) = match whole {
        0..3600 => (whole / 60, whole % 60, ("m", "s")),
        3600..86_400 => (whole / 3600, whole % 3600 / 60, ("h", "m")),
        _ => (whole / 86_400, whole % 86_400 / 3600, ("d", "h")),
    };
    if parts > 1 && small > 0 {
        format!("{large} {} {small:02} {}", names.0, names.1)
    } else {
        format!("{large} {}", names.0)
    }
}

/// Returns a length of time for a cell of a table.
pub(super) fn brief(ms: f64) -> String {
    length(ms, 2)
}

/// Returns a size in bytes.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Returns a number with narrow spaces between its thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + 8);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// Returns a number and its noun.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_the_units_that_a_person_reads() {
        let shown = [0.314, 83.2, 1234.0, 12_600.0, 124_000.0, 7_500_000.0, 200_000_000.0].map(brief);
        assert_eq!(shown, ["0.31 ms", "83 ms", "1.2 s", "13 s", "2 m 04 s", "2 h 05 m", "2 d 07 h"]);
        assert_eq!([length(1234.0, 1), length(124_000.0, 1)], ["1 s", "2 m"]);
    }

    #[test]
    fn moments_are_before_or_ahead() {
        let now = Timestamp::from_millis(1_000_000);
        let at = |ms| relative(Timestamp::from_millis(ms), now);
        assert_eq!([at(1_000_000), at(700_000), at(1_090_000)], ["now", "5 m ago", "in 1 m"]);
    }

    #[test]
    fn numbers_are_grouped_and_lines_are_cut() {
        assert_eq!([count(7), count(1184), count(1_234_567)], ["7", "1\u{202f}184", "1\u{202f}234\u{202f}567"]);
        assert_eq!(first_line("größer\nx", 4), "größ…");
        assert_eq!(first_line("a\u{202e}b", 10), "a\\u{202e}b");
    }
}
