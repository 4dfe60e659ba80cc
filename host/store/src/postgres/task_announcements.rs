//! The text form of task announcements: for each task of a plugin a line with its fields, separated by spaces. Also the text
//! form of plugins that are being loaded.
//!
//! The text is ASCII whatever a manifest contains, so every database accepts it. A text that can't be parsed, such as one from a
//! newer host, counts as not announced.

use std::fmt::Write;

use wharf_core::limits::{Limits, OnConflict};
use wharf_core::node::{LoadingPlugin, SchemaAnnouncement, TaskAnnouncement};
use wharf_core::topic::Pattern;

/// The first line. Texts of another format are not read.
const FORMAT: &str = "1";
/// In place of a field without a value.
const NONE: &str = "-";
/// In place of a schema that is not announced.
const NOT_ANNOUNCED: &str = "?";
/// In place of patterns, for a plugin without any. A pattern may be `-`, but never this.
const NO_TOPICS: &str = "!";

/// Returns the text for a plugin's tasks; empty if they are not announced.
pub(super) fn write(tasks: Option<&[TaskAnnouncement]>) -> String {
    let Some(tasks) = tasks else { return String::new() };
    tasks.iter().fold(FORMAT.to_owned(), |text, task| text + "\n" + &line(task))
}

/// Parses the text for a plugin's tasks; `None` if they are not announced, or in another format.
pub(super) fn read(text: &str) -> Option<Vec<TaskAnnouncement>> {
    let (format, lines) = text.split_once('\n').unwrap_or((text, ""));
    if format != FORMAT {
        return None;
    }
    lines.lines().map(task).collect()
}

/// Returns the text for a plugin that is being loaded, with its patterns if they are known.
pub(super) fn write_loading(loading: &LoadingPlugin) -> String {
    let patterns = match loading.topics.as_deref() {
        None => Vec::new(),
        Some([]) => vec![NO_TOPICS],
        Some(topics) => topics.iter().map(Pattern::as_str).collect(),
    };
    [loading.plugin.as_str()].into_iter().chain(patterns).collect::<Vec<_>>().join(" ")
}

/// Parses the text for a plugin that is being loaded.
pub(super) fn read_loading(text: &str) -> Option<LoadingPlugin> {
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
        SchemaAnnouncement::NotAnnounced => NOT_ANNOUNCED.to_owned(),
    };
    let (per_key, total) = (number(task.limits.per_key), number(task.limits.total));
    let memory = task.memory_bytes;
    format!("{} {} {on_conflict} {per_key} {total} {memory} {key} {schema}", task.name, task.group)
}

fn task(line: &str) -> Option<TaskAnnouncement> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [name, group, on_conflict, per_key, total, memory, key, schema] = fields[..] else { return None };
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
        memory_bytes: memory.parse().ok()?,
        key: if key == NONE { None } else { Some(unescaped(key)?) },
        schema: match schema {
            NONE => SchemaAnnouncement::Absent,
            NOT_ANNOUNCED => SchemaAnnouncement::NotAnnounced,
            schema => SchemaAnnouncement::Text(unescaped(schema)?),
        },
    })
}

/// Escapes a text as one field. A text that equals `NONE` or `NOT_ANNOUNCED` is escaped whole.
pub(super) fn escaped(text: &str) -> String {
    let is_reserved = text == NONE || text == NOT_ANNOUNCED;
    text.bytes().fold(String::with_capacity(text.len()), |mut all, byte| {
        if byte.is_ascii_graphic() && byte != b'%' && !is_reserved {
            all.push(char::from(byte));
        } else {
            let _ = write!(all, "%{byte:02x}");
        }
        all
    })
}

/// Reads a text that was escaped; `None` if it was not.
pub(super) fn unescaped(text: &str) -> Option<String> {
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

    fn announcement(key: Option<&str>, schema: SchemaAnnouncement) -> TaskAnnouncement {
        TaskAnnouncement {
            memory_bytes: 128 << 20,
            name: "words/count".parse().unwrap(),
            group: "hands".parse().unwrap(),
            limits: Limits { per_key: Some(2), total: None },
            on_conflict: OnConflict::ReplaceWaiting,
            key: key.map(str::to_owned),
            schema,
        }
    }

    #[test]
    fn announcements_are_read_as_they_were_written() {
        let schema = |text: &str| SchemaAnnouncement::Text(text.to_owned());
        let tasks = [
            announcement(None, SchemaAnnouncement::Absent),
            announcement(Some("/tenant"), SchemaAnnouncement::NotAnnounced),
            announcement(
                Some("/a b\n\0\u{202e}%41ä"),
                schema("{\"type\": \"object\",\n\t\"title\": \"ü\u{1f600} %\"}"),
            ),
            announcement(Some("-"), schema("?")),
            announcement(Some(""), schema("")),
        ];
        for count in 0..=tasks.len() {
            let written = write(Some(&tasks[..count]));
            assert!(
                written.bytes().all(|byte| byte == b'\n' || byte == b' ' || byte.is_ascii_graphic()),
                "{written:?}"
            );
            assert_eq!(read(&written).as_deref(), Some(&tasks[..count]), "{written:?}");
        }
        assert_eq!((write(None).as_str(), read("")), ("", None));
    }

    #[test]
    fn loading_plugins_are_read_as_they_were_written() {
        let topics = |patterns: &[&str]| Some(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect());
        for topics in [None, topics(&[]), topics(&["-"]), topics(&["a.*", ">"])] {
            let loading = LoadingPlugin { plugin: "words".parse().unwrap(), topics };
            assert_eq!(read_loading(&write_loading(&loading)), Some(loading));
        }
        assert_eq!((read_loading(""), read_loading("words a..b")), (None, None));
    }

    #[test]
    fn texts_of_another_format_count_as_not_announced() {
        let one = write(Some(&[announcement(None, SchemaAnnouncement::Absent)]));
        for strange in ["2", "1\nwords/count", &one.replace("replace-waiting", "stack"), &format!("{one} more"), "1\n%"]
        {
            assert_eq!(read(strange), None, "{strange:?}");
        }
    }
}
