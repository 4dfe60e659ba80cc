use std::collections::BTreeMap;

use wharf_core::key::{Key, Lane};
use wharf_engine::PluginSettings;

use super::*;
use crate::queue_bounds::tests::{bounds, memory, new_job, plugin};

fn keep(
    children: &Children,
    bounds: &Arc<QueueBounds>,
    jobs: Vec<NewJob>,
    known: Tokens,
) -> Result<Vec<String>, String> {
    let reserved = bounds.try_reserve(places(&jobs)).map_err(drop).unwrap();
    children.keep(bounds, jobs, reserved, known).map_err(|rejected| rejected.why)
}

/// Returns bounds that have asked the store.
async fn ready_bounds(generations_max: u32, settings: &BTreeMap<PluginId, PluginSettings>) -> Arc<QueueBounds> {
    let bounds = bounds(memory(), (100, generations_max), settings);
    drop(bounds.reserve(Vec::new()).await.unwrap());
    bounds
}

fn children(generation: u32) -> Children {
    Children::new(Lineage { parent: JobId::from_number(99), generation })
}

fn delayed(number: u64, task: &str) -> NewJob {
    NewJob { due: Some(Due::In(bounds::GENERATION_PAUSE)), ..new_job(number, task) }
}

fn with_token(number: u64, token: &str) -> NewJob {
    NewJob { token: Some(token.parse().unwrap()), ..new_job(number, "a/one") }
}

#[tokio::test]
async fn an_earlier_child_is_held_to_its_bound_when_a_later_one_raises_the_generation() {
    let deep = PluginSettings { generations_max: Some(100), ..PluginSettings::default() };
    let bounds = ready_bounds(3, &BTreeMap::from([(plugin("deep"), deep)])).await;
    let children = children(3);
    keep(&children, &bounds, vec![delayed(1, "a/one")], Tokens::new()).unwrap();
    // One alone that starts later goes on with the generation of its parent; two are the next one.
    let why = keep(&children, &bounds, vec![new_job(2, "deep/one")], Tokens::new()).unwrap_err();
    assert!(why.contains("would be generation 4") && why.contains("[plugins.a]"), "{why}");
    let jobs = children.take();
    assert_eq!(jobs.iter().map(|job| (job.id.number(), job.lineage.generation)).collect::<Vec<_>>(), [(1, 3)]);
}

#[tokio::test]
async fn the_bound_of_each_plugin_holds() {
    let bounds = ready_bounds(3, &BTreeMap::new()).await;
    assert!(keep(&children(3), &bounds, vec![new_job(1, "a/one")], Tokens::new()).is_err());
    let children = children(2);
    keep(&children, &bounds, vec![new_job(1, "a/one"), new_job(2, "b/one")], Tokens::new()).unwrap();
    keep(&children, &bounds, vec![delayed(3, "a/one")], Tokens::new()).unwrap();
    assert!(children.take().iter().all(|job| job.lineage == Lineage { parent: JobId::from_number(99), generation: 3 }));
}

#[tokio::test]
async fn duplicates_get_the_id_of_the_first_and_keep_no_place() {
    let bounds = ready_bounds(3, &BTreeMap::new()).await;
    let children = children(0);
    let id = |number| JobId::from_number(number).unwrap().to_string();
    let stored = Tokens::from([(with_token(1, "stored").unique_token().unwrap(), JobId::from_number(50).unwrap())]);
    let new = vec![with_token(1, "stored"), with_token(2, "x"), with_token(3, "x"), new_job(4, "a/one")];
    let ids = keep(&children, &bounds, new, stored).unwrap();
    assert_eq!(ids, [id(50), id(2), id(2), id(4)]);
    assert_eq!(bounds.counted("a"), (0, 0, 2));
    // However often a guest repeats it.
    for number in 5..9 {
        assert_eq!(keep(&children, &bounds, vec![with_token(number, "x")], Tokens::new()).unwrap(), [id(2)]);
    }
    assert_eq!(bounds.counted("a"), (0, 0, 2));
    let of_key = Lane { key: Some("k".parse::<Key>().unwrap()), ..with_token(9, "x").lane };
    let of_key = NewJob { lane: of_key, ..with_token(9, "x") };
    assert_eq!(keep(&children, &bounds, vec![of_key], Tokens::new()).unwrap(), [id(9)]);
    assert_eq!(children.take().len(), 3);
    drop(children);
    assert_eq!(bounds.counted("a"), (0, 3, 0));
}

#[tokio::test]
async fn jobs_that_are_too_many_or_too_large_leave_none_of_them() {
    let bounds = ready_bounds(3, &BTreeMap::new()).await;
    let children = children(0);
    let large = |number, bytes| NewJob { payload: vec![0; bytes].into(), ..with_token(number, &number.to_string()) };
    let max = usize::try_from(bounds::BATCH_BYTES_MAX).unwrap();
    keep(&children, &bounds, vec![large(1, max - 1)], Tokens::new()).unwrap();
    let why = keep(&children, &bounds, vec![large(2, 2)], Tokens::new()).unwrap_err();
    assert!(why.contains(&format!("would enqueue {} bytes", max + 1)), "{why}");
    // Its token is not taken by the job that was refused.
    let id = JobId::from_number(3).unwrap();
    let again = NewJob { id, ..large(2, 1) };
    assert_eq!(keep(&children, &bounds, vec![again], Tokens::new()).unwrap(), [id.to_string()]);
    assert_eq!(children.take().len(), 2);
}
