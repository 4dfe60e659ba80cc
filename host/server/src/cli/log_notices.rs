//! Logs the notices of the host: one line each, at the level at which operators want it.

use std::time::Duration;

use tracing::{debug, error, info, warn};
use wharf_core::attempt::{Attempt, dropped_count};
use wharf_core::bounds;
use wharf_core::clock_watch::ClockDoubt;
use wharf_core::limits::Limits;
use wharf_core::outcome::OutcomeKind;
use wharf_core::schedule::{TickOutcome, is_told};
use wharf_runner::{AttemptEnded, BroadcastEnded, FailedJob, Notice};

use super::log::Log;
use crate::http::api::Moment;
use crate::progress::loading_step_text;

/// The most of a report's first line that the line of a failed job quotes, in bytes.
const LOGGED_REPORT_BYTES_MAX: usize = 500;

/// Logs a notice.
pub(crate) fn log_notice(notice: &Notice, log: &Log) {
    match notice {
        Notice::JobsEnqueued { task, count } => debug!(%task, count, "jobs enqueued"),
        Notice::JobsDeduplicated { task, count } => debug!(%task, count, "jobs with known tokens"),
        Notice::JobsDiscarded { task, count } => debug!(%task, count, "jobs discarded: their lane is full"),
        Notice::AttemptStarted { task, job, number, .. } => debug!(%task, %job, number, "attempt started"),
        Notice::SuspectStarted { task, job, crashes } => {
            warn!(%task, %job, crashes, "a job runs alone because so many of its attempts ended with a crash of their host")
        }
        Notice::AttemptEnded(ended) => attempt_ended(ended),
        Notice::AttemptStale { task, job, number } => {
            warn!(%task, %job, number, "the result of an attempt was refused: another attempt has taken over its job")
        }
        Notice::JobEnded { task, job, state } => debug!(%task, %job, state = state.as_str(), "job ended"),
        Notice::JobFailed(failed) => job_failed(failed),
        Notice::JobReplaced { job } => debug!(%job, "cancelled: a newer job of its key took its place"),
        Notice::CancelRequested { job } => debug!(%job, "cancel requested"),
        Notice::RetryRequested { job } => debug!(%job, "retry requested"),
        Notice::LogDropped { task, job, lines } => debug!(%task, %job, lines, "log lines dropped"),
        Notice::PlaceholderSent { plugin, secret, part } => {
            debug!(%plugin, secret, part, "the placeholder of a secret went out as it is")
        }
        Notice::BroadcastEnded(ended) => broadcast_ended(ended),
        Notice::BroadcastRefused { topic } => warn!(%topic, "broadcast refused: too many broadcasts are open"),
        // The runner logs the lines of guests itself, with the target `wharf::guest`.
        Notice::SubscriberLog { .. } => {}
        Notice::SubscriberLogDropped { plugin, topic, lines } => debug!(%plugin, %topic, lines, "log lines dropped"),
        Notice::PluginLoading { plugin, step } => {
            log.show_progress(format!("{plugin}: {}", loading_step_text(*step)));
            debug!(%plugin, step = loading_step_text(*step), "plugin loading");
        }
        Notice::PluginLoaded { plugin, version, digest, tasks, topics, took } => {
            let digest = digest.get(..12).unwrap_or(digest);
            let offers =
                [(*tasks, "task"), (*topics, "topic")].map(|(count, what)| (counted(count as u64, what), count));
            let offers: Vec<String> =
                offers.into_iter().filter(|(_, count)| *count > 0).map(|(text, _)| text).collect();
            info!("loaded plugin {plugin} {version} ({}, {digest}, {took:.1?})", offers.join(", "));
        }
        Notice::PluginRefused { file, why, kept, passing } => {
            let kept = if *kept { "; the loaded version stays in use" } else { "" };
            let again = if *passing { "; it is loaded again later" } else { "" };
            warn!("refused {file}{kept}{again}: {why}");
        }
        Notice::PluginRetired { plugin } => info!("retired plugin {plugin}: its file is gone"),
        Notice::FirstScanDone { loaded, refused } => {
            log.end_progress();
            let refused =
                if *refused > 0 { format!(", {} refused", counted(*refused as u64, "file")) } else { String::new() };
            info!("ready: {} loaded{refused}", counted(*loaded as u64, "plugin"));
        }
        Notice::FolderUnreadable { why } => error!(why, "could not read the plugin folder; loaded plugins stay"),
        Notice::FolderUnwatched { why } => {
            warn!(why, "could not watch the plugin folder; changes are found every `plugins-rescan`")
        }
        Notice::StoreFailed { doing, why } => error!(doing, why, "the store failed; trying again"),
        Notice::StoreRecovered => info!("the store works again"),
        Notice::StoreLogPinned { log, bytes } => warn!(
            "{log} has grown to {} MiB and keeps growing, because another program, such as a backup or a shell, has a read \
             transaction open on the database; `fuser -v {log}` names the program. The log is written to the database file \
             when that transaction ends",
            bytes >> 20
        ),
        Notice::StoreLogReleased => info!("the store's log is written to its database file again"),
        Notice::LimitSet { group, key, limits, by } if *limits == Limits::default() => {
            info!(group, key, by = by.as_deref(), "limit cleared")
        }
        Notice::LimitSet { group, key, limits, by } => {
            info!(group, key, per_key = limits.per_key, total = limits.total, by = by.as_deref(), "limit changed")
        }
        Notice::HoldSet { hold } => {
            let until = hold.until.map(|until| format!("{:.0}", Moment(until).date()));
            let (reason, by) = (Some(hold.reason.as_str()).filter(|reason| !reason.is_empty()), hold.by.as_deref());
            info!(scope = %hold.scope, until, reason, by, "hold set");
        }
        Notice::OperationStarted { operation } => {
            let by = operation.author.as_deref();
            info!(operation = %operation.id, act = %operation.act, filter = operation.filter, by, "bulk operation started");
        }
        Notice::OperationEnded { operation } => {
            let (state, reason) = (operation.state.as_str(), operation.reason.as_deref());
            let (changed, skipped) = (operation.changed, operation.skipped);
            info!(operation = %operation.id, act = %operation.act, state, changed, skipped, reason, "bulk operation ended");
        }
        Notice::ScheduleTicked { schedule, ticks, in_a_row } => {
            for (place, tick) in ticks.iter().enumerate() {
                let in_a_row = if place + 1 == ticks.len() { *in_a_row } else { tick.count };
                let (outcome, at) = (tick.outcome.as_str(), format!("{:.0}", Moment(tick.tick).date()));
                let job = tick.job.map(|job| job.to_string());
                if tick.outcome == TickOutcome::Fired {
                    debug!(%schedule, tick = at, job, "schedule fired");
                } else if !is_told(in_a_row, tick.count) {
                    debug!(%schedule, tick = at, in_a_row, outcome, job, "no job was enqueued at a tick of a schedule");
                } else {
                    let reason = Some(tick.reason.as_str()).filter(|reason| !reason.is_empty());
                    warn!(%schedule, tick = at, count = tick.count, in_a_row, outcome, job, reason, "no job was enqueued at a tick of a schedule");
                }
            }
        }
        Notice::ScheduleUnreadable { schedule, why } => {
            warn!(%schedule, "this host cannot work out the moments of a schedule, and leaves it to other hosts: {why}")
        }
        Notice::ScheduleTired { schedule, reason } => warn!(%schedule, "schedule paused: {reason}"),
        Notice::ScheduleChanged { schedule, act, by } => {
            info!(%schedule, act = act.as_str(), by = by.as_deref(), "schedule changed")
        }
        Notice::ScheduleDiffers { schedule, why } => {
            warn!(%schedule, "a schedule of wharf.toml does not hold: {why}")
        }
        Notice::SchedulesRewound { count } => {
            warn!(count, "the clock was ahead: the next moments of schedules are worked out anew")
        }
        Notice::HoldReleased { scope, by } => info!(%scope, by = by.as_deref(), "hold released"),
        Notice::FailureRegressed { task, job, fingerprint } => {
            warn!(%task, %job, %fingerprint, "a failure that was resolved is back, with a newer version of its plugin")
        }
        Notice::FailureStateSet { fingerprint, state, by } => {
            info!(%fingerprint, state = state.as_str(), by = by.as_deref(), "state of a failure group changed")
        }
        Notice::Upkeep { reclaimed, deleted, took } if *reclaimed > 0 => {
            warn!(reclaimed, deleted, ?took, "upkeep: leases had expired; their jobs wait again");
        }
        Notice::Upkeep { reclaimed, deleted, took } => debug!(reclaimed, deleted, ?took, "upkeep"),
        Notice::ClockDoubted { why: ClockDoubt::AllIsOld } => warn!(
            "every job is older than what is kept: either nothing ran for long, or the clock is ahead; nothing is deleted for its age within {:?}",
            bounds::CLOCK_DOUBTED
        ),
        Notice::ClockDoubted { why: ClockDoubt::WentAhead(ahead) } => warn!(
            "the clock went ahead of the time that passed by {ahead:.0?}: nothing is deleted for its age within {:?}",
            bounds::CLOCK_DOUBTED
        ),
        Notice::NodeDrained { drained: true, by } => {
            info!(by = by.as_deref(), "draining: this host claims no jobs until it is resumed or starts again")
        }
        Notice::NodeDrained { drained: false, by } => info!(by = by.as_deref(), "resumed: this host claims jobs again"),
        Notice::DrainStarted { timeout, running } => drain_started(*timeout, *running),
        Notice::DrainEnded => info!("stopped"),
        Notice::HostFault { doing, why } => error!(doing, why, "a bug in the host; please report it"),
    }
}

fn drain_started(timeout: Duration, running: u32) {
    match running {
        _ if timeout.is_zero() => {}
        0 => info!("stopping: no attempt is running"),
        _ => info!(
            "stopping: {} may continue for {timeout:?}; interrupt again to stop at once",
            counted(u64::from(running), "attempt")
        ),
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn attempt_ended(ended: &AttemptEnded) {
    let AttemptEnded { task, job, number, kind, report, usage, .. } = ended;
    let first = report.lines().next().unwrap_or_default();
    match kind {
        OutcomeKind::Returned => {
            debug!(%task, %job, number, wall = ?usage.wall, cpu = ?usage.cpu, "attempt returned")
        }
        OutcomeKind::Cancelled | OutcomeKind::Interrupted => {
            debug!(%task, %job, number, outcome = kind.as_str(), first, "attempt ended")
        }
        _ => info!(%task, %job, number, outcome = kind.as_str(), "attempt failed: {first}"),
    }
}

/// Logs the final failure of a job, in one line with all that its attempts have in common or not.
fn job_failed(failed: &FailedJob) {
    let FailedJob { task, id, job, attempts } = failed;
    let Some(job) = job else { return warn!(%task, job = %id, "job failed; the store has how") };
    let last = attempts.last();
    let outcome = last.map(|attempt| attempt.end.report.kind.as_str());
    let plugin_version = last.and_then(|last| Some(last.end.origin.as_ref()?.plugin_version.as_str()));
    let (key, number) = (job.lane.key.as_ref().map(ToString::to_string), job.status.attempt);
    let took = job.finished_at.map(|finished| finished.since(job.enqueued_at).as_millis() as u64);
    let mut trace: Vec<String> = attempts.iter().map(attempt_text).collect();
    let dropped = dropped_count(attempts);
    if dropped > 0 {
        let place = (bounds::ATTEMPTS_KEPT_OLDEST as usize).min(trace.len());
        trace.insert(place, format!("{} not kept", counted(u64::from(dropped), "attempt")));
    }
    let first = last.map_or("", |attempt| attempt.end.first_line());
    let first = &first[..first.floor_char_boundary(LOGGED_REPORT_BYTES_MAX)];
    let trace = trace.join("; ");
    warn!(%task, job = %id, key, plugin_version, outcome, attempts = number, duration_ms = took, trace, "job failed: {first}");
}

fn attempt_text(attempt: &Attempt) -> String {
    let Attempt { end, .. } = attempt;
    let wall = end.usage.map_or_else(String::new, |usage| format!(" after {:.1?}", usage.wall));
    let origin = end
        .origin
        .as_ref()
        .map_or_else(String::new, |origin| format!(" by version {} on {}", origin.plugin_version, origin.node_name));
    format!("{} {}{wall}{origin}", end.number, end.report.kind.as_str())
}

fn broadcast_ended(ended: &BroadcastEnded) {
    let BroadcastEnded { id, topic, depth, ending, answers, took } = ended;
    let answers: Vec<String> = answers.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    debug!(%topic, %id, depth, ending = ending.as_str(), ?took, "broadcast ended: {}", answers.join(", "));
}
