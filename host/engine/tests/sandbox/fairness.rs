//! Tests guests that compute without end: other guests get processor time, and the host's own timers are not delayed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::outcome::{Outcome, TimeoutKind};
use wharf_engine::AttemptHandle;

use crate::scene::{Scene, assert_returned, call, words_call};

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    format!(
        "p50 {:?}, p95 {:?}, max {:?}",
        times[times.len() / 2],
        times[times.len() * 95 / 100],
        times[times.len() - 1]
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn small_attempts_pass_eight_that_loop() {
    let scene = Scene::new(16);
    let (villain, words) = (scene.load("villain").await, scene.load("words").await);
    let controls: Vec<AttemptHandle> = (0..8).map(|_| AttemptHandle::new()).collect();
    let loops: Vec<_> = controls
        .iter()
        .map(|c| scene.begin(&villain, call(&villain, "slow", r#"{"do":"loop-ignoring-cancel"}"#), &Arc::default(), c))
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;

    let (mut small, mut timers) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let asked = Instant::now();
        assert_returned(&scene.run(&words, words_call(&words)).await.0);
        small.push(asked.elapsed());
        let asked = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        timers.push(asked.elapsed().saturating_sub(Duration::from_millis(5)));
    }
    println!("small attempts beside eight loops on two threads: {}", percentiles(small.clone()));
    println!("lateness of the host's timers of 5 ms meanwhile: {}", percentiles(timers.clone()));
    assert!(loops.iter().all(|running| !running.is_finished()), "all small ones ended while all eight ran");
    small.sort();
    timers.sort();
    assert!(small[50] < Duration::from_secs(1), "{:?}", small[50]);
    assert!(timers[50] < Duration::from_millis(500), "{:?}", timers[50]);
    for handle in &controls {
        handle.request_cancel();
        handle.stop(wharf_core::outcome::Interruption::Drain, String::new());
    }
    for running in loops {
        running.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_computes_for_long_moves_to_threads_that_give_way() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let order = |times: u32| call(&villain, "slow", format!(r#"{{"do":"flood-progress","times":{times},"bytes":1}}"#));
    let (short, recorded) = scene.run(&villain, order(3)).await;
    assert_returned(&short);
    let here = rustix::process::getpriority_process(None).unwrap();
    let ordinary = ("wharf-guest".to_owned(), here);
    assert_eq!(*recorded.threads.lock().unwrap(), std::slice::from_ref(&ordinary));

    let (long, recorded) = scene.run(&villain, order(300_000)).await;
    assert_returned(&long);
    assert!(long.usage.cpu > Duration::from_millis(10), "{:?}", long.usage);
    let threads = recorded.threads.lock().unwrap();
    assert!(threads.len() >= 2 && threads[0] == ordinary, "{threads:?}");
    for (name, niceness) in &threads[1..] {
        assert_eq!((name.as_str(), *niceness), ("wharf-computing", (here + 10).min(19)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_time_is_exact_also_where_guests_take_turns() {
    let scene = Scene::new(8);
    let villain = scene.load("villain").await;
    let running: Vec<_> = (0..6)
        .map(|_| {
            scene.begin(
                &villain,
                call(&villain, "frugal", r#"{"do":"loop-ignoring-cancel"}"#),
                &Arc::default(),
                &AttemptHandle::new(),
            )
        })
        .collect();
    for attempt in running {
        let ended = attempt.await.unwrap();
        assert!(matches!(ended.outcome, Outcome::TimedOut { clock: TimeoutKind::Cpu, .. }), "{:?}", ended.outcome);
        println!("allowed 200 ms: used {:?} in {:?}", ended.usage.cpu, ended.usage.wall);
        assert!(
            ended.usage.cpu >= Duration::from_millis(200) && ended.usage.cpu < Duration::from_millis(400),
            "{:?}",
            ended.usage
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_s_own_sleep_is_not_delayed_by_loops() {
    let scene = Scene::new(16);
    let villain = scene.load("villain").await;
    let loops: Vec<_> = (0..4)
        .map(|_| {
            scene.begin(
                &villain,
                call(&villain, "do", r#"{"do":"loop-ignoring-cancel"}"#),
                &Arc::default(),
                &AttemptHandle::new(),
            )
        })
        .collect();
    let mut late = Vec::new();
    for _ in 0..20 {
        let asked = Instant::now();
        assert_returned(&scene.run(&villain, call(&villain, "do", r#"{"do":"sleep","ms":20}"#)).await.0);
        late.push(asked.elapsed().saturating_sub(Duration::from_millis(20)));
    }
    println!("lateness of a guest's sleep beside four loops: {}", percentiles(late.clone()));
    late.sort();
    assert!(late[10] < Duration::from_millis(500), "{late:?}");
    for running in loops {
        running.await.unwrap();
    }
}
