//! The text form of a node's activity: a line for the whole, one for each task, one for each key; fields separated by spaces.
//!
//! A text that can't be parsed, such as one from a newer host, counts as not announced.

use std::fmt::Write;
use std::time::Duration;

use wharf_core::activity::{Activity, EndedAttempts, TaskActivity};
use wharf_core::bounds;
use wharf_core::histogram::Histogram;
use wharf_core::top_keys::{KeyWeight, TopKeys};

use super::task_announcements::{escaped, unescaped};

/// The first field. Texts of another format are not read.
const FORMAT: &str = "1";
/// In place of a histogram that is empty.
const EMPTY: &str = "-";

/// Returns the text for an activity. It is ASCII, whatever the keys are.
pub(super) fn write(activity: &Activity) -> String {
    let mut text = format!("{FORMAT} {} {}", activity.covers.as_micros(), activity.keys.floor());
    for (task, of) in &activity.tasks {
        let _ = write!(text, "\nt {task} {} {} {}", of.started, counts(&of.minute), counts(&of.hour));
        let _ = write!(text, " {} {}", buckets(&of.wait), buckets(&of.run));
    }
    for (key, of) in activity.keys.sorted() {
        let _ = write!(text, "\nk {} {} {}", escaped(key.as_str()), of.weight, of.error);
    }
    text
}

/// Parses the text for an activity; `None` if it is in another format.
pub(super) fn read(text: &str) -> Option<Activity> {
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next()?.split(' ').collect();
    let [FORMAT, covers, floor] = head[..] else { return None };
    let mut activity = Activity { covers: Duration::from_micros(covers.parse().ok()?), ..Activity::default() };
    let mut keys = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            ["t", task, started, a, b, c, d, e, f, g, h, wait, run] => {
                let of = TaskActivity {
                    started: started.parse().ok()?,
                    minute: read_counts([a, b, c, d])?,
                    hour: read_counts([e, f, g, h])?,
                    wait: read_buckets(wait)?,
                    run: read_buckets(run)?,
                };
                activity.tasks.insert(task.parse().ok()?, of);
            }
            ["k", key, weight, error] => {
                let of = KeyWeight { weight: weight.parse().ok()?, error: error.parse().ok()? };
                keys.push((unescaped(key)?.parse().ok()?, of));
            }
            _ => return None,
        }
    }
    if activity.tasks.len() > bounds::ACTIVE_TASKS_MAX {
        return None;
    }
    activity.keys = TopKeys::from_parts(keys, floor.parse().ok()?, bounds::TOP_KEYS_MAX);
    Some(activity)
}

fn counts(of: &EndedAttempts) -> String {
    format!("{} {} {} {}", of.ended, of.failed, of.cpu.as_micros(), of.memory_peak_bytes)
}

fn read_counts(fields: [&str; 4]) -> Option<EndedAttempts> {
    let [ended, failed, cpu, memory_peak_bytes] = fields.map(|field| field.parse::<u64>().ok());
    Some(EndedAttempts {
        ended: ended?,
        failed: failed?,
        cpu: Duration::from_micros(cpu?),
        memory_peak_bytes: memory_peak_bytes?,
    })
}

fn buckets(of: &Histogram) -> String {
    let all: Vec<String> = of.buckets().map(|(bucket, count)| format!("{bucket}:{count}")).collect();
    if all.is_empty() { EMPTY.to_owned() } else { all.join(",") }
}

fn read_buckets(text: &str) -> Option<Histogram> {
    let mut of = Histogram::default();
    for pair in text.split(',').filter(|_| text != EMPTY) {
        let (bucket, count) = pair.split_once(':')?;
        of.add_to(bucket.parse().ok()?, count.parse().ok()?);
    }
    Some(of)
}

#[cfg(test)]
mod tests {
    use wharf_core::activity::ActivityLog;
    use wharf_core::key::Key;
    use wharf_core::outcome::{OutcomeKind, Usage};

    use super::*;

    #[test]
    fn an_activity_is_read_as_it_was_written() {
        let mut log = ActivityLog::default();
        assert_eq!(read(&write(&Activity::default())), Some(Activity::default()));
        for (number, key) in ["a", "a b", "ü%41", "-"].into_iter().enumerate() {
            let key: Key = key.parse().unwrap();
            let length = Duration::from_millis(number as u64 * 37);
            let usage = Usage {
                queue_wait: length,
                cpu: length,
                wall: length,
                memory_peak_bytes: 5,
                in_bytes: 0,
                out_bytes: 0,
            };
            let task = format!("p/t{}", number % 3).parse().unwrap();
            log.add_start(&task, Duration::from_secs(2));
            log.add(&task, Some(&key), OutcomeKind::Trapped, &usage, Duration::from_secs(3));
        }
        let activity = log.activity(Duration::from_secs(70));
        let text = write(&activity);
        assert!(text.is_ascii() && read(&text) == Some(activity), "{text}");
    }

    #[test]
    fn texts_of_another_format_count_as_not_announced() {
        for strange in [
            "",
            "2 0 0",
            "1 0",
            "1 0 0\nx",
            "1 0 0\nk %zz 1 1",
            "1 0 0\nt p/t 1 1 1 1 1 1 1 1 - -",
            "1 0 0\nt p/t 1 1 1 1 1 1 1 1 1 9 -",
        ] {
            assert_eq!(read(strange), None, "{strange:?}");
        }
    }
}
