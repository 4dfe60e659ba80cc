use std::time::Duration;

use super::*;
use crate::author::Author;
use crate::hold::{HoldReason, HoldScope, NewHold};
use crate::ids::{Group, JobId};
use crate::job::{Batch, Job, JobStatus, NewJob, State, StateName};
use crate::limits::{LimitTable, Limits};
use crate::outcome::{OutcomeKind, Report};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1_786_622_400_000);

fn id(number: u64) -> JobId {
    JobId::from_number(number).unwrap()
}

fn job(state: State) -> Job {
    let key = Some("acme".parse().unwrap());
    let new = Job::inserted(NewJob::ready(id(7), "image/make".parse().unwrap(), key, [].into()), NOW);
    Job { status: JobStatus { state, ..new.status }, ..new }
}

fn query(text: &str) -> JobQuery {
    JobQuery::parse(text, NOW).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn finds(text: &str, job: &Job) -> bool {
    query(text).matches(Candidate { job, payload: &job.payload, digests: &[], is_due: true }, &WaitView::default())
}

#[test]
fn a_query_reads_back_from_its_text() {
    for text in [
        "",
        "state:ready,failed,cancelled",
        "id:0000000000007,0000000000009 task:image/make,a/b plugin:image key:acme,\"\",\"a b\"",
        r#"key:"a \"b\" \\c","d,e""#,
        "batch:0000000000007 parent:0000000000009 outcome:trapped,timed-out",
        "fingerprint:f1:00ff3ad41b2c9e07,f1:0000000000000001",
        "since:2026-08-13T12:00:00.000001Z until:2026-08-14T00:00:00.000000Z",
        "finished-since:2026-08-13T12:00:00.000000Z finished-until:2026-08-14T00:00:00.000000Z",
        "text:\"connection  reset = \\\"x\\\"\" payload./tenant=42 payload./a/0/b=\"x y\" payload.\"/a b\"=\"\"",
    ] {
        assert_eq!(query(text).to_string(), text);
        assert_eq!(query(text).is_empty(), text.is_empty());
    }
    assert_eq!(query("  key:a\n\ttext:é ").to_string(), "key:a text:é");
    assert_eq!(query("since:2h").to_string(), format!("since:{}", format_moment(NOW - Duration::from_secs(7200))));
}

#[test]
fn a_mistake_is_told_with_its_place() {
    for (text, place, reason) in [
        ("é stat:failed", 2, "expected `:` and a value after `é`"),
        ("key:é stat:failed", 7, "unknown field `stat`; expected one of `state`"),
        ("state:failed,lost", 1, "unknown state `lost`; expected one of `ready`, `delayed`"),
        ("outcome:lost", 1, "unknown outcome `lost`"),
        ("task:image", 1, "invalid task `image`"),
        ("key:a key:b", 7, "`key` is given twice; write its values with commas"),
        ("batch:0000000000007,0000000000008", 1, "`batch` has one value, got 2"),
        ("key:\"a b", 5, "the quote is not closed"),
        ("since:tomorrow", 1, "invalid moment `tomorrow`"),
        ("payload.tenant=42", 1, "invalid JSON pointer `tenant`"),
        ("payload./tenant", 16, "expected `=` and a value"),
        ("text:\"\"", 1, "expected at least one character"),
    ] {
        let error = JobQuery::parse(text, NOW).unwrap_err();
        assert_eq!(error.place, place, "{text}: {error}");
        assert!(error.reason.contains(reason), "{text}: {error}");
    }
    let long = format!("text:{}", "x".repeat(crate::bounds::FILTER_BYTES_MAX));
    assert!(JobQuery::parse(&long, NOW).unwrap_err().reason.contains("expected at most 16384 bytes"));
    let hostile = format!("{}:x", "\u{202e}".repeat(9999));
    assert!(JobQuery::parse(&hostile, NOW).unwrap_err().to_string().len() < 1000);
}

#[test]
fn each_condition_decides() {
    let mut failed = job(State::Failed);
    failed.finished_at = Some(NOW + Duration::from_secs(5));
    failed.report = Some(Report { kind: OutcomeKind::Trapped, text: "Connection RESET by peer".to_owned() });
    failed.payload = br#"{"tenant": 42}"#.as_slice().into();
    failed.batch = Some(Batch { id: id(3), topic: "a.b".parse().unwrap() });
    failed.lineage.parent = Some(id(2));
    failed.fingerprint = Some("f1:00ff3ad41b2c9e07".parse().unwrap());
    for (text, found) in [
        ("", true),
        ("state:failed", true),
        ("state:cancelled,failed", true),
        ("state:waiting,running,succeeded,cancelled", false),
        ("state:ready,delayed,retrying,blocked,held", false),
        ("id:0000000000007", true),
        ("id:0000000000008", false),
        ("task:image/make", true),
        ("task:image/other", false),
        ("plugin:image", true),
        ("plugin:make", false),
        ("key:acme", true),
        ("key:\"\",other", false),
        ("batch:0000000000003", true),
        ("batch:0000000000002", false),
        ("parent:0000000000002", true),
        ("parent:0000000000003", false),
        ("outcome:trapped,failed", true),
        ("outcome:returned", false),
        ("fingerprint:f1:0000000000000001,f1:00ff3ad41b2c9e07", true),
        ("fingerprint:f1:0000000000000001", false),
        ("text:\"connection reset\"", true),
        ("text:refused", false),
        ("payload./tenant=42", true),
        ("payload./tenant=43", false),
        ("state:failed payload./tenant=42 text:peer key:acme", true),
        ("state:failed payload./tenant=42 text:peer key:other", false),
    ] {
        assert_eq!(finds(text, &failed), found, "{text}");
    }
    let at = format_moment(NOW);
    let later = format_moment(NOW + Duration::from_micros(1));
    for (text, found) in [
        (format!("since:{at}"), true),
        (format!("since:{later}"), false),
        (format!("until:{at}"), false),
        (format!("until:{later}"), true),
        (format!("finished-since:{at}"), true),
        (format!("finished-until:{later}"), false),
    ] {
        assert_eq!(finds(&text, &failed), found, "{text}");
        assert!(!text.starts_with("finished") || !finds(&text, &job(State::Waiting { due: NOW })), "{text}");
    }
}

#[test]
fn a_job_that_succeeded_has_returned_whatever_its_earlier_attempts_did() {
    let mut succeeded = job(State::Succeeded);
    succeeded.report = Some(Report { kind: OutcomeKind::Trapped, text: "why".to_owned() });
    assert!(finds("outcome:returned", &succeeded) && !finds("outcome:trapped", &succeeded));
    assert!(!finds("text:why", &succeeded));
    for (text, states) in [
        ("outcome:returned", &[StateName::Succeeded][..]),
        ("outcome:trapped", &[StateName::Waiting, StateName::Running, StateName::Failed, StateName::Cancelled]),
        ("finished-since:2h", &[StateName::Succeeded, StateName::Failed, StateName::Cancelled]),
        ("state:held", &[StateName::Waiting]),
        ("fingerprint:f1:0000000000000001", &[StateName::Failed]),
    ] {
        let may: Vec<StateName> = StateName::ALL.into_iter().filter(|state| query(text).may_be(*state)).collect();
        assert_eq!(may, states, "{text}");
    }
}

#[test]
fn waiting_jobs_are_told_apart() {
    let mut waiting = job(State::Waiting { due: NOW });
    let kind = |job: &Job, is_due, view: &WaitView| {
        let found: Vec<WaitKind> = WaitKind::ALL
            .into_iter()
            .filter(|kind| {
                query(&format!("state:{}", kind.as_str()))
                    .matches(Candidate { job, payload: &[], digests: &[], is_due }, view)
            })
            .collect();
        assert_eq!(found.len(), 1);
        assert!(query("state:waiting").matches(Candidate { job, payload: &[], digests: &[], is_due }, view));
        found[0]
    };
    let mut view = WaitView { now: NOW, ..WaitView::default() };
    assert_eq!(kind(&waiting, true, &view), WaitKind::Ready);
    assert_eq!(kind(&waiting, false, &view), WaitKind::Delayed);
    waiting.status.attempt = 1;
    assert_eq!(kind(&waiting, false, &view), WaitKind::Retrying);
    assert_eq!(kind(&waiting, true, &view), WaitKind::Ready, "it is due again");

    let group: Group = "image/make".parse().unwrap();
    let limits = |per_key, total| {
        let mut table = LimitTable::default();
        table.declare(group.clone(), Limits { per_key, total });
        table
    };
    view.add_running(&waiting.lane, 2);
    for (per_key, total, expected) in [
        (Some(2), None, WaitKind::Blocked),
        (Some(3), None, WaitKind::Ready),
        (None, Some(2), WaitKind::Blocked),
        (Some(3), Some(3), WaitKind::Ready),
        (Some(0), None, WaitKind::Blocked),
    ] {
        view.limits = limits(per_key, total);
        assert_eq!(kind(&waiting, true, &view), expected, "{per_key:?} {total:?}");
    }
    let hold = NewHold { scope: HoldScope::All, length: None, reason: HoldReason::default(), by: Author::anyone() };
    view.holds.set(hold.set_at(NOW));
    assert_eq!(kind(&waiting, true, &view), WaitKind::Held);
    assert_eq!(kind(&waiting, false, &view), WaitKind::Retrying, "it waits for its time first");
}

#[test]
fn a_query_is_cut_to_a_key_and_to_states() {
    let key = "acme".parse().unwrap();
    assert_eq!(query("state:failed").with_key(&key).unwrap().to_string(), "state:failed key:acme");
    assert_eq!(query("key:other,acme").with_key(&key).unwrap().to_string(), "key:acme");
    assert_eq!(query("key:other,\"\"").with_key(&key), None);

    let states = |text: &str| query(text).states;
    for (wanted, allowed, both) in [
        ("", "state:failed", Some("state:failed")),
        ("state:waiting,failed", "state:waiting,running", Some("state:waiting")),
        ("state:waiting", "state:delayed,retrying", Some("state:delayed,retrying")),
        ("state:ready,delayed", "state:waiting", Some("state:ready,delayed")),
        ("state:ready", "state:delayed,failed", None),
        ("state:failed", "state:waiting", None),
    ] {
        let found = query(wanted).with_states(&states(allowed)).map(|query| query.to_string());
        assert_eq!(found.as_deref(), both, "{wanted} and {allowed}");
    }
}

#[test]
fn ids_bound_a_search_by_time_with_room_for_clocks() {
    let slack = crate::bounds::ID_SLACK;
    assert_eq!(query("").id_range(false), (0, u64::MAX >> 1));
    let (lowest, below) = query("since:1d until:0s").id_range(false);
    let first = JobId::first_number_at;
    assert_eq!((lowest, below), (first(NOW - Duration::from_secs(86_400) - slack), first(NOW + slack)));
    // Before 2020 IDs do not tell the time, and an old clock must not hide jobs.
    assert_eq!(query("until:2015-01-01").id_range(false), (0, u64::MAX >> 1));
}

#[test]
fn a_value_in_a_payload_is_found_by_its_path() {
    let json = r#" { "a" : [ 1 , { "b~/c" : "x\n\u00e9\ud83d\ude00\"" } , [] ] , "n": -1.50, "t":true,"o":{},
        "s": "q\\", "é":"ü", "twice":1, "twice":2, "last" : null } "#;
    let finds = |path: &str, wanted: &str| path.parse::<JsonPath>().unwrap().finds(json.as_bytes(), wanted);
    for (path, wanted) in [
        ("/a/0", "1"),
        ("/a/1/b~0~1c", "x\né\u{1f600}\""),
        ("/n", "-1.50"),
        ("/t", "true"),
        ("/s", "q\\"),
        ("/é", "ü"),
        ("/twice", "1"),
        ("/last", "null"),
    ] {
        assert!(finds(path, wanted), "{path}");
    }
    for (path, wanted) in [
        ("/a/0", "10"),
        ("/a/00", "1"),
        ("/a/+0", "1"),
        ("/a/3", ""),
        ("/a/2/0", ""),
        ("/n", "-1.5"),
        ("/t", "tru"),
        ("/o", ""),
        ("/o/x", ""),
        ("/s", "q"),
        ("/é", "u"),
        ("/a/1/b~0~1c", "x"),
        ("/none", "1"),
    ] {
        assert!(!finds(path, wanted), "{path} {wanted}");
    }
}

#[test]
fn what_is_no_json_has_no_value_and_does_no_harm() {
    let path: JsonPath = "/a/b".parse().unwrap();
    let deep = "{\"x\":".repeat(100_000);
    for text in
        ["", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":}", "{a:1}", "[", "\"", "{\"x\":]}", "{\"x\":1 \"a\":{}}", &deep]
    {
        assert!(!path.finds(text.as_bytes(), ""), "{text:.40}");
    }
    assert!(!path.finds(b"{\"a\":{\"b\":\"\xff\"}}", "x"));
    assert!(!path.finds(b"{\"a\":{\"b\":\"\\ud800x\"}}", "x") && !path.finds(b"{\"a\":{\"b\":\"\\u00", ""));
    for bad in ["", "a", "/~", "/~2", &"/x".repeat(33)] {
        assert!(bad.parse::<JsonPath>().is_err(), "{bad}");
    }
}

#[test]
fn moments_are_dates_or_ages() {
    for (text, micros) in [
        ("1970-01-01", 0),
        ("2000-02-29T23:59:59Z", 951_868_799_000_000),
        ("2026-08-13T12:00:00.25Z", 1_786_622_400_250_000),
        ("2100-03-01T00:00:00.1234567Z", 4_107_542_400_123_456),
        ("0s", NOW.as_micros()),
        ("2d", NOW.as_micros() - 172_800_000_000),
    ] {
        let at = parse_moment(text, NOW);
        assert_eq!(at, Some(Timestamp::from_micros(micros)), "{text}");
        assert_eq!(parse_moment(&format_moment(at.unwrap()), NOW), at, "{text}");
    }
    for bad in [
        "",
        "2d3h",
        "d",
        "1w",
        "99999999999999999999s",
        "2026-8-13",
        "2026-02-30",
        "2100-02-29",
        "1969-12-31",
        "2026-08-13T24:00:00Z",
        "2026-08-13T12:00:00",
        "2026-08-13T12:00Z",
        "2026-08-13T12:00:00.Z",
        "2026-13-01",
        "-1s",
    ] {
        assert_eq!(parse_moment(bad, NOW), None, "{bad}");
    }
    assert_eq!(format_moment(Timestamp::from_micros(u64::MAX)), "9999-12-31T23:59:59.999999Z");
}

#[test]
fn a_cursor_reads_back_and_parts_a_list() {
    let mut one = job(State::Failed);
    one.finished_at = Some(NOW);
    for order in [JobOrder::Newest, JobOrder::Finished] {
        let cursor = JobCursor::behind(&one, order);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!(cursor.order(), order);
        assert!(!cursor.is_before(&one, order));
        let older = Job { id: id(6), ..one.clone() };
        assert!(cursor.is_before(&older, order));
        let earlier = Job { id: id(9), finished_at: Some(NOW - Duration::from_micros(1)), ..one.clone() };
        assert_eq!(cursor.is_before(&earlier, order), order == JobOrder::Finished);
    }
    for bad in ["", "x.0000000000007", "1.", ".0000000000007", "9999999999999999999.0000000000007"] {
        assert!(bad.parse::<JobCursor>().is_err(), "{bad}");
    }
}

#[test]
fn ids_that_are_ahead_of_the_clock_end_no_list() {
    let query = query("since:1d until:0s");
    assert_eq!(query.id_range(true), (query.id_range(false).0, u64::MAX >> 1));
    let (first, slack) = (JobId::first_number_at(NOW), crate::bounds::ID_SLACK);
    assert!(!JobId::is_ahead(first, NOW) && JobId::is_ahead(first, NOW - slack - slack));
}

#[test]
fn conditions_on_payloads_are_few_and_on_different_places() {
    let text = |count: usize| (0..count).map(|place| format!("payload./{place}=1")).collect::<Vec<_>>().join(" ");
    let max = crate::bounds::FILTER_PAYLOAD_CONDITIONS_MAX;
    assert!(JobQuery::parse(&text(max), NOW).is_ok());
    let said = JobQuery::parse(&text(max + 1), NOW).unwrap_err().to_string();
    assert!(said.contains(&format!("at most {max} conditions on payloads")), "{said}");
    let said = JobQuery::parse("payload./a=1 payload./a=1", NOW).unwrap_err().to_string();
    assert!(said.starts_with("invalid filter at character 14: `payload./a` is given twice"), "{said}");
}

#[test]
fn texts_are_short_and_without_a_null() {
    let max = crate::bounds::FILTER_TEXT_BYTES_MAX;
    assert!(JobQuery::parse(&format!("text:{}", "x".repeat(max)), NOW).is_ok());
    let said = JobQuery::parse(&format!("text:{}", "x".repeat(max + 1)), NOW).unwrap_err().to_string();
    assert!(said.contains("at most 256 bytes, got 257"), "{said}");
    for null in ["text:\"a\0\"", "payload./a=\0", "payload./\0=a"] {
        let error = JobQuery::parse(null, NOW).unwrap_err();
        assert_eq!(error.place, null.find('\0').unwrap() + 1, "{error}");
    }
}

/// Each escape costs a step: the rest of a wanted text is not looked at again.
#[test]
fn an_escaped_text_is_compared_in_one_pass() {
    let path: JsonPath = "/a".parse().unwrap();
    let wanted = "\n\u{e9}".repeat(100);
    let json = format!("{{\"a\":\"{}\"}}", "\\n\u{e9}".repeat(100));
    assert!(path.finds(json.as_bytes(), &wanted));
    assert!(!path.finds(json.as_bytes(), &wanted[..wanted.len() - 2]));
    assert!(!path.finds(json.as_bytes(), &format!("{wanted}x")));
}
