//! Finding jobs: every condition, in both orders, a bounded part at a time.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::attempt::AttemptOrigin;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::find::{JobCursor, JobOrder, JobQuery, format_moment};
use wharf_core::hold::{HoldReason, HoldScope, NewHold};
use wharf_core::ids::JobId;
use wharf_core::job::{Batch, Due, Lineage, NewJob};
use wharf_core::lifecycle::Event;
use wharf_core::outcome::{OutcomeKind, Report};
use wharf_store::{FindPage, FindRequest};

use crate::stage::{
    COUNT, Kind, LIST, MAKE, SECOND, Stage, at_most, block_on, failed, on_every_store, succeeded, usage,
};

/// Returns a request without a limit of time, so that the test does not depend on the machine.
fn request(stage: &Stage, text: &str, max: u32) -> FindRequest {
    let query = JobQuery::parse(text, stage.store.now()).unwrap_or_else(|error| panic!("{text}: {error}"));
    FindRequest { time: Duration::MAX, ..FindRequest::new(Arc::new(query), stage.declared.clone(), max) }
}

fn ids(page: &FindPage) -> Vec<JobId> {
    page.jobs.iter().map(|job| job.id).collect()
}

/// Returns all jobs that meet a query, and checks that both orders find them.
async fn find(stage: &Stage, text: &str) -> Vec<JobId> {
    let page = stage.store.find(request(stage, text, 1000)).await.unwrap();
    assert_eq!(page.next, None, "{text}");
    let finished = FindRequest { order: JobOrder::Finished, ..request(stage, text, 1000) };
    let mut finished = ids(&stage.store.find(finished).await.unwrap());
    let newest = page.jobs.iter().filter(|job| job.finished_at.is_some()).map(|job| job.id);
    finished.sort_by(|one, other| other.cmp(one));
    assert_eq!(finished, newest.collect::<Vec<_>>(), "{text}, in the order of the ends");
    ids(&page)
}

#[test]
fn jobs_are_found_by_each_condition() {
    on_every_store(|stage| async move {
        let start = stage.store.now();
        let batch = Batch { id: stage.id(), topic: "a.b".parse().unwrap() };
        let payload = |text: &str| text.as_bytes().into();
        let large = format!("{{\"fill\": \"{}\", \"tenant\": 42}}", "x".repeat(5000));
        let jobs = [
            NewJob { payload: payload(r#"{"tenant": 42}"#), ..stage.new_job(COUNT, "a") },
            NewJob { payload: payload(&large), ..stage.new_job(COUNT, "b") },
            NewJob { payload: payload("no JSON"), batch: Some(batch.clone()), ..stage.new_job(COUNT, "") },
        ];
        let [one, two, three] = jobs.each_ref().map(|job| job.id);
        stage.store.insert(jobs.to_vec(), stage.declared.clone()).await.unwrap();
        assert_eq!(stage.claim(3).await.len(), 3);
        stage.pass(SECOND);
        stage.record(one, succeeded(1)).await.unwrap();
        stage.pass(SECOND);
        let between = stage.store.now();
        stage.record(two, failed(1, None)).await.unwrap();
        let origin = Some(Arc::new(AttemptOrigin::new("here", "1.0", "0123456789abcdef")));
        stage.record(three, Event::Cancelled { attempt: 1, usage: Default::default(), origin }).await.unwrap();
        let lineage = Lineage { parent: Some(one), generation: 1 };
        let child = NewJob { lineage, ..stage.new_job(MAKE, "a") };
        stage.insert(child.clone()).await;
        let listed = stage.add(LIST, "a").await;

        let all = vec![listed, child.id, three, two, one];
        let moment = |name: &str| format!("{name}:{}", format_moment(between));
        let cases: Vec<(String, Vec<JobId>)> = [
            ("", all.clone()),
            ("state:waiting", vec![listed, child.id]),
            ("state:succeeded", vec![one]),
            ("state:failed", vec![two]),
            ("state:failed,cancelled", vec![three, two]),
            ("state:succeeded,cancelled,waiting", vec![listed, child.id, three, one]),
            ("state:running", vec![]),
            ("task:words/count", vec![three, two, one]),
            ("task:words/count,words/list", vec![listed, three, two, one]),
            ("plugin:words", vec![listed, three, two, one]),
            ("plugin:word", vec![]),
            ("plugin:thumbnail task:words/list", vec![]),
            ("plugin:words,thumbnail task:thumbnail/make", vec![child.id]),
            ("key:a", vec![listed, child.id, one]),
            ("key:b,\"\"", vec![three, two]),
            ("outcome:returned", vec![one]),
            ("outcome:trapped,cancelled", vec![three, two]),
            ("text:\"UNREACHABLE was\"", vec![two]),
            ("payload./tenant=42", vec![two, one]),
            ("payload./tenant=42 key:b", vec![two]),
            ("payload./tenant=4", vec![]),
        ]
        .map(|(text, found)| (text.to_owned(), found))
        .into();
        let fingerprint = stage.seen(two).await.job.fingerprint.expect("it failed");
        let digest = "0123456789abcdef";
        let with_values = [
            ("digest:01234567".to_owned(), vec![three]),
            (format!("digest:{digest},ffffffffffff state:cancelled"), vec![three]),
            (format!("digest:{digest} state:failed"), vec![]),
            ("digest:123456789abcdef".to_owned(), vec![]),
            ("state:succeeded text:nowhere".to_owned(), vec![]),
            (format!("fingerprint:f1:0000000000000001,{fingerprint}"), vec![two]),
            (format!("fingerprint:{fingerprint} key:a"), vec![]),
            (format!("batch:{}", batch.id), vec![three]),
            (format!("parent:{one}"), vec![child.id]),
            (format!("id:{one},{listed},{}", stage.id()), vec![listed, one]),
            (moment("finished-since"), vec![three, two]),
            (moment("finished-until"), vec![one]),
            (moment("since"), vec![listed, child.id]),
            (moment("until"), vec![three, two, one]),
            (format!("since:{} state:failed", format_moment(start)), vec![two]),
        ];
        for (text, found) in cases.into_iter().chain(with_values) {
            assert_eq!(find(&stage, &text).await, found, "{text}");
        }
    });
}

/// The memory store looks at every job, whatever the query.
#[test]
fn a_search_by_fingerprint_looks_at_the_jobs_that_have_it_alone() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        block_on(async {
            let stage = Stage::new(kind).await;
            let with = |text: &str| {
                let report = Report { kind: OutcomeKind::Failed, text: text.to_owned() };
                Event::Failed { attempt: 1, report, retry_in: None, usage: Default::default(), origin: None }
            };
            let mut wanted = Vec::new();
            for number in 0..30 {
                let id = stage.add(COUNT, "a").await;
                let leased = stage.claim_one().await;
                let is_wanted = number % 10 == 0;
                let why = if is_wanted { "no order" } else { "no customer" };
                stage.record(leased.lease.job, with(why)).await.unwrap();
                wanted.extend(is_wanted.then_some(id));
            }
            wanted.reverse();
            let fingerprint = stage.seen(wanted[0]).await.job.fingerprint.unwrap();
            let text = format!("fingerprint:{fingerprint},f1:0000000000000001,{fingerprint}");
            let page = stage.store.find(request(&stage, &text, 1000)).await.unwrap();
            assert_eq!((ids(&page), page.next, page.looked_at), (wanted.clone(), None, 3));
            assert_eq!(follow(&stage, &text, JobOrder::Newest, 1, 1).await, wanted);
        });
    }
}

#[test]
fn waiting_jobs_are_told_apart_by_why_they_wait() {
    on_every_store(|stage| async move {
        let stage = stage.limit(MAKE, at_most(1, None)).limit(LIST, at_most(None, 1));
        let running = stage.add(MAKE, "a").await;
        let retrying = stage.add(COUNT, "r").await;
        let of_group = stage.add(LIST, "x").await;
        assert_eq!(stage.claim(3).await.len(), 3);
        stage.record(retrying, failed(1, Some(5 * SECOND))).await.unwrap();
        let blocked = stage.add(MAKE, "a").await;
        let free = stage.add(MAKE, "b").await;
        let blocked_by_group = stage.add(LIST, "y").await;
        let delayed = NewJob { due: Some(Due::In(5 * SECOND)), ..stage.new_job(COUNT, "d") };
        stage.insert(delayed.clone()).await;
        let held = stage.add(COUNT, "h").await;
        let hold = |scope: &str| NewHold {
            scope: scope.parse::<HoldScope>().unwrap(),
            length: None,
            reason: HoldReason::default(),
            by: Author::anyone(),
        };
        stage.store.set_hold(hold("key:h")).await.unwrap().unwrap();
        stage.store.set_hold(hold("key:d")).await.unwrap().unwrap();
        for (text, found) in [
            ("state:ready", vec![free]),
            ("state:delayed", vec![delayed.id]),
            ("state:retrying", vec![retrying]),
            ("state:blocked", vec![blocked_by_group, blocked]),
            ("state:held", vec![held]),
            ("state:ready,held,running", vec![held, free, of_group, running]),
            ("state:waiting", vec![held, delayed.id, blocked_by_group, free, blocked, retrying]),
        ] {
            assert_eq!(find(&stage, text).await, found, "{text}");
        }
        // They are due, though no claim has noticed it.
        stage.pass(6 * SECOND);
        assert_eq!(find(&stage, "state:delayed,retrying").await, []);
        assert_eq!(find(&stage, "state:held").await, [held, delayed.id]);
        assert_eq!(find(&stage, "state:ready").await, [free, retrying]);
    });
}

/// Follows a list to its end, with at most this many jobs on a page and this many looked at for each.
async fn follow(stage: &Stage, text: &str, order: JobOrder, max: u32, rows_max: u64) -> Vec<JobId> {
    let (mut found, mut after) = (Vec::new(), None::<JobCursor>);
    loop {
        let request = FindRequest { order, after, rows_max, ..request(stage, text, max) };
        let page = stage.store.find(request).await.unwrap();
        assert!(page.jobs.len() <= max as usize);
        assert!(
            page.looked_at <= rows_max.saturating_add(bounds::FIND_BATCH.into()),
            "{text}: {} looked at",
            page.looked_at
        );
        found.extend(ids(&page));
        match page.next {
            Some(next) => {
                assert_eq!(next.to_string().parse(), Ok(next));
                assert!(after != Some(next), "{text}: a list must go on");
                after = Some(next);
            }
            None => return found,
        }
    }
}

#[test]
fn a_list_goes_on_where_it_stopped_whatever_is_added_or_ends_meanwhile() {
    on_every_store(|stage| async move {
        let many = 2 * bounds::FIND_BATCH as usize + 100;
        let mut all = stage.add_many(COUNT, "a", many).await;
        all.reverse();
        for leased in stage.claim(300).await {
            let end = if leased.lease.job.number() % 3 == 0 { failed(1, None) } else { succeeded(1) };
            stage.record(leased.lease.job, end).await.unwrap();
            if leased.lease.job.number() % 5 == 0 {
                stage.pass(SECOND);
            }
        }
        for (text, order) in [
            ("", JobOrder::Newest),
            ("state:waiting", JobOrder::Newest),
            ("state:failed", JobOrder::Newest),
            ("state:failed,cancelled", JobOrder::Newest),
            ("payload./none=1", JobOrder::Newest),
            ("", JobOrder::Finished),
            ("state:failed", JobOrder::Finished),
        ] {
            let whole = follow(&stage, text, order, 1000, u64::MAX).await;
            for (max, rows_max) in [(7, u64::MAX), (1000, 1), (100, 700)] {
                assert_eq!(
                    follow(&stage, text, order, max, rows_max).await,
                    whole,
                    "{text} {order:?} {max} {rows_max}"
                );
            }
        }
        assert_eq!(follow(&stage, "", JobOrder::Newest, 100, 700).await, all);

        let first = stage.store.find(request(&stage, "", 10)).await.unwrap();
        assert_eq!((ids(&first), first.looked_at), (all[..10].to_vec(), 11));
        stage.add_many(COUNT, "a", 20).await;
        stage.claim(20).await;
        let second = FindRequest { after: first.next, ..request(&stage, "", 10) };
        assert_eq!(ids(&stage.store.find(second).await.unwrap()), all[10..20]);
    });
}

#[test]
fn the_last_page_says_that_it_is_the_last() {
    on_every_store(|stage| async move {
        let empty = stage.store.find(request(&stage, "", 10)).await.unwrap();
        assert_eq!(empty, FindPage::default());
        stage.add_many(COUNT, "a", 10).await;
        let whole = stage.store.find(request(&stage, "key:a", 10)).await.unwrap();
        assert_eq!((whole.jobs.len(), whole.looked_at, whole.next), (10, 10, None));
        assert_eq!(whole.until, Some(stage.store.now()));
        let part = stage.store.find(request(&stage, "key:a", 9)).await.unwrap();
        assert_eq!((part.jobs.len(), part.next.map(|next| next.id)), (9, Some(part.jobs[8].id)));
    });
}

#[test]
fn a_job_that_was_tried_again_is_not_listed_by_its_earlier_end() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "a").await;
        stage.claim_one().await;
        stage.record(id, failed(1, None)).await.unwrap();
        stage.record(id, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap();
        assert_eq!(follow(&stage, "", JobOrder::Finished, 10, u64::MAX).await, []);
        stage.record(id, Event::CancelRequested).await.unwrap();
        assert_eq!(follow(&stage, "", JobOrder::Finished, 10, u64::MAX).await, [id]);
    });
}

#[test]
fn pages_carry_the_first_line_of_reports_and_a_search_reads_all_of_them() {
    on_every_store(|stage| async move {
        let job = stage.add(COUNT, "a").await;
        assert_eq!(stage.claim(1).await.len(), 1);
        let text = "the page is broken\nat line 7\nof it";
        let report = Report { kind: OutcomeKind::Trapped, text: text.to_owned() };
        let end = Event::Failed { attempt: 1, report, retry_in: None, usage: Default::default(), origin: None };
        stage.record(job, end).await.unwrap();
        let page = stage.store.find(request(&stage, "text:\"line 7\"", 10)).await.unwrap();
        let report = page.jobs[0].report.as_ref().expect("it failed");
        assert_eq!(report.text, "the page is broken");
        let whole = stage.seen(job).await.job.report.expect("it failed");
        assert_eq!(whole.text, text);
    });
}

/// A host that began with a clock that was ahead, which was set right: the IDs stay ahead, the times of the jobs do not.
#[test]
fn jobs_are_found_by_when_they_were_enqueued_though_their_ids_are_ahead() {
    on_every_store(|stage| async move {
        let ahead = JobId::first_number_at(stage.store.now() + Duration::from_secs(30 * 24 * 3600));
        let job = |number| NewJob { id: JobId::from_number(number).unwrap(), ..stage.new_job(COUNT, "a") };
        let (old, new) = (job(ahead + 1), job(ahead + 2));
        stage.insert(old.clone()).await;
        stage.pass(2 * SECOND);
        stage.insert(new).await;
        let until = request(&stage, "until:1s", 10);
        assert_eq!(ids(&stage.store.find(until).await.unwrap()), [old.id]);
    });
}

/// The time of a search counts for each job that is looked through, however many of them a store reads at once.
#[test]
fn a_search_through_long_texts_ends_in_time_and_says_where_to_go_on() {
    on_every_store(|stage| async move {
        let jobs = stage.add_many(COUNT, "a", 200).await;
        for leased in stage.claim(200).await {
            let report = Report { kind: OutcomeKind::Failed, text: "a".repeat(4000) };
            let event = Event::Failed { attempt: 1, report, retry_in: None, usage: usage(), origin: None };
            stage.record(leased.lease.job, event).await.unwrap();
        }
        let text = format!("text:{}b", "a".repeat(255));
        let bounded = FindRequest { rows_max: 20, ..request(&stage, &text, 10) };
        let page = stage.store.find(bounded).await.unwrap();
        assert_eq!(page.jobs, []);
        assert_eq!((page.looked_at, page.next.map(|next| next.id)), (20, Some(jobs[180])));
    });
}
