//! Chunks, log lines and progress: in order, at once, resumable, and a flood delays nobody.

use futures_util::StreamExt;
use wharf_core::job::{Entry, NumberedEntry, StateName};
use wharf_runner::{JobUpdate, Notice, Request};

use crate::setup::{Running, Setup, memory, order};

/// Everything that a follower receives of a job until its end: entries, and the states between them.
async fn life(running: &Running, id: wharf_core::ids::JobId, after: u64) -> (Vec<NumberedEntry>, Vec<StateName>) {
    let mut life = Box::pin(running.host.follow(id, after));
    let (mut entries, mut states) = (Vec::new(), Vec::new());
    while let Some(followed) = life.next().await {
        match followed.unwrap() {
            JobUpdate::Entry(entry) => entries.push(entry),
            JobUpdate::State(seen) => states.push(seen.job.status.state.name()),
        }
    }
    (entries, states)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_receives_everything_in_order_and_then_the_end() {
    let running = Setup::new().with(&["words"]).start(memory()).await;
    let text = (0..200).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\\n");
    let payload = format!(r#"{{"text":"{text}"}}"#).into_bytes();
    let id = running.enqueue(Request { task: "words/count".into(), payload, ..Request::default() }).await;
    let (entries, states) = life(&running, id, 0).await;
    assert_eq!(*states.last().unwrap(), StateName::Succeeded);
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=entries.len() as u64).collect::<Vec<_>>());
    let chunks: Vec<String> = entries
        .iter()
        .filter_map(|entry| match &entry.entry {
            Entry::Chunk(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            _ => None,
        })
        .collect();
    assert_eq!(chunks.len(), 200);
    assert!(chunks[199].contains("200"), "{}", chunks[199]);
    let progress: Vec<f32> = entries
        .iter()
        .filter_map(|entry| match entry.entry {
            Entry::Progress { fraction, .. } => Some(fraction),
            _ => None,
        })
        .collect();
    assert!(progress.len() < 200, "progress is not throttled");
    assert_eq!(progress.last(), Some(&1.0), "the last progress is kept");

    // A follower that comes back goes on where it was.
    let (rest, states) = life(&running, id, numbers[numbers.len() - 3]).await;
    assert_eq!((rest.len(), &states[..]), (2, &[StateName::Succeeded][..]));
    assert_eq!(rest[..], entries[entries.len() - 2..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_log_lines_drops_lines_and_no_output() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    let id = running.enqueue(order("slow", r#"{"do":"emit","chunks":50,"log-bytes":30000}"#)).await;
    let flood = running.enqueue(order("slow", r#"{"do":"flood-stdout","lines":200000}"#)).await;
    let (entries, states) = life(&running, id, 0).await;
    assert_eq!(states.last(), Some(&StateName::Succeeded));
    assert_eq!(entries.iter().filter(|entry| matches!(entry.entry, Entry::Chunk(_))).count(), 50);
    let (entries, _) = life(&running, flood, 0).await;
    let kept = entries.iter().filter(|entry| matches!(entry.entry, Entry::Log { .. })).count() as u64;
    let dropped: u64 =
        entries.iter().map(|entry| if let Entry::LogDropped { lines } = entry.entry { lines } else { 0 }).sum();
    assert!(dropped > 0);
    assert_eq!(kept + dropped, 200_000, "a line is kept or counted");
    let is_reported =
        |notice: &Notice| matches!(notice, Notice::LogDropped { job, lines, .. } if *job == flood && *lines == dropped);
    running.until_notified("lines were dropped", is_reported).await;
}
