use std::time::Duration;

use super::*;

fn at(text: &str) -> Timestamp {
    let instant: Instant = text.parse().unwrap();
    Timestamp::from_micros(instant.as_microsecond() as u64)
}

fn cron(expression: &str, zone: &str) -> Timing {
    Timing::Cron { expression: expression.to_owned(), zone: zone.to_owned() }
}

/// Returns the ticks from `from` on, up to `until`.
fn ticks(timing: &Timing, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let times = Times::of(timing, from).unwrap();
    let next = |after: &Timestamp| times.next(*after).ok().filter(|at| *at <= until);
    std::iter::successors(next(&from), next).collect()
}

/// Finds the ticks by looking at every minute of real time: what the clock shows then, and which times it skipped just before.
fn slowly(expression: &str, zone: &str, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let times = CronTimes::new(expression, zone, from).unwrap();
    let minute = SignedDuration::from_mins(1);
    let shown = |instant: Instant| times.zone.to_datetime(instant);
    let is_named = |time: DateTime| times.cron.is_time_matching(&time).unwrap();
    let (mut found, mut instant, end) = (Vec::new(), instant(from).unwrap(), instant(until).unwrap());
    // The furthest time that the clock has shown.
    let mut furthest = shown(instant);
    while instant < end {
        instant += minute;
        let time = shown(instant);
        let mut is_tick = is_named(time);
        if times.has_fixed_hours {
            is_tick &= time > furthest;
            let mut skipped = furthest + minute;
            while skipped < time {
                is_tick |= is_named(skipped);
                skipped += minute;
            }
        }
        furthest = furthest.max(time);
        if is_tick {
            found.push(Timestamp::from_micros(instant.as_microsecond() as u64));
        }
    }
    found
}

fn random_expression(random: &mut fastrand::Rng) -> String {
    fn field(random: &mut fastrand::Rng, low: u32, high: u32) -> String {
        let one = |random: &mut fastrand::Rng| random.u32(low..=high);
        match random.u32(0..5) {
            0 => "*".to_owned(),
            1 => format!("*/{}", random.u32(1..=(high - low).min(12))),
            2 => {
                let (first, second) = (one(random), one(random));
                format!("{}-{}", first.min(second), first.max(second))
            }
            3 => format!("{},{}", one(random), one(random)),
            _ => one(random).to_string(),
        }
    }
    let minute = field(random, 0, 59);
    // Clocks change at night: most expressions are about these hours.
    let hour = if random.bool() { field(random, 0, 4) } else { field(random, 0, 23) };
    let (day, month, weekday) = match random.u32(0..4) {
        0 => (field(random, 1, 28), "*".to_owned(), "*".to_owned()),
        1 => ("*".to_owned(), field(random, 1, 12), "*".to_owned()),
        2 => ("*".to_owned(), "*".to_owned(), field(random, 0, 6)),
        _ => ("*".to_owned(), "*".to_owned(), "*".to_owned()),
    };
    format!("{minute} {hour} {day} {month} {weekday}")
}

/// Compares the moments of random expressions with those that are found minute by minute, over days around each change of the
/// clock in two years.
fn compare(zones: &[&str], expressions: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (start, end) = (at("2026-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"));
    for zone in zones {
        let times = find_zone(zone).unwrap();
        let changes = times.following(instant(start).unwrap()).map(|change| change.timestamp());
        let changes = changes.take_while(|change| *change < instant(end).unwrap());
        let mut places: Vec<Timestamp> =
            changes.map(|change| Timestamp::from_micros(change.as_microsecond() as u64)).collect();
        places.push(start + Duration::from_secs(random.u64(1..600) * 86_400));
        for _ in 0..expressions {
            let expression = random_expression(&mut random);
            for place in &places {
                let from = *place - Duration::from_secs(36 * 3600);
                let until = *place + Duration::from_secs(36 * 3600);
                let found = ticks(&cron(&expression, zone), from, until);
                assert_eq!(found, slowly(&expression, zone, from, until), "{expression} in {zone} around {place:?}");
            }
        }
    }
}

/// Zones with the rarest clocks: changes of half an hour and of two hours, at midnight, twice a year around Ramadan, winter time
/// that is negative, quarters of an hour, and no change at all.
const RARE: [&str; 12] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "America/Havana",
    "Asia/Beirut",
    "Africa/Casablanca",
    "Europe/Dublin",
    "Pacific/Chatham",
    "America/Nuuk",
    "Asia/Kathmandu",
    "Etc/UTC",
];

#[test]
fn moments_are_those_that_are_found_minute_by_minute() {
    compare(&RARE, 6, 7);
}

#[test]
fn fixed_times_that_the_clock_skips_come_after_the_gap_and_those_that_come_twice_once() {
    let nightly = cron("30 2 * * *", "Europe/Berlin");
    // In 2026 the clock skips 2:00 to 3:00 on 29 March, and shows it twice on 25 October.
    let spring = ticks(&nightly, at("2026-03-28T12:00:00Z"), at("2026-03-30T12:00:00Z"));
    assert_eq!(spring, [at("2026-03-29T01:00:00Z"), at("2026-03-30T00:30:00Z")]);
    let autumn = ticks(&nightly, at("2026-10-24T12:00:00Z"), at("2026-10-26T12:00:00Z"));
    assert_eq!(autumn, [at("2026-10-25T00:30:00Z"), at("2026-10-26T01:30:00Z")]);
    // Several that are skipped become one.
    let often = cron("0,15,30,45 2 * * *", "Europe/Berlin");
    let spring = ticks(&often, at("2026-03-29T00:00:00Z"), at("2026-03-29T12:00:00Z"));
    assert_eq!(spring, [at("2026-03-29T01:00:00Z")]);
}

#[test]
fn hours_with_a_star_and_intervals_follow_real_time() {
    let hourly = cron("30 * * * *", "Europe/Berlin");
    for from in ["2026-03-28T20:00:00Z", "2026-10-24T20:00:00Z"] {
        let found = ticks(&hourly, at(from), at(from) + Duration::from_secs(12 * 3600));
        assert_eq!(found.len(), 12);
        assert!(found.windows(2).all(|pair| pair[1].since(pair[0]) == Duration::from_secs(3600)));
    }
    let every = Timing::Every(Duration::from_secs(900));
    let every = Times::of(&every, at("2026-03-29T00:00:00Z")).unwrap();
    assert_eq!(every.next(at("2026-03-29T00:07:00Z")), Ok(at("2026-03-29T00:15:00Z")));
    assert_eq!(every.next(at("2026-03-29T00:15:00Z")), Ok(at("2026-03-29T00:30:00Z")));
}

#[test]
fn times_that_are_no_times_are_refused_with_what_is_expected() {
    let now = at("2026-06-01T00:00:00Z");
    let refused = |timing: &Timing| check_timing(timing, now).unwrap_err().to_string();
    assert!(refused(&cron("0 3 * *", "UTC")).starts_with("invalid cron expression `0 3 * *`: expected `minute hour"));
    assert!(refused(&cron("0 0 3 * * *", "UTC")).contains("expected `minute hour"), "no seconds");
    assert!(refused(&cron("61 3 * * *", "UTC")).contains("expected `minute hour"));
    assert!(refused(&cron("0 0 30 2 *", "UTC")).contains("none comes"));
    assert!(refused(&cron("0 3 * * *", "Europe/Berln")).contains("did you mean `Europe/Berlin`?"));
    assert!(refused(&cron(&"1,".repeat(1000), "UTC")).contains("expected at most 256 bytes, got 2000"));
    for seconds in [0, 400 * 86_400] {
        assert!(refused(&Timing::Every(Duration::from_secs(seconds))).contains("from 1s to 366d"));
    }
    assert!(refused(&Timing::Every(Duration::from_millis(1500))).contains("whole seconds"));
    for good in ["0 3 * * *", "@daily", "0 0 29 2 *", "*/5 8-18 * * MON-FRI", "0 12 L * *", "0 9 * * MON#1"] {
        check_timing(&cron(good, "europe/berlin"), now).unwrap();
    }
    assert_eq!(zone_name("europe/berlin"), Ok("Europe/Berlin"));
}

#[test]
fn days_that_must_match_both_are_refused_since_their_moments_are_decades_apart() {
    let error = check_timing(&cron("0 0 29 2 +MON", "UTC"), at("2026-06-01T00:00:00Z")).unwrap_err();
    assert!(error.to_string().contains("expected no `+`"), "{error}");
}

#[test]
fn a_search_ends_at_the_horizon() {
    let now = at("2026-06-01T00:00:00Z");
    for never in ["0 0 31 2,4,6,9,11 *", "0 0 30 2 *", "59 23 30,31 2 *"] {
        let Timing::Cron { expression, zone } = cron(never, "UTC") else { unreachable!() };
        let times = CronTimes::new(&expression, &zone, now).unwrap();
        assert_eq!(times.until, 2035);
        let years = times.cron.pattern.years.get_set_values(ALL_BIT);
        assert_eq!(years.last(), Some(&2035), "{never}: croner looks at the days of no later year");
        assert_eq!(times.next(now), None);
    }
    // The same expression is read anew for a later time.
    let later = at("2040-01-01T00:00:00Z");
    for (from, leap) in [(now, "2028-02-29T00:00:00Z"), (later, "2040-02-29T00:00:00Z")] {
        assert_eq!(Times::of(&cron("0 0 29 2 *", "UTC"), from).unwrap().next(from), Ok(at(leap)));
    }
}

#[test]
fn a_zone_that_this_host_does_not_know_is_an_error_and_no_end() {
    let unknown = cron("0 3 * * *", "Europe/Atlantis");
    assert!(matches!(Times::of(&unknown, at("2026-06-01T00:00:00Z")), Err(TimingError::Zone { .. })));
}

#[test]
fn hostile_expressions_end_soon() {
    let now = at("2026-06-01T00:00:00Z");
    let mut random = fastrand::Rng::with_seed(3);
    let letters: Vec<char> = "0123456789*/,-?LW#@ MONJAN\u{0}é".chars().collect();
    for _ in 0..2000 {
        let text: String = (0..random.usize(0..40)).map(|_| letters[random.usize(0..letters.len())]).collect();
        let _ = check_timing(&cron(&text, "Europe/Berlin"), now);
    }
}

#[test]
fn the_next_moments_say_how_the_clock_touches_them() {
    let spec = wharf_core::schedule::ScheduleSpec {
        task: "report/build".parse().unwrap(),
        payload: b"{}".as_slice().into(),
        key: None,
        priority: 0,
        timing: cron("30 2 * * *", "Europe/Berlin"),
        missed: Default::default(),
        window: bounds::SCHEDULE_WINDOW_DEFAULT,
        overlap: Default::default(),
        spread: Duration::ZERO,
        pause_after: None,
        tick_as: None,
    };
    let mut schedule = Schedule::new("nightly".parse().unwrap(), spec, at("2026-03-27T12:00:00Z"));
    let timing = schedule.spec.timing.clone();
    let times = Times::of(&timing, at("2026-03-27T12:00:00Z")).unwrap();
    schedule.reschedule(at("2026-03-27T12:00:00Z"), &mut |after| times.next(after).ok());
    let moments = next_moments(&schedule);
    let texts: Vec<(&str, Option<ClockChange>)> =
        moments.iter().map(|moment| (moment.local.as_str(), moment.change)).collect();
    let expected = [
        ("2026-03-28T02:30:00+01:00", None),
        ("2026-03-29T03:00:00+02:00", Some(ClockChange::Skipped)),
        ("2026-03-30T02:30:00+02:00", None),
        ("2026-03-31T02:30:00+02:00", None),
        ("2026-04-01T02:30:00+02:00", None),
    ];
    assert_eq!(texts, expected);
}
