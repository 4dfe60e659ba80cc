//! From what the store answers to the documents of the API.

use std::time::Duration;

use wharf_core::ids::JobId;
use wharf_core::job::{self, NumberedEntry, State, Stream, WaitReason};
use wharf_core::outcome;
use wharf_core::time::Timestamp;
use wharf_runner::{JobView, JobWaitReason};

use super::bytes::{inline_base64, inline_json, to_base64};
use super::wire::{Bill, Entry, Holder, Job, Lease, Moment, Report, Waits};

/// A job whole.
pub(crate) fn job_document(view: &JobView) -> Job {
    let seen = &view.seen;
    let (payload, result) = (&seen.job.payload, seen.job.result.as_deref());
    Job {
        payload_bytes: Some(payload.len()),
        payload: inline_json(payload),
        payload_base64: inline_base64(payload),
        result_bytes: result.map(<[u8]>::len),
        result: result.and_then(inline_json),
        result_base64: result.and_then(inline_base64),
        ..job_standing(view)
    }
}

/// Where a job stands: without what went in and came out.
pub(crate) fn job_standing(view: &JobView) -> Job {
    Job { waits: view.waiting.as_ref().map(waits_for), entries: Some(view.seen.entries), ..job_line(&view.seen.job) }
}

/// A job as it stands in a list.
pub(crate) fn job_line(job: &job::Job) -> Job {
    let standing = &job.standing;
    Job {
        id: job.id.to_string(),
        task: job.task.to_string(),
        state: standing.state.name().as_str().to_owned(),
        waits: None,
        group: job.lane.group.to_string(),
        key: job.lane.key.as_ref().map(ToString::to_string),
        priority: job.priority,
        token: job.token.as_ref().map(|token| token.as_str().to_owned()),
        batch: job.batch.as_ref().map(|batch| batch.id.to_string()),
        enqueued_at: Moment(job.enqueued_at),
        due_at: match standing.state {
            State::Waiting { due } => Some(Moment(due)),
            _ => None,
        },
        started_at: job.started_at.map(Moment),
        finished_at: job.finished_at.map(Moment),
        attempt: standing.attempt,
        failures: standing.failures,
        crashes: standing.crashes,
        cancel_asked: standing.cancel_asked,
        lease: match standing.state {
            State::Running { lease } => Some(Lease { node: lease.node.to_string(), until: Moment(lease.until) }),
            _ => None,
        },
        report: job.report.as_ref().map(report),
        bill: job.bill.as_ref().map(bill),
        payload_bytes: None,
        payload: None,
        payload_base64: None,
        result_bytes: None,
        result: None,
        result_base64: None,
        entries: None,
    }
}

pub(crate) fn report(report: &outcome::Report) -> Report {
    Report { outcome: report.kind.as_str().to_owned(), text: report.text.clone() }
}

fn bill(bill: &outcome::Bill) -> Bill {
    let millis = |length: Duration| length.as_micros() as f64 / 1000.0;
    Bill {
        queue_wait_ms: millis(bill.queue_wait),
        guest_ms: millis(bill.guest),
        wall_ms: millis(bill.wall),
        memory_peak_bytes: bill.memory_peak_bytes,
        in_bytes: bill.in_bytes,
        out_bytes: bill.out_bytes,
    }
}

fn waits(reason: &str, text: String) -> Waits {
    Waits { reason: reason.to_owned(), text, until: None, limit: None, holders: Vec::new() }
}

fn waits_for(why: &JobWaitReason) -> Waits {
    match why {
        JobWaitReason::Queue(why) => waits_in_queue(why),
        JobWaitReason::PluginLoading { plugin } => {
            waits("plugin-loading", format!("plugin `{plugin}` is still being made ready"))
        }
        JobWaitReason::PluginAbsent { plugin, refused: Some(why) } => {
            waits("plugin-absent", format!("plugin `{plugin}` could not be loaded: {why}"))
        }
        JobWaitReason::PluginAbsent { plugin, refused: None } => waits(
            "plugin-absent",
            format!("there is no `{plugin}.wasm` in the plugin folder, and no other host has it"),
        ),
        JobWaitReason::TaskAbsent { task } => waits(
            "task-absent",
            format!("plugin `{}` does not have the task `{}` any more", task.plugin(), task.task()),
        ),
        JobWaitReason::Draining => waits("draining", "this host is stopping; the next one runs it".to_owned()),
    }
}

fn waits_in_queue(why: &WaitReason) -> Waits {
    let full = |reason, what: &str, limit: u32, holders: &[(JobId, Timestamp)]| {
        let first: Vec<String> = holders.iter().map(|(id, _)| id.to_string()).collect();
        let text = format!("{what} has its limit of {limit} running: {}", first.join(", "));
        let holders = holders.iter().map(|(id, since)| Holder { id: id.to_string(), since: Moment(*since) }).collect();
        Waits { limit: Some(limit), holders, ..waits(reason, text) }
    };
    match why {
        WaitReason::NotDue { until } => {
            let until = Moment(*until);
            Waits { until: Some(until), ..waits("not-due", format!("it is not due before {:.0}", until.date())) }
        }
        WaitReason::LaneFull { limit, holders } => full("lane-full", "its key", *limit, holders),
        WaitReason::GroupFull { limit, holders } => full("group-full", "its limit group", *limit, holders),
        WaitReason::Paused => waits("paused", "its limit is set to zero: an operator's pause".to_owned()),
        WaitReason::InTurn => waits(
            "in-turn",
            "other jobs are before it, every sandbox is busy, or the processors are with jobs of its task".to_owned(),
        ),
    }
}

/// One entry of a job's log: the name of its event, and the data.
pub(crate) fn entry_document(numbered: &NumberedEntry) -> (&'static str, Entry) {
    let plain = Entry { attempt: numbered.attempt, at: Some(Moment(numbered.at)), ..Entry::default() };
    match &numbered.entry {
        job::Entry::Chunk(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => ("chunk", Entry { text: Some(text.to_owned()), ..plain }),
            Err(_) => ("chunk", Entry { base64: Some(to_base64(bytes)), ..plain }),
        },
        job::Entry::Log { stream, line } => {
            let stream = match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            ("log", Entry { stream: Some(stream.to_owned()), line: Some(line.to_string()), ..plain })
        }
        job::Entry::LogDropped { lines } => ("log-dropped", Entry { lines: Some(*lines), ..plain }),
        job::Entry::Progress { fraction, note } => {
            ("progress", Entry { fraction: Some(*fraction), note: Some(note.clone()), ..plain })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(entry: job::Entry) -> NumberedEntry {
        NumberedEntry { number: 7, attempt: 2, at: Timestamp::from_millis(1_900_000_000_000), entry }
    }

    #[test]
    fn chunks_are_text_where_they_can_be() {
        let (name, data) = entry_document(&numbered(job::Entry::Chunk(b"caf\xc3\xa9".as_slice().into())));
        assert_eq!((name, data.text.as_deref(), data.base64), ("chunk", Some("café"), None));
        let (_, data) = entry_document(&numbered(job::Entry::Chunk([0xff, 0].as_slice().into())));
        assert_eq!((data.text, data.base64.as_deref()), (None, Some("/wA=")));
    }

    #[test]
    fn a_full_lane_names_who_fills_it() {
        let id: JobId = "0000000000001".parse().unwrap();
        let told = waits_in_queue(&WaitReason::LaneFull { limit: 1, holders: vec![(id, Timestamp::ZERO)] });
        assert_eq!((told.reason.as_str(), told.limit), ("lane-full", Some(1)));
        assert_eq!(told.text, "its key has its limit of 1 running: 0000000000001");
    }
}
