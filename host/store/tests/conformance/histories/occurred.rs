//! The names of what occurred in a history: over many of them, each must occur.

use std::collections::BTreeSet;

use wharf_core::bulk::{BulkAct, OperationStep};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_store::{Inserted, Recorded, StepTaken};

pub(super) fn note_step(step: &OperationStep, taken: Option<&StepTaken>, occurred: &mut BTreeSet<&'static str>) {
    let Some(taken) = taken else {
        occurred.insert("operation step refused");
        return;
    };
    if taken.changed.len() < step.targets.len() {
        occurred.insert("operation skipped jobs");
    }
    if !taken.changed.is_empty() {
        occurred.insert(match taken.operation.act {
            BulkAct::Delete => "operation deleted jobs",
            BulkAct::SetPriority => "operation gave priorities",
            BulkAct::Retry | BulkAct::Cancel | BulkAct::RunNow => "operation changed jobs",
        });
    }
}

pub(super) fn note_inserted(result: &Inserted, child: bool, occurred: &mut BTreeSet<&'static str>) {
    let kinds = if child { ["child added", "child known", "child discarded"] } else { ["added", "known", "discarded"] };
    match result {
        Inserted::Added { replaced, cancel_requested, .. } => {
            occurred.insert(kinds[0]);
            if !replaced.is_empty() {
                occurred.insert("replaced waiting");
            }
            if !cancel_requested.is_empty() {
                occurred.insert("asked running to end");
            }
        }
        Inserted::Duplicate { .. } => _ = occurred.insert(kinds[1]),
        Inserted::Discarded { .. } => _ = occurred.insert(kinds[2]),
    }
}

pub(super) fn note_recorded(event: &Event, result: &Result<Recorded, Refusal>, occurred: &mut BTreeSet<&'static str>) {
    use wharf_core::job::StateName as S;
    if let Event::Succeeded { changes: Some(changes), .. } = event {
        match result {
            Err(_) => _ = occurred.insert("changes refused"),
            Ok(_) if changes.iter().any(|(_, value)| value.is_none()) => _ = occurred.insert("value taken away"),
            Ok(_) => _ = occurred.insert("values kept"),
        }
    }
    let recorded = match result {
        Ok(recorded) => recorded,
        Err(refusal) => {
            occurred.insert(match refusal {
                Refusal::Unknown => "refused: unknown",
                Refusal::Stale => "refused: stale",
                Refusal::Finished(S::Succeeded) => "refused: finished succeeded",
                Refusal::Finished(S::Failed) => "refused: finished failed",
                Refusal::Finished(S::Cancelled) => "refused: finished cancelled",
                Refusal::NotFinished(S::Waiting) => "refused: not finished waiting",
                Refusal::NotFinished(S::Running) => "refused: not finished running",
                Refusal::NotFinished(S::Succeeded) => "refused: not finished succeeded",
                Refusal::NotWaiting(_) => "refused: not waiting",
                Refusal::Finished(_) | Refusal::NotFinished(_) => panic!("{refusal:?} says the opposite of its state"),
            });
            return;
        }
    };
    recorded.children.iter().for_each(|child| note_inserted(child, true, occurred));
    occurred.insert(match event {
        Event::Claimed { .. } => panic!("a lease was given past the limits"),
        Event::Wrote { .. } => "event: wrote",
        Event::Succeeded { .. } => "event: succeeded",
        Event::Failed { .. } => "event: failed",
        Event::Released { .. } => "event: released",
        Event::Cancelled { .. } => "event: cancelled",
        Event::LeaseExpired { .. } => "event: lease expired",
        Event::CancelRequested => "event: cancel asked",
        Event::Replaced => "event: replaced",
        Event::NotEnqueued(_) => panic!("only a store says so"),
        Event::RetryRequested { .. } => "event: retry asked",
        Event::RunRequested => "event: run asked",
        Event::PriorityChanged { .. } => "event: priority changed",
    });
}
