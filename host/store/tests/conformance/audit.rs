//! The audit log: which acts are in it, in which order, and how they are found and deleted.

use std::time::Duration;

use wharf_core::audit::{Act, ActId, ActKind, NewAct};
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::hold::{HoldReason, HoldScope, NewHold};
use wharf_core::job::StateName;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{Limits, Override};
use wharf_store::{ActFilter, AuditLog as _, SqliteStore};

use crate::stage::{COUNT, SECOND, Stage, at_most, block_on, failed, group, on_every_store};

fn ann() -> Author {
    Author::token("ann").at_address("10.0.0.1")
}

fn act(author: Author, target: &str) -> NewAct {
    NewAct::new(author, ActKind::SettingsChanged, target, "", 1)
}

async fn acts(stage: &Stage, filter: ActFilter) -> Vec<Act> {
    stage.store.acts(ActFilter { max: 1000, ..filter }).await.unwrap().acts
}

async fn all(stage: &Stage) -> Vec<Act> {
    acts(stage, ActFilter::default()).await
}

fn short(acts: &[Act]) -> Vec<(ActKind, &str, &str)> {
    acts.iter().map(|act| (act.kind, act.target.as_str(), act.detail.as_str())).collect()
}

#[test]
fn each_act_that_changes_something_is_written_with_its_author_and_time() {
    on_every_store(|stage| async move {
        let job = stage.add(COUNT, "a").await;
        assert_eq!(all(&stage).await, [], "an enqueue is no act");
        let cancelled = stage.store.change_job(job, Event::CancelRequested, ann()).await.unwrap().unwrap();
        assert_eq!(cancelled.state, StateName::Cancelled);
        let at = stage.store.now();
        stage.pass(SECOND);
        let retried = stage
            .store
            .change_job(job, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }, Author::anyone())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(retried.state, StateName::Waiting);
        let change = Override { group: group(COUNT), key: Some("a".parse().unwrap()), limits: at_most(2, None) };
        stage.store.set_override(change.clone(), ann()).await.unwrap();
        stage.store.set_override(Override { limits: Limits::default(), ..change }, ann()).await.unwrap();
        let reason: HoldReason = "deploy".parse().unwrap();
        let hold = NewHold { scope: HoldScope::All, length: None, reason, by: ann() };
        stage.store.set_hold(hold).await.unwrap().unwrap();
        stage.store.release_hold(HoldScope::All, ann()).await.unwrap().unwrap();
        stage.store.add_act(act(Author::host("box"), "1234")).await.unwrap();

        let found = all(&stage).await;
        let (id, lane) = (job.to_string(), format!("group:{COUNT} key:a"));
        let expected = [
            (ActKind::SettingsChanged, "1234", ""),
            (ActKind::HoldReleased, "all", ""),
            (ActKind::HoldSet, "all", "until it is released: deploy"),
            (ActKind::LimitCleared, lane.as_str(), ""),
            (ActKind::LimitSet, lane.as_str(), "per key 2"),
            (ActKind::JobRetry, id.as_str(), ""),
            (ActKind::JobCancel, id.as_str(), ""),
        ];
        assert_eq!(short(&found), expected);
        let first = found.last().unwrap();
        assert_eq!((first.author.clone(), first.id.at, first.count), (ann(), at, 1));
        assert_eq!((found[5].author.clone(), found[5].id.at), (Author::anyone(), at + SECOND));
        assert_eq!(found[0].author.name(), Some("host:box"));
    });
}

#[test]
fn an_act_that_changes_nothing_is_not_written() {
    on_every_store(|stage| async move {
        let job = stage.add(COUNT, "a").await;
        let refused = stage
            .store
            .change_job(job, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }, ann())
            .await
            .unwrap();
        assert_eq!(refused, Err(Refusal::NotFinished(StateName::Waiting)));
        let unknown = stage.store.change_job(stage.id(), Event::CancelRequested, ann()).await.unwrap();
        assert_eq!(unknown, Err(Refusal::Unknown));
        assert_eq!(stage.store.release_hold(HoldScope::All, ann()).await.unwrap(), None);
        let nothing = Override { group: group(COUNT), key: None, limits: Limits::default() };
        stage.store.set_override(nothing, ann()).await.unwrap();
        assert_eq!(all(&stage).await, []);
    });
}

#[test]
fn events_that_are_recorded_without_an_author_are_no_acts() {
    on_every_store(|stage| async move {
        stage.add(COUNT, "a").await;
        let leased = stage.claim_one().await;
        stage.record(leased.lease.job, failed(1, None)).await.unwrap();
        stage.record(leased.lease.job, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap();
        assert_eq!(all(&stage).await, []);
    });
}

#[test]
fn acts_are_found_by_author_kind_and_time_in_pages_that_do_not_move() {
    on_every_store(|stage| async move {
        let start = stage.store.now();
        for number in 0..10 {
            let author = if number % 2 == 0 { ann() } else { Author::anyone() };
            stage.store.add_act(act(author, &number.to_string())).await.unwrap();
            if number % 3 == 0 {
                stage.pass(SECOND);
            }
        }
        let targets = |acts: &[Act]| acts.iter().map(|act| act.target.clone()).collect::<Vec<_>>();
        let by = |author| ActFilter { author: Some(author), ..ActFilter::default() };
        assert_eq!(targets(&acts(&stage, by(Some("ann".to_owned()))).await), ["8", "6", "4", "2", "0"]);
        assert_eq!(targets(&acts(&stage, by(None)).await), ["9", "7", "5", "3", "1"]);
        let none = ActFilter { kind: Some(ActKind::HoldSet), ..ActFilter::default() };
        assert_eq!(acts(&stage, none).await, []);
        let since = ActFilter { since: Some(start + 2 * SECOND), ..ActFilter::default() };
        assert_eq!(targets(&acts(&stage, since).await), ["9", "8", "7", "6", "5", "4"]);

        // New acts come while somebody reads page after page.
        let (mut read, mut filter) = (Vec::new(), ActFilter { max: 3, ..ActFilter::default() });
        loop {
            let page = stage.store.acts(filter.clone()).await.unwrap();
            read.extend(targets(&page.acts));
            stage.store.add_act(act(ann(), "later")).await.unwrap();
            let Some(next) = page.next else { break };
            filter.before = Some(next);
        }
        assert_eq!(read, ["9", "8", "7", "6", "5", "4", "3", "2", "1", "0"]);
    });
}

#[test]
fn a_look_for_few_among_many_ends_early_and_says_how_to_go_on() {
    on_every_store(|stage| async move {
        stage.store.add_act(act(ann(), "found")).await.unwrap();
        for _ in 0..bounds::ACTS_READ_MAX + 5 {
            stage.store.add_act(act(Author::anyone(), "other")).await.unwrap();
        }
        let filter = ActFilter { author: Some(Some("ann".to_owned())), max: 5, ..ActFilter::default() };
        let first = stage.store.acts(filter.clone()).await.unwrap();
        assert!(first.acts.is_empty() && first.next.is_some(), "{first:?}");
        let second = stage.store.acts(ActFilter { before: first.next, ..filter }).await.unwrap();
        assert_eq!((second.acts.len(), second.next), (1, None));
    });
}

#[test]
fn old_acts_are_deleted_the_oldest_first() {
    on_every_store(|stage| async move {
        for number in 0..6 {
            stage.store.add_act(act(ann(), &number.to_string())).await.unwrap();
            stage.pass(SECOND);
        }
        let before = stage.store.now() - 2 * SECOND;
        assert_eq!(stage.store.delete_acts(before, 3).await.unwrap(), 3);
        assert_eq!(all(&stage).await.iter().map(|act| act.target.as_str()).collect::<Vec<_>>(), ["5", "4", "3"]);
        assert_eq!(stage.store.delete_acts(before, 3).await.unwrap(), 1);
        assert_eq!(stage.store.delete_acts(before, 3).await.unwrap(), 0);
        assert_eq!(all(&stage).await.len(), 2);
    });
}

#[test]
fn hostile_texts_are_kept_as_they_are_bounded() {
    on_every_store(|stage| async move {
        let hostile = "'; DROP TABLE audit; --\u{0}\u{1b}[31m\u{202e}\n".repeat(1000);
        let author = Author::token(&hostile).at_address(&hostile);
        let new = NewAct::new(author.clone(), ActKind::JobCancel, &hostile, &hostile, u64::MAX);
        stage.store.add_act(new.clone()).await.unwrap();
        let found = all(&stage).await.remove(0);
        assert_eq!((found.author, found.target.as_str(), found.detail.as_str()), (author, new.target(), new.detail()));
    });
}

#[test]
fn an_act_survives_a_restart_with_its_change() {
    block_on(async {
        let stage = Stage::new(crate::stage::Kind::Sqlite).await;
        let job = stage.add(COUNT, "a").await;
        stage.store.change_job(job, Event::CancelRequested, ann()).await.unwrap().unwrap();
        let (file, clock) = (stage.file(), stage.clock.clone());
        let before = all(&stage).await;
        let folder = stage.folder.clone();
        drop(stage);
        let again = SqliteStore::open(file, clock).unwrap();
        let found = again.acts(ActFilter { max: 10, ..ActFilter::default() }).await.unwrap();
        assert_eq!(found.acts, before);
        again.add_act(act(ann(), "next")).await.unwrap();
        let ids: Vec<ActId> = again
            .acts(ActFilter { max: 10, ..ActFilter::default() })
            .await
            .unwrap()
            .acts
            .iter()
            .map(|act| act.id)
            .collect();
        assert!(ids[0] > ids[1]);
        drop(folder);
    });
}
