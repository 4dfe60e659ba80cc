//! Tests how attempts end, and what their reports contain.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::outcome::{Failure, Outcome, TimeoutKind};
use wharf_engine::CallInput;

use crate::scene::{Scene, assert_returned, call, words_call};

#[tokio::test(flavor = "multi_thread")]
async fn words() {
    let scene = Scene::new(4);
    let words = scene.load("words").await;
    assert_eq!(words.manifest.tasks["count"].limits.per_key, Some(2));
    let (ended, recorded) = scene.run(&words, words_call(&words)).await;
    assert_eq!(assert_returned(&ended).trim(), r#"{"lines":2,"words":3,"characters":13}"#);
    assert_eq!(recorded.chunks.lock().unwrap().len(), 2);
    assert_eq!(recorded.progress.lock().unwrap().last(), Some(&(1.0, "line 2 of 2".to_owned())));
    assert!(ended.usage.cpu > Duration::ZERO && ended.usage.wall >= ended.usage.cpu, "{:?}", ended.usage);
    assert!(
        ended.usage.memory_peak_bytes > 0 && ended.usage.in_bytes > 0 && ended.usage.out_bytes > 0,
        "{:?}",
        ended.usage
    );
    assert!(ended.sandbox > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_with_an_async_handler_is_called_alike() {
    let scene = Scene::new(4);
    let (plugin, plain) = (scene.load("villain-async").await, scene.load("words").await);
    assert!(plugin.is_async && !plain.is_async);
    let (ended, recorded) = scene.run(&plugin, call(&plugin, "echo", "hello")).await;
    assert_eq!(assert_returned(&ended), "hello");
    assert_eq!(*recorded.chunks.lock().unwrap(), [b"hello".to_vec()]);
    let (ended, _) = scene.run(&plugin, call(&plugin, "sleep", "3000")).await;
    assert_returned(&ended);
    assert!(ended.usage.cpu < Duration::from_millis(1500), "waiting is no CPU time: {:?}", ended.usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_arrives_as_it_is() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let mut asked = call(&villain, "do", r#"{"do":"job"}"#);
    if let CallInput::Job { key, attempt, .. } = &mut asked.input {
        (*key, *attempt) = (Some("tenant 7".to_owned()), 3);
    }
    let (ended, _) = scene.run(&villain, asked).await;
    let shown = assert_returned(&ended);
    for part in
        [r#""id":"0000000000001""#, r#""task":"do""#, r#""key":"tenant 7""#, r#""attempt":3"#, r#""payload-bytes":12"#]
    {
        assert!(shown.contains(part), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_plugin_s_own_is_its_word() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let outcome = async |payload: &str| scene.run(&villain, call(&villain, "do", payload)).await.0.outcome;
    assert_eq!(outcome(r#"{"do":"fail-retry","text":"x"}"#).await, Outcome::Failed(Failure::Retry("x".into())));
    let after = Failure::RetryAfter("x".into(), Duration::from_millis(7));
    assert_eq!(outcome(r#"{"do":"fail-retry-after","ms":7,"text":"x"}"#).await, Outcome::Failed(after));
    assert_eq!(outcome(r#"{"do":"fail-discard","text":"x"}"#).await, Outcome::Failed(Failure::Discard("x".into())));
    let Outcome::Failed(Failure::Retry(text)) = outcome(r#"{"do":"big-failure","bytes":1000000}"#).await else {
        panic!()
    };
    assert!(text.len() <= 16 * 1024 && text.ends_with("x ..."), "{}", text.len());
}

/// The expected end of an order: the kind of outcome, and texts of its report.
struct Expected {
    task: &'static str,
    order: &'static str,
    kind: fn(&Outcome) -> bool,
    says: &'static [&'static str],
}

const fn expected(
    task: &'static str,
    order: &'static str,
    kind: fn(&Outcome) -> bool,
    says: &'static [&'static str],
) -> Expected {
    Expected { task, order, kind, says }
}

fn trapped(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Trapped(_))
}

fn out_of_memory(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::OutOfMemory { .. })
}

fn output_bound(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::OutputBound(_))
}

fn refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(Failure::Discard(_)))
}

fn timed_out<const CLOCK: u8>(outcome: &Outcome) -> bool {
    let clock = [TimeoutKind::Wall, TimeoutKind::Cpu, TimeoutKind::Stall][CLOCK as usize];
    matches!(outcome, Outcome::TimedOut { clock: found, .. } if *found == clock)
}

const ENDS: &[Expected] = &[
    expected(
        "do",
        r#"{"do":"trap"}"#,
        trapped,
        &["unreachable", "villain::crash::second_step", "villain::crash::first_step", "crash.rs:"],
    ),
    expected(
        "do",
        r#"{"do":"panic","text":"oh no"}"#,
        trapped,
        &[
            "panicked at villain/src/order.rs:",
            ": oh no\ntrapped: the guest reached an `unreachable` instruction",
            "last lines of stderr:",
        ],
    ),
    expected("do", r#"{"do":"panic-after-output","text":"late"}"#, trapped, &["about to panic", "late"]),
    expected(
        "do",
        r#"{"do":"stack-overflow"}"#,
        trapped,
        &["the call stack is exhausted; the limit is 512 KiB", "villain::crash::dig", "and their callers"],
    ),
    expected("do", r#"{"do":"exit"}"#, trapped, &["called exit(0) instead of returning"]),
    expected("do", r#"{"do":"exit","code":1}"#, trapped, &["called exit(1) instead of returning"]),
    expected(
        "frugal",
        r#"{"do":"loop-ignoring-cancel"}"#,
        timed_out::<1>,
        &[
            "it used 200ms of CPU time",
            "villain::time::",
            "cpu = \"...\" under [tasks.frugal]",
            "[plugins.villain.tasks.frugal]",
        ],
    ),
    expected("hurried", r#"{"do":"loop-ignoring-cancel"}"#, timed_out::<0>, &["it ran for 500ms", "villain::time::"]),
    expected("hurried", r#"{"do":"sleep","ms":5000}"#, timed_out::<0>, &["it ran for 500ms", "timeout = \"...\""]),
    expected("stall", r#"{"do":"stall"}"#, timed_out::<2>, &["stalled: no output and no progress for 500ms"]),
    expected(
        "do",
        r#"{"do":"hoard"}"#,
        out_of_memory,
        &["out of memory: the limit is 64.0 MiB", "hoard", "memory = \"...\""],
    ),
    expected("frugal", r#"{"do":"hold-mib","mib":17}"#, out_of_memory, &["out of memory: the limit is 16.0 MiB"]),
    expected("do", r#"{"do":"fill-handles"}"#, trapped, &["too many host resources at once", "the limit is 256"]),
    expected(
        "do",
        r#"{"do":"big-output","bytes":34000000}"#,
        output_bound,
        &["the result is 34000000 bytes; the limit is 33554432"],
    ),
    expected(
        "do",
        r#"{"do":"big-output","bytes":50000000}"#,
        output_bound,
        &["more than 40 MiB crossed between plugin and host"],
    ),
    expected(
        "do",
        r#"{"do":"big-chunk","bytes":2000000}"#,
        refused,
        &["the chunk is 2000000 bytes; the limit is 1048576"],
    ),
    expected(
        "do",
        r#"{"do":"big-chunk","bytes":50000000}"#,
        output_bound,
        &["more than 40 MiB crossed between plugin and host"],
    ),
    expected("do", r#"{"do":"random","bytes":5000000}"#, trapped, &["outside.rs"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_end_is_told_and_harms_nobody_else() {
    let scene = Scene::new(8);
    let (villain, words) = (scene.load("villain").await, scene.load("words").await);
    for Expected { task, order, kind, says } in ENDS {
        let (ended, _) = scene.run_beside(&words, &villain, call(&villain, task, *order)).await;
        let report = ended.outcome.report();
        assert!(kind(&ended.outcome), "{task} {order}: {:?}", ended.outcome);
        for text in *says {
            assert!(report.contains(text), "{task} {order}: `{text}` is not in\n{report}");
        }
        assert!(report.len() <= 16 * 1024, "{order}: {} bytes of report", report.len());
        println!("{task} {order}\n{report}\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_counted_over_all_memories_and_what_is_refused_can_be_handled() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let (ended, _) = scene.run(&villain, call(&villain, "do", r#"{"do":"hoard-politely"}"#)).await;
    let shown = assert_returned(&ended);
    let mib: u64 = shown.trim_start_matches(r#"{"mib":"#).trim_end_matches('}').parse().unwrap();
    assert!((32..64).contains(&mib), "{shown}");
    assert!(
        ended.usage.memory_peak_bytes <= 64 << 20 && ended.usage.memory_peak_bytes >= mib << 20,
        "{:?}",
        ended.usage
    );

    let many = scene.load("villain-memories").await;
    let (ended, _) = scene.run(&many, call(&many, "frugal", r#"{"do":"echo"}"#)).await;
    assert!(
        matches!(&ended.outcome, Outcome::OutOfMemory { limit_bytes, .. } if *limit_bytes == 16 << 20),
        "{:?}",
        ended.outcome
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_used_up_makes_attempts_wait_and_fails_none() {
    let scene = Scene::new(4);
    let many = scene.load("villain-memories").await;
    // Each needs seventeen memories; the pool of four attempts has thirty-two.
    let running: Vec<_> = (0..6)
        .map(|_| {
            scene.begin(
                &many,
                call(&many, "do", r#"{"do":"sleep","ms":100}"#),
                &Arc::default(),
                &wharf_engine::AttemptHandle::new(),
            )
        })
        .collect();
    for attempt in running {
        assert_returned(&attempt.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_guest_arrive_as_it_made_them() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let order = r#"{"do":"enqueue","children":[{"task":"words/count","payload":"{}","key":"k","delay-ms":5,"priority":-2,"token":"t"},{"task":"a/b","payload":""}]}"#;
    let (ended, recorded) = scene.run(&villain, call(&villain, "do", order)).await;
    assert!(assert_returned(&ended).contains("job-1"));
    let jobs = recorded.jobs.lock().unwrap();
    assert_eq!(jobs.len(), 2);
    assert_eq!(
        (jobs[0].task.as_str(), jobs[0].key.as_deref(), jobs[0].priority, jobs[0].token.as_deref()),
        ("words/count", Some("k"), -2, Some("t"))
    );
    assert_eq!((jobs[0].delay, jobs[1].delay), (Some(Duration::from_millis(5)), None));
}
