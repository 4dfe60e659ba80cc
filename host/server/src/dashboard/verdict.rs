//! The one sentence of health: how it goes, and the one thing to do. Fixed rules, the gravest first; where data is missing it says
//! so, and gives no advice.

use crate::http::api::{Summary, TaskSummary};
use crate::http::encode;

use super::text::{brief, count, counted};

/// The weight of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Idle,
    Warning,
    Bad,
    Unknown,
}

/// The verdict on the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) tone: Tone,
    /// The sentence.
    pub(super) what: String,
    /// A second sentence, with less weight.
    pub(super) rest: String,
    /// The one thing to do: its name and its page, below the root of the dashboard.
    pub(super) todo: Option<(&'static str, String)>,
}

/// The facts that a verdict is made of.
pub(super) struct Signs<'s> {
    pub(super) summary: &'s Summary,
    /// The plugins that this host refused and that no host has loaded.
    pub(super) refused: &'s [String],
    /// True if a hold is on all jobs.
    pub(super) all_held: bool,
    /// The scopes of the holds in force: jobs that they keep waiting are not late.
    pub(super) held: &'s [String],
    /// True if this host is stopping.
    pub(super) draining: bool,
}

/// The share of a task's attempts of the last minute that fail, from which it is said to fail.
const FAILING_SHARE: f64 = 0.5;
/// The number of failed attempts in the last minute from which a task is said to fail.
const FAILING_MIN: u64 = 3;
/// The time for which a job may have been due while nothing moves.
const STUCK_MS: f64 = 60_000.0;
/// The time for which a job may have been due while others move.
const LATE_MS: f64 = 300_000.0;

impl Verdict {
    fn new(tone: Tone, what: impl Into<String>) -> Verdict {
        Verdict { tone, what: what.into(), rest: String::new(), todo: None }
    }

    fn rest(self, rest: impl Into<String>) -> Verdict {
        Verdict { rest: rest.into(), ..self }
    }

    fn todo(self, name: &'static str, page: impl Into<String>) -> Verdict {
        Verdict { todo: Some((name, page.into())), ..self }
    }

    /// Returns the verdict where the store gives no answer.
    pub(super) fn without_store(reason: &str) -> Verdict {
        Verdict::new(Tone::Unknown, "Health is unknown: the store does not answer.").rest(reason)
    }

    /// Returns the verdict on these signs.
    pub(super) fn of(signs: &Signs<'_>) -> Verdict {
        let Summary { covers_s, oldest_due_ms, tasks, .. } = signs.summary;
        let (waiting, running) =
            tasks.iter().fold((0, 0), |(waiting, running), task| (waiting + task.waiting, running + task.running));
        let covers = match covers_s {
            None => {
                return Verdict::new(Tone::Unknown, "Health is unknown: a host does not say what it does.")
                    .rest("Perhaps it has just started, or its version is older.");
            }
            Some(covers) => *covers,
        };
        if signs.all_held {
            return Verdict::new(Tone::Warning, format!("All jobs are held; {} wait.", count(waiting)))
                .todo("Look at the hold", "limits#holds");
        }
        let is_refused = |task: &&TaskSummary| task.waiting > 0 && signs.refused.iter().any(|id| is_of(id, &task.task));
        if let Some(task) = tasks.iter().find(is_refused) {
            let plugin = task.task.split('/').next().unwrap_or_default();
            let wait = counted(task.waiting, "job waits", "jobs wait");
            return Verdict::new(Tone::Bad, format!("Plugin {plugin} is refused, and {wait} for {}.", task.task))
                .todo("Read why", format!("plugins/{}", encode(plugin)));
        }
        if let Some((task, failed, ended)) = tasks.iter().filter_map(failing).max_by_key(|(_, failed, _)| *failed) {
            let what = format!("{} fails: {} of {} attempts in the last minute.", task, count(failed), count(ended));
            let others = tasks.iter().filter_map(failing).count() - 1;
            let rest = match others {
                0 => String::new(),
                others => format!("{} more, too.", counted(others as u64, "task fails", "tasks fail")),
            };
            return Verdict::new(Tone::Bad, what)
                .rest(rest)
                .todo("Look at the failures", format!("failures?state=open&task={}", encode(task)));
        }
        let moved: u64 = tasks.iter().filter_map(|task| task.minute.as_ref()).map(|minute| minute.ended).sum();
        let oldest = oldest_due_ms.unwrap_or_default();
        let waits = format!("The oldest job has been due for {}.", brief(oldest));
        // Until all hosts have run for a minute, nobody knows what ended in it.
        let is_young = covers < 60;
        if !is_young && oldest > STUCK_MS && moved == 0 && running == 0 {
            let wait = counted(waiting, "job waits", "jobs wait");
            if let Some(verdict) = held(signs, format!("{wait} and none runs")) {
                return verdict.rest(waits);
            }
            let what = format!("Nothing moves: {wait}, and none runs.");
            return Verdict::new(Tone::Bad, what).rest(waits).todo("See why they wait", "jobs?state=waiting");
        }
        if signs.draining {
            return Verdict::new(Tone::Warning, "This host drains; it begins no more jobs.").rest(counted(
                running,
                "job runs.",
                "jobs run.",
            ));
        }
        if is_young {
            return Verdict::new(Tone::Unknown, "Health is not known yet: a host started less than a minute ago.")
                .rest(format!(
                    "{}, and {}.",
                    counted(waiting, "job waits", "jobs wait"),
                    counted(running, "runs", "run")
                ));
        }
        if oldest > LATE_MS {
            if let Some(verdict) = held(signs, counted(waiting, "job waits", "jobs wait")) {
                return verdict.rest(waits);
            }
            return Verdict::new(Tone::Warning, waits)
                .rest(format!(
                    "{} wait, {} run, {} ended in the last minute.",
                    count(waiting),
                    count(running),
                    count(moved)
                ))
                .todo("See what waits", "jobs?state=waiting");
        }
        let failed: u64 = tasks.iter().filter_map(|task| task.hour.as_ref()).map(|hour| hour.failed).sum();
        let of_hour = match failed {
            0 => format!("No attempt failed in the last {}.", last(covers)),
            failed => format!("{} failed in the last {}.", counted(failed, "attempt", "attempts"), last(covers)),
        };
        if waiting + running == 0 && moved == 0 {
            return Verdict::new(Tone::Idle, "All is done: nothing waits, nothing runs.").rest(of_hour);
        }
        let what = format!(
            "It moves: {} ended in the last minute, {} run.",
            counted(moved, "attempt", "attempts"),
            count(running)
        );
        Verdict::new(Tone::Good, what).rest(of_hour)
    }
}

/// Returns the time that the numbers of the last hour are of, where the hosts have run for so many seconds.
pub(super) fn last(covers_s: u64) -> String {
    match covers_s {
        3600.. => "hour".to_owned(),
        120..3600 => format!("{} m", covers_s / 60),
        0..120 => "minute".to_owned(),
    }
}

/// Returns the verdict where holds may be why jobs wait.
fn held(signs: &Signs<'_>, what: String) -> Option<Verdict> {
    let (first, rest) = signs.held.split_first()?;
    let others = if rest.is_empty() {
        String::new()
    } else {
        format!(", and {} more", counted(rest.len() as u64, "hold", "holds"))
    };
    let verdict = Verdict::new(Tone::Warning, format!("{what}; {first} is held{others}."));
    Some(verdict.todo("Look at the holds", "limits#holds"))
}

/// Returns a task that fails, with its failed and ended attempts of the last minute.
fn failing(task: &TaskSummary) -> Option<(&str, u64, u64)> {
    let minute = task.minute.as_ref()?;
    let fails = minute.failed >= FAILING_MIN && minute.failed as f64 >= FAILING_SHARE * minute.ended as f64;
    fails.then_some((task.task.as_str(), minute.failed, minute.ended))
}

fn is_of(plugin: &str, task: &str) -> bool {
    task.strip_prefix(plugin).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::{EndedCounts, WaitCounts};

    fn task(name: &str, waiting: u64, running: u64, ended: u64, failed: u64) -> TaskSummary {
        let counts = || Some(EndedCounts { ended, failed, cpu_ms: 0.0, memory_peak_bytes: 0 });
        let (wait, run) = (None, None);
        let waits = WaitCounts { ready: waiting, blocked: 0, held: 0, delayed: 0, retrying: 0, more: false };
        let oldest_ready_ms = None;
        TaskSummary {
            task: name.into(),
            waiting,
            waits,
            oldest_ready_ms,
            running,
            held: false,
            started: None,
            minute: counts(),
            hour: counts(),
            wait,
            run,
        }
    }

    fn verdict(
        tasks: Vec<TaskSummary>,
        oldest_due_ms: f64,
        change: impl FnOnce(&mut Summary, &mut Signs<'_>),
    ) -> Verdict {
        let summary = |covers_s, tasks| Summary {
            hosts: 1,
            covers_s,
            oldest_due_ms: Some(oldest_due_ms),
            tasks,
            more: false,
            keys: None,
        };
        let mut changed = summary(Some(3600), tasks);
        let unused = summary(None, Vec::new());
        let mut signs = Signs { summary: &unused, refused: &[], all_held: false, held: &[], draining: false };
        change(&mut changed, &mut signs);
        Verdict::of(&Signs { summary: &changed, ..signs })
    }

    #[test]
    fn the_gravest_sign_is_the_sentence() {
        let failing = || vec![task("a/ok", 4, 1, 100, 0), task("words/count", 0, 0, 4, 3)];
        let fails = verdict(failing(), 0.0, |_, _| {});
        assert_eq!(
            (fails.tone, fails.what.as_str()),
            (Tone::Bad, "words/count fails: 3 of 4 attempts in the last minute.")
        );
        assert_eq!(fails.todo.unwrap().1, "failures?state=open&task=words%2Fcount");
        let held = verdict(failing(), 0.0, |_, signs| signs.all_held = true);
        assert_eq!((held.tone, held.what.as_str()), (Tone::Warning, "All jobs are held; 4 wait."));
        let refused = verdict(failing(), 0.0, |_, signs| signs.refused = Box::leak(vec!["a".to_owned()].into()));
        assert_eq!(refused.what, "Plugin a is refused, and 4 jobs wait for a/ok.");
    }

    #[test]
    fn nothing_that_moves_is_told_from_what_is_late() {
        let stuck = verdict(vec![task("a/b", 2, 0, 0, 0)], 70_000.0, |_, _| {});
        assert_eq!((stuck.tone, stuck.what.as_str()), (Tone::Bad, "Nothing moves: 2 jobs wait, and none runs."));
        let held = verdict(vec![task("a/b", 2, 0, 0, 0)], 70_000.0, |_, signs| {
            signs.held = Box::leak(vec!["key:acme".to_owned(), "key:x".to_owned()].into());
        });
        let what = "2 jobs wait and none runs; key:acme is held, and 1 hold more.";
        assert_eq!((held.tone, held.what.as_str()), (Tone::Warning, what));
        let late = verdict(vec![task("a/b", 2, 1, 9, 0)], 700_000.0, |_, _| {});
        assert_eq!((late.tone, late.what.as_str()), (Tone::Warning, "The oldest job has been due for 11 m 40 s."));
        let good = verdict(vec![task("a/b", 2, 1, 9, 1)], 100.0, |_, _| {});
        assert_eq!((good.tone, good.rest.as_str()), (Tone::Good, "1 attempt failed in the last hour."));
        assert_eq!(verdict(Vec::new(), 0.0, |_, _| {}).tone, Tone::Idle);
    }

    #[test]
    fn what_is_not_known_is_said_without_advice() {
        let unknown = verdict(vec![task("a/b", 2, 0, 9, 9)], 700_000.0, |summary, _| summary.covers_s = None);
        assert_eq!((unknown.tone, unknown.todo), (Tone::Unknown, None));
        let young = verdict(vec![task("a/b", 0, 1, 0, 0)], 0.0, |summary, _| summary.covers_s = Some(5));
        assert_eq!(young.tone, Tone::Unknown);
        let backlog = verdict(vec![task("a/b", 9, 0, 0, 0)], 700_000.0, |summary, _| summary.covers_s = Some(5));
        assert_eq!((backlog.tone, backlog.todo), (Tone::Unknown, None), "after a restart, nobody knows what moved");
        let short = verdict(vec![task("a/b", 0, 1, 5, 0)], 0.0, |summary, _| summary.covers_s = Some(130));
        assert_eq!(short.rest, "No attempt failed in the last 2 m.");
    }
}
