//! Tests subscribers, and guests that start broadcasts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, oneshot};
use wharf_core::bounds;
use wharf_core::job::Stream;
use wharf_core::outcome::{Failure, Interruption, Outcome, TimeoutKind};
use wharf_core::rollcall::{Answer, Reply};
use wharf_engine::{AttemptHandle, GuestJob, HostCalls, PermitPool};

use crate::scene::{BROADCAST_CALLS, RecordingHost, Scene, assert_returned, call, message, words_call};

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_gets_the_message_and_ends_like_any_attempt() {
    let scene = Scene::new(4);
    let (villain, words) = (scene.load("villain").await, scene.load("words").await);
    assert_eq!(villain.manifest.topics.iter().map(|topic| topic.as_str()).collect::<Vec<_>>(), ["villain.>"]);
    let receive = async |order: &str| {
        let mut call = message(&villain, "villain.a.b", order);
        // On a busy machine two seconds of processor take longer than the ten of the manifest.
        call.limits.timeout = Duration::from_secs(120);
        scene.run_beside(&words, &villain, call).await.0
    };
    let shown = assert_returned(&receive(r#"{"do":"job"}"#).await);
    for part in [r#""id":"0000000000002""#, r#""task":"villain.a.b""#, r#""payload-bytes":12"#] {
        assert!(shown.contains(part), "{shown}");
    }
    let discarded = Outcome::Failed(Failure::Discard("x".into()));
    assert_eq!(receive(r#"{"do":"fail-discard","text":"x"}"#).await.outcome, discarded);
    let ended = receive(r#"{"do":"trap"}"#).await;
    assert!(
        matches!(&ended.outcome, Outcome::Trapped(report) if report.contains("second_step")),
        "{:?}",
        ended.outcome
    );
    let ended = receive(r#"{"do":"hoard"}"#).await;
    assert!(matches!(&ended.outcome, Outcome::OutOfMemory { limit_bytes, .. } if *limit_bytes == 64 << 20));
    assert!(
        ended
            .outcome
            .report()
            .contains("memory = \"...\" under [receive] in the manifest, or under [plugins.villain.receive]")
    );
    let ended = receive(r#"{"do":"loop-ignoring-cancel"}"#).await;
    assert!(matches!(ended.outcome, Outcome::TimedOut { clock: TimeoutKind::Cpu, .. }), "{:?}", ended.outcome);
}

fn reply(plugin: &str, answer: Answer) -> Reply {
    Reply { plugin: plugin.parse().unwrap(), answer, elapsed: Duration::from_millis(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_broadcasts_and_gets_every_kind_of_reply() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let large = usize::try_from(bounds::REPLIES_BYTES_MAX).unwrap() - 100;
    let replies = vec![
        reply("a", Answer::Replied(br#"{"n":1}"#.to_vec())),
        reply("b", Answer::Failed(Failure::RetryAfter("busy".into(), Duration::from_millis(7)))),
        reply("c", Answer::Trapped("it fell".into())),
        reply("d", Answer::TimedOut("too slow".into())),
        reply("e", Answer::Skipped("not now".into())),
        reply("f", Answer::Replied(vec![b'x'; large])),
        reply("g", Answer::Replied(vec![b'x'; 1000])),
    ];
    let recorded = Arc::new(RecordingHost { replies, ..RecordingHost::default() });
    let order = r#"{"do":"broadcast","topic":"document.saved","payload":{"id":7},"timeout-ms":500}"#;
    let mut asked = call(&villain, "do", order);
    asked.limits.memory_bytes = 256 << 20;
    let ended = scene.begin(&villain, asked, &recorded, &AttemptHandle::new()).await.unwrap();
    let shown = assert_returned(&ended);
    for part in [
        r#"{"bytes":7,"kind":"replied","plugin":"a","reply":{"n":1}}"#,
        r#"{"kind":"failed-retry-after","plugin":"b","text":"busy (7 ms)"}"#,
        r#"{"kind":"trapped","plugin":"c","text":"it fell"}"#,
        r#"{"kind":"timed-out","plugin":"d","text":"too slow"}"#,
        r#"{"kind":"skipped","plugin":"e","text":"not now"}"#,
        r#""kind":"replied","plugin":"f""#,
        "its reply of 1000 bytes was left out: the replies of one broadcast are limited to 32 MiB in all",
    ] {
        assert!(shown.contains(part), "`{part}` is not in {shown}");
    }
    let broadcasts = recorded.broadcasts.lock().unwrap();
    let sent = &broadcasts[0];
    assert_eq!((sent.topic.as_str(), sent.payload.as_slice()), ("document.saved", br#"{"id":7}"#.as_slice()));
    assert_eq!(sent.timeout, Duration::from_millis(500));
    assert!(
        sent.remaining > Duration::from_secs(8) && sent.remaining <= Duration::from_secs(10),
        "{:?}",
        sent.remaining
    );
    assert!(ended.usage.in_bytes > large as u64 && ended.usage.out_bytes >= 8, "{:?}", ended.usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_replies_is_no_cpu_time_and_no_stall_and_no_longer_than_the_attempt() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let gate = Arc::new(Semaphore::new(0));
    let recorded = Arc::new(RecordingHost { gate: Some(Arc::clone(&gate)), ..RecordingHost::default() });
    let order = r#"{"do":"broadcast","topic":"a"}"#;
    let running = scene.begin(&villain, call(&villain, "stall", order), &recorded, &AttemptHandle::new());
    // Longer than the task's stall timeout.
    tokio::time::sleep(Duration::from_secs(3)).await;
    gate.add_permits(1);
    let ended = running.await.unwrap();
    assert_eq!(assert_returned(&ended), "[]");
    // It may have started late.
    assert!(ended.usage.wall > Duration::from_secs(1) && ended.usage.cpu < ended.usage.wall / 2, "{:?}", ended.usage);
    assert!(recorded.broadcasts.lock().unwrap()[0].timeout <= Duration::from_secs(10), "a minute was asked for");

    let running = scene.begin(&villain, call(&villain, "hurried", order), &recorded, &AttemptHandle::new());
    let ended = running.await.unwrap();
    assert!(matches!(ended.outcome, Outcome::TimedOut { clock: TimeoutKind::Wall, .. }), "{:?}", ended.outcome);
    assert!(ended.usage.wall < Duration::from_secs(10), "{:?}", ended.usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_broadcast_used_up_its_time_has_timed_out_whoever_looks_first() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let recorded = Arc::new(RecordingHost { slow: true, ..RecordingHost::default() });
    let run = async |ms: u64| {
        let order = format!(r#"{{"do":"broadcast","topic":"a","timeout-ms":{ms}}}"#);
        scene.begin(&villain, call(&villain, "hurried", &order), &recorded, &AttemptHandle::new()).await.unwrap()
    };
    let ended = run(60_000).await;
    assert!(matches!(ended.outcome, Outcome::TimedOut { clock: TimeoutKind::Wall, .. }), "{:?}", ended.outcome);
    assert_eq!(assert_returned(&run(1).await), "[]", "it has time left");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_ended_waits_for_no_reply_and_one_that_is_cancelled_begins_none() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let recorded = Arc::new(RecordingHost { gate: Some(Arc::new(Semaphore::new(0))), ..RecordingHost::default() });
    let handle = AttemptHandle::new();
    let order = r#"{"do":"broadcast","topic":"a"}"#;
    let running = scene.begin(&villain, message(&villain, "villain.x", order), &recorded, &handle);
    tokio::time::sleep(Duration::from_millis(100)).await;
    handle.stop(Interruption::Drain, "over".into());
    let stopped = Instant::now();
    assert_eq!(running.await.unwrap().outcome, Outcome::Interrupted(Interruption::Drain, "over".into()));
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());

    let (handle, recorded) = (AttemptHandle::new(), Arc::<RecordingHost>::default());
    handle.request_cancel();
    let (tell, shown) = oneshot::channel();
    let admission = scene.engine.admit(PermitPool::Jobs, &villain).await;
    let asked = call(&villain, "do", order);
    scene.engine.start(admission, villain, asked, Arc::clone(&recorded) as _, handle, |ended| drop(tell.send(ended)));
    assert_eq!(shown.await.unwrap().outcome, Outcome::Cancelled);
    assert!(recorded.broadcasts.lock().unwrap().is_empty(), "it was told that it is cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broadcast_carries_is_bounded() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let payload = "x".repeat(usize::try_from(bounds::PAYLOAD_BYTES_MAX).unwrap());
    let order = format!(r#"{{"do":"broadcast","topic":"a","payload":"{payload}"}}"#);
    let mut asked = call(&villain, "slow", order);
    asked.limits.memory_bytes = 512 << 20;
    let (ended, recorded) = scene.run(&villain, asked).await;
    let shown = "the broadcast was refused: the payload is 33554434 bytes; the limit is 33554432";
    assert_eq!(ended.outcome, Outcome::Failed(Failure::Discard(shown.into())));
    assert!(recorded.broadcasts.lock().unwrap().is_empty());
}

/// Tests that jobs and broadcasts do not take each other's permits, nor do broadcasts of different depth.
#[tokio::test(flavor = "multi_thread")]
async fn each_share_has_room_of_its_own() {
    let scene = Scene::new(2);
    let (villain, words) = (scene.load("villain").await, scene.load("words").await);
    let shares = [(PermitPool::Jobs, 2), (PermitPool::Broadcasts { depth: 1 }, BROADCAST_CALLS)]
        .into_iter()
        .chain((2..=bounds::BROADCAST_DEPTH_MAX).map(|depth| (PermitPool::Broadcasts { depth }, 1)));
    let mut running = Vec::new();
    let controls: Vec<AttemptHandle> = (0..16).map(|_| AttemptHandle::new()).collect();
    for (share, size) in shares {
        assert_eq!(scene.engine.capacity_of(share), size);
        for _ in 0..size {
            let admission = scene.engine.admit(share, &villain).await;
            let (tell, shown) = oneshot::channel();
            let asked = message(&villain, "villain.x", r#"{"do":"sleep","ms":60000}"#);
            let handle = controls[running.len()].clone();
            let recorded = Arc::<RecordingHost>::default();
            scene
                .engine
                .start(admission, Arc::clone(&villain), asked, recorded, handle, |ended| drop(tell.send(ended)));
            running.push(shown);
        }
        let full = tokio::time::timeout(Duration::from_millis(20), scene.engine.admit(share, &words)).await;
        assert!(full.is_err(), "{share:?} has no room left");
    }
    controls[0].stop(Interruption::Drain, String::new());
    running.remove(0).await.unwrap();
    assert_returned(&scene.run(&words, words_call(&words)).await.0);
    controls.iter().for_each(|handle| handle.stop(Interruption::Drain, String::new()));
    for shown in running {
        assert!(matches!(shown.await.unwrap().outcome, Outcome::Interrupted(..)));
    }
}

/// A host that panics in a host call, as a bug would make it.
struct Broken;

impl HostCalls for Broken {
    fn emit(&self, _: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        panic!("as the test wants")
    }
    fn log(&self, _: Stream, _: String) {}
    fn log_dropped(&self, _: u64) {}
    fn progress(&self, _: f32, _: String) {}
    fn enqueue(&self, _: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        async { Ok(Vec::new()) }.boxed()
    }
    fn broadcast(&self, _: String, _: Vec<u8>, _: Duration, _: Duration) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        panic!("as the test wants")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_also_if_the_host_fails_and_its_room_is_free_again() {
    let scene = Scene::new(1);
    let villain = scene.load("villain").await;
    for order in [r#"{"do":"emit"}"#, r#"{"do":"broadcast","topic":"a"}"#] {
        let admission = scene.engine.admit(PermitPool::Jobs, &villain).await;
        let (tell, shown) = oneshot::channel();
        let (plugin, asked, handle) = (Arc::clone(&villain), call(&villain, "do", order), AttemptHandle::new());
        scene.engine.start(admission, plugin, asked, Arc::new(Broken), handle, |ended| drop(tell.send(ended)));
        let outcome = shown.await.unwrap().outcome;
        assert!(matches!(outcome, Outcome::Interrupted(Interruption::Host, _)), "{outcome:?}");
        assert!(outcome.report().ends_with("as the test wants; this is a bug of the host"), "{outcome:?}");
    }
}
