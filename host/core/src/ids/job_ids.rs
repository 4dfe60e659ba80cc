//! IDs of jobs, and their sources.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::ParseIdError;
use crate::bounds;
use crate::time::Timestamp;

/// A job's ID: a number of 63 bits. Its upper bits are the time at which the ID was made, so IDs sort in the order of
/// creation. Written as 13 characters of Crockford's base 32 in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

/// Crockford's base 32 in lower case. It has no i, l, o and u, so that an ID that is read aloud is not misheard.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_CHARS: usize = 13;

impl JobId {
    /// Returns the ID with this number, or `None` if the number is 0 or has more than 63 bits.
    pub const fn from_number(number: u64) -> Option<JobId> {
        if number == 0 || number > i64::MAX as u64 { None } else { Some(JobId(number)) }
    }

    /// Returns the ID as a number; it fits an `i64`.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Returns the lowest number of an ID that is made at `now`; 0 before 2020, when IDs do not tell the time.
    pub const fn first_number_at(now: Timestamp) -> u64 {
        first_of(now)
    }

    /// Returns true if an ID with this number was made by a clock that was ahead of `now`. IDs never go back: those that follow are ahead, too,
    /// until the clock has come so far.
    pub fn is_ahead(number: u64, now: Timestamp) -> bool {
        number >= first_of(now + bounds::ID_SLACK)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; ID_CHARS];
        for (place, slot) in text.iter_mut().rev().enumerate() {
            *slot = ALPHABET[(self.0 >> (5 * place)) as usize & 31];
        }
        f.pad(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl FromStr for JobId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError::new("job ID", text, format!("expected {ID_CHARS} characters from 0-9 and a-z"));
        if text.len() != ID_CHARS {
            return Err(bad());
        }
        let mut number: u64 = 0;
        for c in text.bytes() {
            let digit = ALPHABET.iter().position(|a| *a == c.to_ascii_lowercase()).ok_or_else(bad)? as u64;
            number = number.checked_mul(32).ok_or_else(bad)? | digit;
        }
        JobId::from_number(number).ok_or_else(bad)
    }
}

/// An ID source: makes job IDs that grow, even if the clock steps back.
///
/// The upper 41 bits are milliseconds since 2020, the lower 22 bits are a count. One source never makes an ID twice,
/// and a source that starts after the last ID of its store continues from there.
///
/// If several sources make IDs for one store, each needs its own number, which is kept in the lowest bits.
#[derive(Debug)]
pub struct JobIds {
    last: u64,
    /// The smallest difference between two IDs. The bits below it hold the source's number.
    step: u64,
    source: u64,
}

const ID_EPOCH_MS: u64 = 1_577_836_800_000;
const COUNT_BITS: u32 = 22;
const SOURCE_BITS: u32 = 10;

impl JobIds {
    /// Creates the only source of a store. Its IDs are greater than `last`.
    pub const fn after(last: Option<JobId>) -> JobIds {
        let last = match last {
            Some(id) => id.0,
            None => 0,
        };
        JobIds { last, step: 1, source: 0 }
    }

    /// Creates one of up to 1024 sources. Sources with different numbers never make the same ID, even in the same
    /// millisecond.
    pub const fn of_source(source: u64, last: Option<JobId>) -> JobIds {
        let (step, ids) = (1 << SOURCE_BITS, JobIds::after(last));
        JobIds { last: ids.last - ids.last % step, step, source: source % step }
    }

    /// Makes the next ID.
    pub fn next(&mut self, now: Timestamp) -> JobId {
        self.last = self.following(now);
        JobId(self.last | self.source)
    }

    fn following(&self, now: Timestamp) -> u64 {
        first_of(now).max(self.last + self.step)
    }
}

/// Returns the lowest ID of the millisecond of `now`.
const fn first_of(now: Timestamp) -> u64 {
    now.as_millis().saturating_sub(ID_EPOCH_MS) << COUNT_BITS
}

/// A range of job IDs that one of several sources has reserved in its store, valid while the source owns its number.
///
/// The owner of a number reserves IDs up to a bound and makes none beyond it. The next owner of the number starts at
/// that bound. So no ID is made twice, whatever the clocks do and however late a source learns that it no longer owns
/// its number.
#[derive(Debug)]
pub struct ReservedIds {
    ids: JobIds,
    until: Timestamp,
    below: u64,
}

impl ReservedIds {
    /// The count of source numbers; they start at 0.
    pub const SOURCES: u64 = 1 << SOURCE_BITS;

    /// Returns the lower bound of a reservation for IDs made from `now` on and after `last`.
    pub fn floor(now: Timestamp, last: Option<JobId>) -> u64 {
        first_of(now).max(last.map_or(0, JobId::number))
    }

    /// Returns the size of a reservation that lasts for `length`.
    pub fn span(length: Duration) -> u64 {
        u64::try_from(length.as_millis()).unwrap_or(u64::MAX >> COUNT_BITS) << COUNT_BITS
    }

    /// Creates the source with this number. It owns the number `until` that time, and has reserved the IDs from `from`
    /// to `below`.
    pub const fn of_source(number: u64, from: Option<JobId>, until: Timestamp, below: u64) -> ReservedIds {
        ReservedIds { ids: JobIds::of_source(number, from), until, below }
    }

    /// Returns the last ID made, or the lower bound if none was made.
    pub const fn last(&self) -> Option<JobId> {
        JobId::from_number(self.ids.last)
    }

    /// Extends the ownership of the number and the reservation.
    pub fn prolong(&mut self, until: Timestamp, below: u64) {
        (self.until, self.below) = (until, below);
    }

    /// Ends the ownership of the number: no more IDs are made.
    pub fn give_up(&mut self) {
        self.prolong(Timestamp::ZERO, 0);
    }

    /// Makes the next ID; `None` if the number is no longer owned or the reservation is used up.
    pub fn next(&mut self, now: Timestamp) -> Option<JobId> {
        let fits = now < self.until && (self.ids.following(now) | self.ids.source) < self.below;
        fits.then(|| self.ids.next(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_id_is_read_as_it_is_written() {
        for number in [1, 31, 32, 123_456_789_012_345_678, i64::MAX as u64] {
            let id = JobId::from_number(number).unwrap();
            assert_eq!(id.to_string().len(), ID_CHARS);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        }
        for bad in ["", "0000000000000", "zzzzzzzzzzzzz", "000000000000l", "00000000000001", "é00000000000"] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
        assert_eq!((JobId::from_number(0), JobId::from_number(1 << 63)), (None, None));
    }

    #[test]
    fn texts_sort_as_the_ids_do() {
        let ids = [1, 40, 5_000, 1 << 40].map(|number| JobId::from_number(number).unwrap().to_string());
        assert!(ids.is_sorted());
    }

    #[test]
    fn ids_grow_also_when_the_clock_steps_back() {
        let mut ids = JobIds::after(None);
        let (early, late) = (Timestamp::from_millis(1_700_000_000_000), Timestamp::from_millis(1_700_000_000_001));
        let drawn = [ids.next(early), ids.next(early), ids.next(late), ids.next(early)];
        assert!(drawn.is_sorted_by(|a, b| a < b));
        assert!(JobIds::after(Some(drawn[3])).next(early) > drawn[3]);
    }

    #[test]
    fn sources_of_one_store_never_meet() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let mut sources: Vec<JobIds> = (0..3).map(|source| JobIds::of_source(source, None)).collect();
        let mut drawn: Vec<JobId> = (0..9000).map(|n| sources[n % 3].next(now)).collect();
        let last = drawn[8999];
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 9000);
        assert!(JobIds::of_source(1023, Some(last)).next(Timestamp::ZERO) > last);
    }

    #[test]
    fn a_source_makes_ids_only_while_it_holds_its_number() {
        let (now, second) = (Timestamp::from_millis(1_700_000_000_000), Duration::from_secs(1));
        let reserved = |from: u64, now: Timestamp| {
            ReservedIds::of_source(7, JobId::from_number(from), now + second, from + ReservedIds::span(second))
        };
        let first_floor = ReservedIds::floor(now, None);
        let mut first = reserved(first_floor, now);
        assert!(first.next(now).is_some() && first.next(now + second / 2).is_some());
        let last = first.last();
        assert_eq!((first.next(now + second), first.last()), (None, last), "it no longer owns the number");

        // The clock goes back an hour: the reserved IDs may be used up, and no more are made.
        let hour_ago = now - Duration::from_secs(3600);
        let mut made: Vec<JobId> = Vec::new();
        while let Some(id) = first.next(hour_ago) {
            made.push(id);
        }
        assert!(made.len() > 1_000_000 && made.is_sorted());
        // The next owner of the number starts at that bound, whatever its clock says.
        let mut second_holder = reserved(first_floor + ReservedIds::span(second), hour_ago);
        assert!(second_holder.next(hour_ago) > made.last().copied());

        first.prolong(now + 2 * second, ReservedIds::floor(now, first.last()) + ReservedIds::span(second));
        assert!(first.next(now + second) > made.last().copied());
        first.give_up();
        assert_eq!(first.next(now), None);
    }

    #[test]
    fn a_job_id_has_its_time_above_its_count() {
        let now = Timestamp::from_millis(1_700_000_000_123);
        let mut ids = JobIds::after(None);
        let [first, second] = [ids.next(now), ids.next(now)].map(JobId::number);
        assert_eq!(first >> COUNT_BITS, 1_700_000_000_123 - ID_EPOCH_MS);
        assert_eq!(second, first + 1);
        // Before 2020 there is only the count.
        assert_eq!(JobIds::after(None).next(Timestamp::ZERO).number(), 1);
        assert_eq!(JobIds::after(JobId::from_number(41)).next(Timestamp::ZERO).number(), 42);
    }

    #[test]
    fn an_id_of_one_of_several_sources_ends_with_the_number_of_its_source() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let last = JobId::from_number(5 * ReservedIds::SOURCES + 900);
        for source in [0, 1, 7, 1023] {
            let mut ids = JobIds::of_source(source, last);
            for now in [Timestamp::ZERO, now, now] {
                assert_eq!(ids.next(now).number() % ReservedIds::SOURCES, source);
            }
            let next = JobIds::of_source(source, last).next(Timestamp::ZERO).number();
            assert_eq!(next, 6 * ReservedIds::SOURCES + source, "the first one of its own after the last ID");
        }
        assert_eq!(JobIds::of_source(1024 + 7, None).next(now), JobIds::of_source(7, None).next(now));
    }

    #[test]
    fn a_reservation_is_used_up_to_its_bound_and_not_beyond() {
        let (until, step) = (Timestamp::from_millis(1), ReservedIds::SOURCES);
        let made = |below: u64| {
            let mut ids = ReservedIds::of_source(7, JobId::from_number(10 * step), until, below);
            assert_eq!(ids.last(), JobId::from_number(10 * step), "none is made yet");
            let next = |_| {
                let id = ids.next(Timestamp::ZERO)?.number();
                assert_eq!(ids.last().map(|last| last.number() / step), Some(id / step));
                Some(id)
            };
            (0..9).map_while(next).collect::<Vec<u64>>()
        };
        assert_eq!(made(12 * step + 7), [11 * step + 7], "the bound itself belongs to the next owner");
        assert_eq!(made(12 * step + 8), [11 * step + 7, 12 * step + 7]);
    }

    #[test]
    fn a_number_is_owned_until_the_end_of_its_time_exclusively() {
        let until = Timestamp::from_millis(1_700_000_000_000);
        let mut ids = ReservedIds::of_source(7, None, until, u64::MAX);
        assert!(ids.next(until - Duration::from_micros(1)).is_some());
        assert_eq!((ids.next(until), ids.next(until + Duration::from_secs(1))), (None, None));
    }

    #[test]
    fn a_reservation_starts_at_its_time_or_after_the_last_id_and_spans_its_length() {
        let now = Timestamp::from_millis(ID_EPOCH_MS + 10);
        let of_now = 10 << COUNT_BITS;
        assert_eq!(ReservedIds::floor(now, None), of_now);
        assert_eq!(ReservedIds::floor(now, JobId::from_number(5)), of_now);
        assert_eq!(ReservedIds::floor(now, JobId::from_number(of_now + 5)), of_now + 5, "its clock was ahead");
        assert_eq!(ReservedIds::span(Duration::from_millis(3)), 3 << COUNT_BITS);
        assert_eq!(ReservedIds::span(Duration::MAX), ReservedIds::span(Duration::from_millis(u64::MAX >> COUNT_BITS)));
    }
}
