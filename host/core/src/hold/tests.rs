//! Tests of holds: their texts, and which jobs they hold.

use super::*;
use crate::author::Author;

const NOW: Timestamp = Timestamp::from_millis(1_000);
const SECOND: Duration = Duration::from_secs(1);

fn scope(text: &str) -> HoldScope {
    text.parse().unwrap()
}

fn hold(text: &str, until: Option<Timestamp>) -> Hold {
    Hold { scope: scope(text), until, reason: HoldReason::default(), by: None, since: NOW }
}

fn table(holds: &[(&str, Option<Timestamp>)]) -> HoldTable {
    holds.iter().map(|(scope, until)| hold(scope, *until)).collect()
}

fn lane(group: &str, key: &str) -> Lane {
    Lane { group: group.parse().unwrap(), key: (!key.is_empty()).then(|| key.parse().unwrap()) }
}

/// Returns the scope of the hold on a job of `words/count`.
fn on_job(table: &HoldTable, lane: &Lane, now: Timestamp) -> Option<String> {
    table.on_job(&"words/count".parse().unwrap(), lane, now).map(|hold| hold.scope.to_string())
}

#[test]
fn a_scope_reads_as_it_is_written() {
    for text in
        ["all", "plugin:words", "task:words/count", "group:g", "group:words/count", "key:a", "group:g key:a b: key:c"]
    {
        assert_eq!(scope(text).to_string(), text);
    }
    assert_eq!(scope("key:group:g key:a"), HoldScope::Key { group: None, key: "group:g key:a".parse().unwrap() });
    for bad in ["", "All", "plugin", "plugin:", "task:words", "group:G", "group:g a", "group:g key:", "key:", "key:a\n"]
    {
        assert!(bad.parse::<HoldScope>().is_err(), "{bad:?}");
    }
}

#[test]
fn each_scope_holds_its_own_jobs_and_no_others() {
    let [of_job, others] = [lane("g", "a"), lane("h", "b")];
    for text in ["all", "plugin:words", "task:words/count", "group:g", "key:a", "group:g key:a"] {
        let table = table(&[(text, None)]);
        assert_eq!(on_job(&table, &of_job, NOW).as_deref(), Some(text));
        let is_wide = ["all", "plugin:words", "task:words/count"].contains(&text);
        assert_eq!(on_job(&table, &others, NOW).is_some(), is_wide, "{text}");
        assert_eq!((table.is_on_lane(&of_job, NOW), table.is_on_lane(&others, NOW)), (!is_wide, false), "{text}");
        assert_eq!(table.is_on_group(&of_job.group, NOW), text == "group:g");
    }
    for text in ["plugin:other", "task:words/list", "group:a", "key:g", "group:h key:a"] {
        assert_eq!(on_job(&table(&[(text, None)]), &of_job, NOW), None, "{text}");
    }
    assert_eq!(on_job(&table(&[("key:a", None)]), &lane("g", ""), NOW), None, "a job without a key has no key's hold");
}

#[test]
fn a_hold_ends_at_its_time_and_not_before() {
    let table = table(&[("key:a", Some(NOW + SECOND))]);
    let (of_job, end) = (lane("g", "a"), NOW + SECOND);
    let just_before = end - Duration::from_micros(1);
    assert!(on_job(&table, &of_job, just_before).is_some() && on_job(&table, &of_job, end).is_none());
    assert_eq!((table.is_on_lane(&of_job, just_before), table.is_on_lane(&of_job, end)), (true, false));
    assert_eq!((table.next_end(just_before), table.next_end(end)), (Some(end), None));
}

#[test]
fn the_hold_that_lasts_longest_is_named_and_of_equal_ones_the_widest() {
    let (first, last) = (Some(NOW + SECOND), Some(NOW + 2 * SECOND));
    let of_job = lane("g", "a");
    let named = |holds: &[(&str, Option<Timestamp>)]| on_job(&table(holds), &of_job, NOW).unwrap();
    assert_eq!(named(&[("all", first), ("key:a", last), ("group:g", first)]), "key:a");
    assert_eq!(named(&[("all", last), ("group:g key:a", None)]), "group:g key:a");
    assert_eq!(named(&[("key:a", last), ("plugin:words", last), ("group:g", last)]), "plugin:words");
    assert!(HoldEnd::At(Timestamp::from_micros(u64::MAX)) < HoldEnd::Released);
}

#[test]
fn tasks_are_held_by_all_their_plugin_themselves_and_their_group() {
    let tasks = [("words/count", "g"), ("words/list", "g"), ("image/make", "h")]
        .map(|(task, group)| (task.parse().unwrap(), group.parse().unwrap()));
    let open = |holds: &[(&str, Option<Timestamp>)]| {
        table(holds)
            .open_tasks(&tasks, NOW)
            .map(|open| open.iter().map(|(task, _)| task.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(open(&[]), None);
    assert_eq!(open(&[("key:a", None), ("plugin:other", None)]), None, "keys hold lanes, not tasks");
    assert_eq!(open(&[("all", Some(NOW))]), None, "it has ended");
    assert_eq!(open(&[("all", None)]), Some(vec![]));
    assert_eq!(open(&[("plugin:words", None)]), Some(vec!["image/make".to_owned()]));
    assert_eq!(open(&[("task:words/list", None), ("group:h", None)]), Some(vec!["words/count".to_owned()]));
    let scopes = HoldScope::of_tasks(&tasks).len();
    assert_eq!(scopes, 1 + 2 + 3 + 2, "all, the plugins, the tasks, the groups");
}

#[test]
fn a_hold_replaces_the_earlier_one_of_its_scope() {
    let mut table = table(&[("key:a", Some(NOW + SECOND))]);
    table.set(hold("key:a", None));
    assert_eq!((table.len(), table.next_end(NOW)), (1, None));
    assert_eq!(table.get(&scope("key:a")), Some(&hold("key:a", None)));
    assert_eq!(table.remove(&scope("key:a")), Some(hold("key:a", None)));
    assert_eq!((table.remove(&scope("key:a")), table.is_empty()), (None, true));
    assert_eq!((table.is_on_lane(&lane("g", "a"), NOW), table), (false, HoldTable::default()));
}

#[test]
fn the_holds_that_ended_are_known_by_when_they_ended() {
    let at = |seconds: u32| NOW + seconds * SECOND;
    let table = table(&[("key:a", Some(at(1))), ("key:b", Some(at(2))), ("key:c", Some(at(3))), ("key:d", None)]);
    let between = |since, now| table.ended_since(since, now).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(between(at(0), at(2)), ["key:a", "key:b"]);
    assert_eq!(between(at(1), at(2)), ["key:b"]);
    assert!(between(at(2), at(2)).is_empty() && between(at(3), at(1)).is_empty());
    assert_eq!(table.ended(at(3), 2), [scope("key:a"), scope("key:b")]);
    assert_eq!(table.ended(at(9), 9).len(), 3, "one that lasts until it is released has not ended");
}

#[test]
fn a_new_hold_ends_by_the_clock_of_its_store() {
    let new =
        |length| NewHold { scope: HoldScope::All, length, reason: "why".parse().unwrap(), by: Author::token("ann") };
    let set = |length| new(length).set_at(NOW);
    assert_eq!(set(Some(HoldLength::For(SECOND))).until, Some(NOW + SECOND));
    assert_eq!(set(Some(HoldLength::Until(Timestamp::ZERO))).until, Some(Timestamp::ZERO));
    let set = set(None);
    assert_eq!((set.until, set.since, set.by.as_deref(), set.reason.as_str()), (None, NOW, Some("ann"), "why"));
}

#[test]
fn a_reason_is_bounded_and_printable() {
    let max = bounds::HOLD_REASON_BYTES_MAX;
    assert_eq!("x".repeat(max).parse::<HoldReason>().unwrap().as_str().len(), max);
    let reason = |text: &str| text.parse::<HoldReason>().unwrap_err().reason;
    assert_eq!(reason(&"x".repeat(max + 1)), "expected at most 500 bytes, got 501");
    assert_eq!(reason("a\u{0}"), "control characters are not allowed");
}

fn of_key(by: Author, length: Duration, reason: &str) -> NewHold {
    NewHold { scope: scope("key:acme"), length: Some(HoldLength::For(length)), reason: reason.parse().unwrap(), by }
}

#[test]
fn a_plugin_lengthens_what_an_operator_said_and_does_not_replace_it() {
    let plugin = Author::plugin(&"pay".parse().unwrap());
    let ann = of_key(Author::token("ann"), SECOND, "fraud").set_at(NOW);
    let longer = of_key(plugin.clone(), 60 * SECOND, "429").set_over(Some(&ann), NOW).unwrap();
    let marked = "fraud (lengthened by plugin:pay)";
    assert_eq!((longer.by.as_deref(), longer.reason.as_str(), longer.since), (Some("ann"), marked, NOW));
    assert_eq!(longer.until, Some(NOW + 60 * SECOND));
    let again = of_key(plugin.clone(), 90 * SECOND, "429").set_over(Some(&longer), NOW).unwrap();
    assert_eq!(again.reason.as_str(), marked);
    let other = Author::plugin(&"ship".parse().unwrap());
    let by_other = of_key(other, 120 * SECOND, "503").set_over(Some(&again), NOW).unwrap();
    assert_eq!(by_other.reason.as_str(), "fraud (lengthened by plugin:ship)", "one mark: of who did it last");
    let back = of_key(plugin.clone(), 180 * SECOND, "429").set_over(Some(&by_other), NOW).unwrap();
    assert_eq!(back.reason.as_str(), marked);
    let wordless = of_key(Author::token("ann"), SECOND, "").set_at(NOW);
    let longer_than_nothing = of_key(plugin.clone(), 60 * SECOND, "429").set_over(Some(&wordless), NOW).unwrap();
    assert_eq!(longer_than_nothing.reason.as_str(), "(lengthened by plugin:pay)");
    let wordy = of_key(Author::token("ann"), SECOND, &"é".repeat(250)).set_at(NOW);
    let cut = of_key(plugin.clone(), 60 * SECOND, "429").set_over(Some(&wordy), NOW).unwrap();
    let reason = cut.reason.as_str();
    assert!(
        reason.len() <= bounds::HOLD_REASON_BYTES_MAX && reason.ends_with("é (lengthened by plugin:pay)"),
        "{reason}"
    );
    assert_eq!(of_key(plugin.clone(), SECOND, "429").set_over(Some(&longer), NOW), None);
    let over = of_key(plugin.clone(), 60 * SECOND, "429").set_over(Some(&ann), NOW + SECOND).unwrap();
    assert_eq!((over.by.as_deref(), over.reason.as_str()), (Some("plugin:pay"), "429"), "hers had ended");
    let own = of_key(plugin, 90 * SECOND, "503").set_over(Some(&over), NOW + SECOND).unwrap();
    assert_eq!(own.reason.as_str(), "503");
    let bob = of_key(Author::token("bob"), SECOND, "").set_over(Some(&longer), NOW).unwrap();
    assert_eq!((bob.by.as_deref(), bob.until), (Some("bob"), Some(NOW + SECOND)), "an operator replaces all");
}

#[test]
fn plugins_leave_room_for_operators_and_keys_for_wider_holds() {
    let plugin = of_key(Author::plugin(&"pay".parse().unwrap()), SECOND, "");
    let operator = of_key(Author::token("ann"), SECOND, "");
    let wide = NewHold { scope: HoldScope::All, ..operator.clone() };
    assert!(plugin.others_max() < operator.others_max() && operator.others_max() < wide.others_max());
}
