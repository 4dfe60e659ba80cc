//! What a node tells of a plugin's tasks, as one text: a line for each, its fields divided by spaces. And of one that is coming.
//!
//! The text is ASCII whatever a manifest says, so that every database takes it. What cannot be read, as from a newer host,
//! counts as not told.

use std::fmt::Write;

use wharf_core::limits::{Limits, OnConflict};
use wharf_core::node::{LoadingPlugin, SchemaAnnouncement, TaskAnnouncement};
use wharf_core::topic::Pattern;

/// The first line: of another form nothing is read.
const FORM: &str = "1";
const NONE: &str = "-";
const UNTOLD: &str = "?";
/// In place of patterns: there will be none. A pattern may be a `-`, and is never this.
const NO_TOPICS: &str = "!";

/// Empty where nothing is told.
pub(super) fn text(tasks: Option<&[TaskAnnouncement]>) -> String {
    let Some(tasks) = tasks else { return String::new() };
    tasks.iter().fold(FORM.to_owned(), |text, task| text + "\n" + &line(task))
}

/// `None` where nothing is told that can be read.
pub(super) fn read(text: &str) -> Option<Vec<TaskAnnouncement>> {
    let (form, lines) = text.split_once('\n').unwrap_or((text, ""));
    if form != FORM {
        return None;
    }
    lines.lines().map(task).collect()
}

/// A plugin that is coming, and its patterns behind it where they are known.
pub(super) fn coming_text(pending: &LoadingPlugin) -> String {
    let patterns = match pending.topics.as_deref() {
        None => Vec::new(),
        Some([]) => vec![NO_TOPICS],
        Some(topics) => topics.iter().map(Pattern::as_str).collect(),
    };
    [pending.plugin.as_str()].into_iter().chain(patterns).collect::<Vec<_>>().join(" ")
}

pub(super) fn read_coming(text: &str) -> Option<LoadingPlugin> {
    let mut words = text.split(' ');
    let plugin = words.next()?.parse().ok()?;
    let topics = match words.collect::<Vec<_>>().as_slice() {
        [] => None,
        [NO_TOPICS] => Some(Vec::new()),
        patterns => Some(patterns.iter().map(|pattern| pattern.parse().ok()).collect::<Option<_>>()?),
    };
    Some(LoadingPlugin { plugin, topics })
}

fn line(task: &TaskAnnouncement) -> String {
    let number = |limit: Option<u32>| limit.map_or_else(|| NONE.to_owned(), |limit| limit.to_string());
    let on_conflict = match task.on_conflict {
        OnConflict::Wait => "wait",
        OnConflict::Discard => "discard",
        OnConflict::ReplaceWaiting => "replace-waiting",
        OnConflict::CancelRunning => "cancel-running",
    };
    let key = task.key.as_ref().map_or_else(|| NONE.to_owned(), |key| escaped(key));
    let schema = match &task.schema {
        SchemaAnnouncement::Absent => NONE.to_owned(),
        SchemaAnnouncement::Text(schema) => escaped(schema),
        SchemaAnnouncement::Untold => UNTOLD.to_owned(),
    };
    let (per_key, total) = (number(task.limits.per_key), number(task.limits.total));
    format!("{} {} {on_conflict} {per_key} {total} {key} {schema}", task.name, task.group)
}

fn task(line: &str) -> Option<TaskAnnouncement> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [name, group, on_conflict, per_key, total, key, schema] = fields[..] else { return None };
    let number = |field: &str| if field == NONE { Some(None) } else { field.parse().ok().map(Some) };
    Some(TaskAnnouncement {
        name: name.parse().ok()?,
        group: group.parse().ok()?,
        limits: Limits { per_key: number(per_key)?, total: number(total)? },
        on_conflict: match on_conflict {
            "wait" => OnConflict::Wait,
            "discard" => OnConflict::Discard,
            "replace-waiting" => OnConflict::ReplaceWaiting,
            "cancel-running" => OnConflict::CancelRunning,
            _ => return None,
        },
        key: if key == NONE { None } else { Some(unescaped(key)?) },
        schema: match schema {
            NONE => SchemaAnnouncement::Absent,
            UNTOLD => SchemaAnnouncement::Untold,
            schema => SchemaAnnouncement::Text(unescaped(schema)?),
        },
    })
}

/// A text that is one of the two marks is escaped whole.
fn escaped(text: &str) -> String {
    let is_mark = text == NONE || text == UNTOLD;
    text.bytes().fold(String::with_capacity(text.len()), |mut all, byte| {
        if byte.is_ascii_graphic() && byte != b'%' && !is_mark {
            all.push(char::from(byte));
        } else {
            let _ = write!(all, "%{byte:02x}");
        }
        all
    })
}

fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part.as_bytes().get(2..)?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(key: Option<&str>, schema: SchemaAnnouncement) -> TaskAnnouncement {
        TaskAnnouncement {
            name: "words/count".parse().unwrap(),
            group: "hands".parse().unwrap(),
            limits: Limits { per_key: Some(2), total: None },
            on_conflict: OnConflict::ReplaceWaiting,
            key: key.map(str::to_owned),
            schema,
        }
    }

    #[test]
    fn what_is_told_is_read_as_it_was_whatever_it_says() {
        let schema = |text: &str| SchemaAnnouncement::Text(text.to_owned());
        let tasks = [
            terms(None, SchemaAnnouncement::Absent),
            terms(Some("/tenant"), SchemaAnnouncement::Untold),
            terms(Some("/a b\n\0\u{202e}%41ä"), schema("{\"type\": \"object\",\n\t\"title\": \"ü\u{1f600} %\"}")),
            terms(Some("-"), schema("?")),
            terms(Some(""), schema("")),
        ];
        for count in 0..=tasks.len() {
            let told = text(Some(&tasks[..count]));
            assert!(told.bytes().all(|byte| byte == b'\n' || byte == b' ' || byte.is_ascii_graphic()), "{told:?}");
            assert_eq!(read(&told).as_deref(), Some(&tasks[..count]), "{told:?}");
        }
        assert_eq!((text(None).as_str(), read("")), ("", None));
    }

    #[test]
    fn what_is_coming_is_read_as_it_was_told() {
        let topics = |patterns: &[&str]| Some(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect());
        for topics in [None, topics(&[]), topics(&["-"]), topics(&["a.*", ">"])] {
            let pending = LoadingPlugin { plugin: "words".parse().unwrap(), topics };
            assert_eq!(read_coming(&coming_text(&pending)), Some(pending));
        }
        assert_eq!((read_coming(""), read_coming("words a..b")), (None, None));
    }

    #[test]
    fn what_another_version_tells_is_not_guessed_at() {
        let one = text(Some(&[terms(None, SchemaAnnouncement::Absent)]));
        for strange in ["2", "1\nwords/count", &one.replace("replace-waiting", "stack"), &format!("{one} more"), "1\n%"]
        {
            assert_eq!(read(strange), None, "{strange:?}");
        }
    }
}
