//! Moments as operators write them: a date, or how long ago.

use std::time::Duration;

use crate::time::Timestamp;

const DAY_SECONDS: u64 = 24 * 3600;

/// Reads a moment: `2030-01-31`, `2030-01-31T12:00:00Z` with or without a fraction, or how long before `now` it was, such as
/// `90s`, `15m`, `2h` or `7d`. Returns `None` if the text is none of these. Dates before 1970 are none.
pub fn parse_moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text.contains('-') { parse_date(text) } else { parse_age(text).map(|age| now - age) }
}

/// Writes a moment in RFC 3339, in UTC, with microseconds. [`parse_moment`] reads it back. Years after 9999 become 9999.
pub fn format_moment(at: Timestamp) -> String {
    let seconds = at.as_micros() / 1_000_000;
    let (days, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let (year, month, day) = date_of(days);
    if year > 9999 {
        return "9999-12-31T23:59:59.999999Z".to_owned();
    }
    let (hour, minute, second, micros) = (second / 3600, second / 60 % 60, second % 60, at.as_micros() % 1_000_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

fn parse_age(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY_SECONDS,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(seconds)?))
}

fn parse_date(text: &str) -> Option<Timestamp> {
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, time.strip_suffix(['Z', 'z'])?),
        None => (text, "00:00:00"),
    };
    let mut parts = date.split('-').zip([4, 2, 2]).map(|(part, length)| number(part, length));
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if date.len() != 10 || !(1..=12).contains(&month) || day == 0 || day > days_of_month(year, month) || year < 1970 {
        return None;
    }
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.split(':').map(|part| number(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if time.len() != 8 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let micros: u64 = format!("{fraction:0<6}")[..6].parse().ok()?;
    let seconds = days_before(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    Some(Timestamp::from_micros(seconds * 1_000_000 + micros))
}

/// Reads a number of exactly this many digits.
fn number(text: &str, length: usize) -> Option<u64> {
    let is_number = text.len() == length && text.bytes().all(|c| c.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

const fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Returns the number of days from the epoch to a date, by the era algorithm of Howard Hinnant.
const fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Returns the date that is this many days after the epoch: year, month and day.
const fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + (month <= 2) as u64, month, day)
}
