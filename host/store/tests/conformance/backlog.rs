//! What waits, by task and by why, with a bounded look.

use std::time::Duration;

use wharf_core::backlog::LaneBacklog;
use wharf_core::bounds;
use wharf_core::find::WaitKind;
use wharf_core::hold::{HoldReason, NewHold};
use wharf_core::ids::Group;
use wharf_core::job::{Due, NewJob};

use crate::stage::{COUNT, MAKE, SECOND, Stage, at_most, failed, on_every_store, task};

#[test]
fn waiting_jobs_are_counted_by_task_and_by_why_they_wait() {
    on_every_store(|stage| async move {
        let stage = stage.limit(MAKE, at_most(1, None));
        let start = stage.store.now();
        stage.add(MAKE, "a").await;
        let retrying = stage.add(COUNT, "r").await;
        assert_eq!(stage.claim(2).await.len(), 2);
        stage.record(retrying, failed(1, Some(90 * SECOND))).await.unwrap();
        stage.pass(SECOND);
        for key in ["a", "a", "b"] {
            stage.add(MAKE, key).await;
        }
        stage.insert(NewJob { due: Some(Due::In(60 * SECOND)), ..stage.new_job(COUNT, "d") }).await;
        stage.insert(NewJob { due: Some(Due::In(SECOND)), ..stage.new_job(COUNT, "later") }).await;
        stage.pass(SECOND);
        stage.add(COUNT, "h").await;
        let by = wharf_core::author::Author::anyone();
        let reason = "why".parse::<HoldReason>().unwrap();
        let hold = NewHold { scope: "key:h".parse().unwrap(), length: None, reason, by };
        stage.store.set_hold(hold).await.unwrap();
        stage.pass(SECOND);

        let backlog = stage.store.backlog(stage.declared.clone(), Duration::MAX).await.unwrap();
        let of = |name: &str| backlog.tasks[&task(name)].clone();
        let counts = |name: &str| WaitKind::ALL.map(|kind| of(name).count(kind));
        // In the order of the kinds: ready, delayed, retrying, blocked, held.
        assert_eq!(counts(MAKE), [1, 0, 0, 2, 0]);
        assert_eq!(counts(COUNT), [1, 1, 1, 0, 1]);
        assert_eq!([MAKE, COUNT].map(|name| (of(name).waiting, of(name).running)), [(3, 1), (4, 0)]);
        assert_eq!([MAKE, COUNT].map(|name| of(name).has_more()), [false, false]);
        let after = |seconds: u32| Some(start + seconds * SECOND);
        assert_eq!([MAKE, COUNT].map(|name| of(name).oldest_ready), [after(1), after(2)]);
        assert_eq!(of(MAKE).oldest_due, after(1));
        assert_eq!([MAKE, COUNT].map(|name| of(name).oldest_blocked), [after(1), None]);
        assert_eq!([MAKE, COUNT].map(|name| of(name).oldest_unpaused()), [after(1), after(2)], "not what is held");

        // A limit of zero is a pause.
        let paused = stage.limit(MAKE, at_most(0, None));
        let backlog = paused.store.backlog(paused.declared.clone(), Duration::MAX).await.unwrap();
        let of = &backlog.tasks[&task(MAKE)];
        assert_eq!((of.count(WaitKind::Blocked), of.oldest_unpaused(), of.oldest_due), (3, None, after(1)));

        let lane = |name: &str, key: &str| backlog.groups[&Group::from(&task(name))].lanes[&Some(key.parse().unwrap())];
        let busy = LaneBacklog { running: 1, due: 2, oldest_due: after(1) };
        assert_eq!(
            [lane(MAKE, "a"), lane(MAKE, "b")],
            [busy, LaneBacklog { running: 0, due: 1, oldest_due: after(1) }]
        );
        assert_eq!(backlog.groups[&Group::from(&task(MAKE))].all, LaneBacklog { due: 3, ..busy });
    });
}

/// The memory store looks at every job.
#[test]
fn a_look_is_bounded_and_says_so() {
    on_every_store(|stage| async move {
        let many = bounds::BACKLOG_ROWS as usize + 50;
        let delayed = |stage: &Stage| NewJob { due: Some(Due::In(60 * SECOND)), ..stage.new_job(COUNT, "a") };
        for chunk in 0..many.div_ceil(500) {
            let count = (many - chunk * 500).min(500);
            let jobs: Vec<NewJob> = (0..count).map(|_| delayed(&stage)).collect();
            stage.store.insert(jobs, stage.declared.clone()).await.unwrap();
        }
        let backlog = stage.store.backlog(stage.declared.clone(), Duration::MAX).await.unwrap();
        let of = &backlog.tasks[&task(COUNT)];
        let looked_at = of.count(WaitKind::Delayed);
        assert_eq!(of.waiting, many as u64);
        assert!(looked_at == many as u64 || looked_at == bounds::BACKLOG_ROWS.into(), "{looked_at}");
        assert_eq!(of.has_more(), looked_at < many as u64);
    });
}

/// On SQLite a look without time goes over one line, on PostgreSQL one over so many lists of jobs; the memory store looks at every job.
#[test]
fn looks_take_turns_over_the_lines_and_keep_to_the_oldest_jobs() {
    on_every_store(|stage| async move {
        // A list for each job: they differ in their priorities.
        for chunk in 0..=bounds::BACKLOG_ROWS / 500 {
            let priority = |n: u32| i32::try_from(chunk * 500 + n).unwrap();
            let jobs = (0..500).map(|n| NewJob { priority: priority(n), ..stage.new_job(COUNT, "a") }).collect();
            stage.store.insert(jobs, stage.declared.clone()).await.unwrap();
        }
        stage.pass(SECOND);
        let since = stage.store.now();
        stage.add(MAKE, "b").await;
        stage.add(MAKE, "c").await;
        let look = async || stage.store.backlog(stage.declared.clone(), Duration::ZERO).await.unwrap();
        let oldest = async || {
            let backlog = look().await;
            [COUNT, MAKE].map(|name| backlog.tasks.get(&task(name)).and_then(|of| of.oldest_ready))
        };
        let mut looks = 0;
        while oldest().await[1].is_none() {
            looks += 1;
            assert!(looks < 10, "the lines of the second task are never looked at");
        }
        for _ in 0..5 {
            let [first, second] = oldest().await;
            assert!(first.is_some_and(|first| first < since) && second == Some(since), "{first:?} {second:?}");
        }
        // Once all lines are reached again, each job is counted once.
        let whole = stage.store.backlog(stage.declared.clone(), Duration::MAX).await.unwrap();
        let of = &whole.tasks[&task(MAKE)];
        assert_eq!((of.count(WaitKind::Ready), of.waiting), (2, 2));
    });
}
