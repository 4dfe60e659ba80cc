//! The manifest of a plugin, with the operator's settings applied.

use std::collections::{BTreeMap, BTreeSet};

use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::topic::Pattern;

use crate::spec::grants::PluginSettings;
use crate::spec::payload;
use crate::spec::problem::Problem;
use crate::spec::raw::{RawLimit, RawReceive, Subscription};
use crate::spec::sources::{ManifestSources, Merged, Origin, TaskKind};
use crate::spec::suggestion::{self, Suggestion};
use crate::spec::task::{self, Task, TaskContext};
use crate::spec::toml_diagnostics;

/// The name of the task whose jobs a durable broadcast makes for its subscribers: "plugin/receive".
pub const RECEIVE: &str = "receive";

/// A plugin's manifest with the operator's settings applied.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// A name for users; the plugin's id is the name of its file.
    pub name: String,
    /// The version that the plugin gives itself.
    pub version: String,
    /// Its tasks, by the name within the plugin, such as "count".
    pub tasks: BTreeMap<String, Task>,
    /// Patterns of the topics to which it subscribes.
    pub topics: Vec<Pattern>,
    /// The settings of its subscriber; present exactly if there are topics.
    pub receive: Option<Receive>,
    /// Number of exports that are no tasks because a plugin has no more than [`bounds::TASKS_MAX`].
    pub too_many: usize,
    /// Schedules that it suggests, by name: each does nothing until an operator accepts it.
    pub schedules: BTreeMap<String, Suggestion>,
}

/// A plugin's subscriber.
#[derive(Clone, Debug)]
pub struct Receive {
    /// A task named "plugin/receive", without schema and key. Its limits, retry policy and conflicts apply to durable
    /// broadcasts.
    pub task: Task,
    /// True if the subscriber may be called by a broadcast of its own.
    pub reentrant: bool,
}

impl Manifest {
    /// Reads the manifest that `describe` returned, and applies the operator's settings.
    ///
    /// # Errors
    /// The problems of the manifest and of the settings, up to a limit that its author can still read.
    pub fn read(plugin: &PluginId, text: &str, settings: &PluginSettings) -> Result<Manifest, Vec<Problem>> {
        Manifest::of(plugin, &ManifestSources::described(text), settings)
    }

    /// Merges all parts of a manifest, and applies the operator's settings.
    ///
    /// # Errors
    /// The problems of the parts and of the settings, up to a limit that their author can still read.
    pub(crate) fn of(
        plugin: &PluginId,
        sources: &ManifestSources,
        settings: &PluginSettings,
    ) -> Result<Manifest, Vec<Problem>> {
        Manifest::merged(plugin, sources, settings).map_err(toml_diagnostics::truncate_problems)
    }

    fn merged(
        plugin: &PluginId,
        sources: &ManifestSources,
        settings: &PluginSettings,
    ) -> Result<Manifest, Vec<Problem>> {
        let Merged { raw, kinds, mut origins, too_many } = sources.merge(plugin, &settings.tasks)?;
        let mut problems: Vec<Problem> = Vec::new();
        let name = required("name", raw.name, &mut problems);
        let version = required("version", raw.version, &mut problems);
        let declares_topics = !raw.topics.is_empty();
        let topics = settings.topics.clone().unwrap_or(raw.topics);
        let subscribes = declares_topics || !topics.is_empty();
        if raw.tasks.is_empty() && !subscribes {
            problems.push(Problem::new("manifest: no task and no topic is declared").hint(
                "declare a task, [tasks.NAME], to handle jobs, or topics = [\"...\"] to receive broadcasts, or both",
            ));
        }
        for (what, count, max) in
            [("tasks", raw.tasks.len(), bounds::TASKS_MAX), ("topics", topics.len(), bounds::TOPICS_MAX)]
        {
            if count > max {
                problems.push(Problem::new(format!("manifest: {count} {what} are declared; the limit is {max}")));
            }
        }
        let schemas = raw.tasks.iter().filter_map(|(name, task)| {
            let over = settings.tasks.get(name).and_then(|over| over.payload_schema.as_ref());
            over.or(task.payload_schema.as_ref())
        });
        // Counted before any is compiled, since compiling takes the memory.
        let patterns: usize = schemas.map(|schema| payload::patterns_in(schema)).sum();
        if patterns > bounds::PATTERNS_MAX {
            problems.push(
                Problem::new(format!(
                    "manifest: the payload schemas have {patterns} regular expressions in all; the limit is {}",
                    bounds::PATTERNS_MAX
                ))
                .hint("check some of it in the handler, or use `$ref` to refer to one pattern from many places"),
            );
            return Err(problems);
        }
        for unknown in settings.tasks.keys().filter(|task| !raw.tasks.contains_key(*task)) {
            let near = toml_diagnostics::nearest(unknown, raw.tasks.keys().map(String::as_str));
            let hint = near.map_or_else(|| "remove it".to_owned(), |near| format!("did you mean `{near}`?"));
            problems
                .push(Problem::new(format!("settings: unknown task [plugins.{plugin}.tasks.{unknown}]")).hint(hint));
        }
        if subscribes && raw.tasks.contains_key(RECEIVE) {
            problems.push(
                Problem::new("manifest: a plugin with topics cannot have a task named `receive`: durable broadcasts use that name for their jobs")
                    .hint("give the task another name"),
            );
        }
        for (name, task) in &settings.tasks {
            let its = origins.entry(name.clone()).or_default();
            its.extend(task.keys().into_iter().map(|key| (key, Origin::Settings)));
        }
        let own: BTreeSet<String> = raw
            .tasks
            .keys()
            .map(String::as_str)
            .chain(subscribes.then_some(RECEIVE))
            .map(|task| format!("{plugin}/{task}"))
            .collect();
        let own = OwnTasks { plugin, tasks: &own };
        let mut tasks = BTreeMap::new();
        for (task, mut raw) in raw.tasks {
            let table = format!("tasks.{task}");
            own.group(&table, raw.limit.as_mut(), &mut problems);
            let raw = settings.tasks.get(&task).map_or_else(|| raw.clone(), |over| raw.clone().under(over));
            let at = TaskContext { plugin, task: &task, table: &table, timeout_default: bounds::TIMEOUT_DEFAULT };
            let kind = kinds.get(&task).cloned().unwrap_or(TaskKind::Contract);
            if let Some(mut built) = task::build(&at, raw, kind, &mut problems) {
                built.origins = origins.remove(&task).unwrap_or_default();
                tasks.insert(task, built);
            }
        }
        suggestion::check(plugin, raw.schedules.iter(), |task| tasks.contains_key(task), &mut problems);
        if !subscribes {
            let places = [("manifest: [receive]".to_owned(), raw.receive.is_some())]
                .into_iter()
                .chain([(format!("settings: [plugins.{plugin}.receive]"), settings.receive.is_some())]);
            problems.extend(places.filter(|(_, is_given)| *is_given).map(|(place, _)| {
                Problem::new(format!("{place} is for plugins with topics, but this one has none"))
                    .hint("set topics = [\"...\"] at the top of the manifest, or remove it")
            }));
        }
        let over = settings.receive.as_ref();
        let receive = subscribes.then(|| own.receive(raw.receive.unwrap_or_default(), over, &mut problems)).flatten();
        if !problems.is_empty() {
            return Err(problems);
        }
        let topics: Vec<Pattern> = topics.into_iter().map(|Subscription(pattern)| pattern).collect();
        // With no topics left by the operator, there is no subscriber.
        let receive = receive.filter(|_| !topics.is_empty());
        Ok(Manifest { name, version, tasks, topics, receive, too_many, schedules: raw.schedules })
    }
}

/// The tasks of one plugin.
struct OwnTasks<'a> {
    plugin: &'a PluginId,
    /// Full names of the tasks.
    tasks: &'a BTreeSet<String>,
}

impl OwnTasks<'_> {
    /// Makes a manifest's group the plugin's own: with the limits of a shared group it could hold up another plugin's
    /// jobs. A group in the operator's settings is not checked: the operator may join tasks of several plugins.
    fn group(&self, table: &str, limit: Option<&mut RawLimit>, problems: &mut Vec<Problem>) {
        let Some(group) = limit.and_then(|limit| limit.group.as_mut()) else { return };
        if !group.contains('/') {
            *group = format!("{}/{group}", self.plugin);
        } else if !self.tasks.contains(group) {
            problems.push(
                Problem::new(format!("{table}.limit.group: `{group}` is not a task of this plugin, so its limits cannot be set here"))
                    .hint("name a task of this plugin, or a group without `/`; an operator can join it to another plugin's task in wharf.toml"),
            );
        }
    }

    fn receive(&self, mut raw: RawReceive, over: Option<&RawReceive>, problems: &mut Vec<Problem>) -> Option<Receive> {
        self.group(RECEIVE, raw.limit.as_mut(), problems);
        let raw = over.map_or_else(|| raw.clone(), |over| raw.clone().under(over));
        let reentrant = raw.reentrant.unwrap_or(false);
        let timeout_default = bounds::RECEIVE_TIMEOUT_DEFAULT;
        let at = TaskContext { plugin: self.plugin, task: RECEIVE, table: RECEIVE, timeout_default };
        task::build(&at, raw.into_task(), TaskKind::Contract, problems).map(|task| Receive { task, reentrant })
    }
}

fn required(key: &str, value: Option<String>, problems: &mut Vec<Problem>) -> String {
    match value {
        Some(value) if value.trim().is_empty() => problems.push(Problem::new(format!("manifest: `{key}` is empty"))),
        Some(value) if value.len() > bounds::NAME_BYTES_MAX || value.chars().any(char::is_control) => {
            problems.push(Problem::new(format!(
                "manifest: `{key}` is longer than {} bytes or has control characters",
                bounds::NAME_BYTES_MAX
            )))
        }
        Some(value) => return value,
        None => problems.push(
            Problem::new(format!("manifest: `{key}` is missing")).hint(format!("add {key} = \"...\" at its top")),
        ),
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(limit: &str, overlay: &str) -> Result<Manifest, String> {
        let text = format!("name = \"B\"\nversion = \"1\"\n[tasks.first]\nlimit = {{ {limit} }}\n[tasks.second]\n");
        let settings: crate::spec::grants::PluginSettings = toml_diagnostics::read(overlay).unwrap();
        let message = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<String>();
        Manifest::read(&"b".parse().unwrap(), &text, &settings).map_err(message)
    }

    #[test]
    fn a_manifest_sets_no_limits_of_another_plugin_s_tasks() {
        let message = read(r#"group = "words/count", total = 0"#, "").unwrap_err();
        assert!(
            message.contains("tasks.first.limit.group: `words/count` is not a task of this plugin")
                && message.contains("wharf.toml"),
            "{message}"
        );
        assert!(read(r#"group = "b/third""#, "").is_err());
        let group = |read: Result<Manifest, String>| read.unwrap().tasks["first"].group.to_string();
        assert_eq!(group(read(r#"group = "b/second""#, "")), "b/second");
        assert_eq!(group(read(r#"group = "hands""#, "")), "b/hands");
        assert_eq!(group(read("total = 1", "[tasks.first]\nlimit = { group = \"hands\" }")), "hands");
        assert_eq!(group(read("total = 1", "[tasks.first]\nlimit = { group = \"words/count\" }")), "words/count");
    }

    fn subscriber(manifest: &str, overlay: &str) -> Result<Manifest, String> {
        let text = format!("name = \"B\"\nversion = \"1\"\n{manifest}\n");
        let message = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let settings: PluginSettings = toml_diagnostics::read(overlay).map_err(message)?;
        Manifest::read(&"b".parse().unwrap(), &text, &settings).map_err(message)
    }

    #[test]
    fn regular_expressions_are_bounded_over_all_schemas() {
        let task = |name: usize, patterns: usize| {
            let each = |n: usize| {
                format!(r#""p{n}": {{"pattern": "a{n}"}}, "q{n}": {{"patternProperties": {{"b{n}": true}}}}"#)
            };
            let properties: Vec<String> = (0..patterns / 2).map(each).collect();
            format!("[tasks.t{name}]\npayload-schema = '{{\"properties\": {{{}}}}}'\n", properties.join(", "))
        };
        let half = bounds::PATTERNS_MAX / 2;
        assert!(subscriber(&(task(1, half) + &task(2, half)), "").is_ok());
        let message = subscriber(&(task(1, half) + &task(2, half) + &task(3, 2)), "").unwrap_err();
        assert!(
            message.starts_with("manifest: the payload schemas have 66 regular expressions in all; the limit is 64"),
            "{message}"
        );
    }

    #[test]
    fn a_subscriber_is_like_a_task_and_the_operator_s_word_wins() {
        let plain = subscriber("topics = ['document.*', 'a.>']", "").unwrap();
        assert_eq!(plain.topics.iter().map(Pattern::as_str).collect::<Vec<_>>(), ["document.*", "a.>"]);
        let receive = plain.receive.unwrap();
        assert_eq!((receive.task.name.as_str(), receive.task.group.as_str()), ("b/receive", "b/receive"));
        assert_eq!(
            (receive.task.timeout, receive.task.cpu),
            (bounds::RECEIVE_TIMEOUT_DEFAULT, bounds::RECEIVE_TIMEOUT_DEFAULT)
        );
        assert!(!receive.reentrant && receive.task.schema.is_none() && receive.task.key.is_none());

        let manifest = "topics = ['x']\n[receive]\ntimeout = '1s'\nmemory = '1MiB'\nreentrant = true\nlimit = { total = 3, group = 'g' }\nretry = { attempts = 2 }";
        let both = subscriber(manifest, "topics = ['y']\n[receive]\ntimeout = '2s'\nlimit = { total = 7 }").unwrap();
        let receive = both.receive.unwrap();
        assert_eq!((both.topics[0].as_str(), receive.task.timeout.as_secs(), receive.reentrant), ("y", 2, true));
        assert_eq!((receive.task.limits.total, receive.task.group.as_str()), (Some(7), "b/g"));
        assert_eq!((receive.task.retry.attempts, receive.task.memory_bytes), (2, 1 << 20));
        let muted = subscriber(manifest, "topics = []").unwrap();
        assert!(muted.topics.is_empty() && muted.receive.is_none());
        assert!(subscriber("[tasks.t]", "topics = ['y']").unwrap().receive.is_some());
    }

    #[test]
    fn what_is_wrong_with_a_subscriber_is_told_with_its_place() {
        let message = |manifest, overlay| subscriber(manifest, overlay).unwrap_err();
        assert_eq!(message("", "").lines().next().unwrap(), "manifest: no task and no topic is declared");
        let text = message("topics = ['a..b', 'ok', '>.c', 3]", "");
        for expected in [
            "manifest, line 3, column 11: invalid subscription `a..b`",
            "line 3, column 25: invalid subscription `>.c`: `>` matches",
            "line 3, column 32: invalid type",
        ] {
            assert!(text.contains(expected), "`{expected}` is not in\n{text}");
        }
        let text = message(
            "topics = ['a']\n[tasks.receive]\n[receive]\nretry = { attempts = 0 }\nlimit = { group = 'x/y' }\ntimeout = '48h'",
            "",
        );
        for expected in [
            "cannot have a task named `receive`",
            "receive.retry.attempts: 0 is out of range; expected 1 to",
            "receive.limit.group: `x/y` is not a task of this plugin",
            "receive.timeout: out of range; expected 1ms to 24 h",
        ] {
            assert!(text.contains(expected), "`{expected}` is not in\n{text}");
        }
        assert!(message("topics = ['a']\n[receive]\nkey = '/x'", "").contains("unknown key `key`"));
        let text = message("[tasks.t]\n[receive]", "[receive]");
        assert!(
            text.contains("manifest: [receive] is for") && text.contains("settings: [plugins.b.receive] is for"),
            "{text}"
        );
        let many = format!("topics = [{}]", "'a', ".repeat(bounds::TOPICS_MAX + 1));
        assert_eq!(message(&many, ""), "manifest: 65 topics are declared; the limit is 64");
        assert!(subscriber("topics = ['a']", "topics = ['a b']").unwrap_err().contains("invalid subscription"));
    }

    #[test]
    fn a_suggested_schedule_is_kept_and_its_mistakes_are_told() {
        let id: PluginId = "report".parse().unwrap();
        let read = |text: &str| {
            let text = format!("name = 'report'\nversion = '1'\n[tasks.build]\n[schedules.nightly]\n{text}");
            Manifest::read(&id, &text, &PluginSettings::default())
        };
        let manifest =
            read("task = 'build'\ncron = '0 3 * * *'\npayload = { days = 1, at = 2026-01-31 }\ntick-as = '/tick'")
                .unwrap();
        let nightly = &manifest.schedules["nightly"];
        assert_eq!(
            (nightly.payload.0.as_str(), nightly.cron.as_deref()),
            (r#"{"at":"2026-01-31","days":1}"#, Some("0 3 * * *"))
        );
        for (text, expected) in [
            ("task = 'other'\nevery = '1h'", "manifest: schedules.nightly: unknown task `other`"),
            ("task = 'build'", "expected either `cron` or `every`"),
            ("task = 'build'\nevery = '1h'\ncron = '0 3 * * *'", "expected either `cron` or `every`"),
            ("task = 'build'\nevery = '1h'\npayload = nan", "expected a finite number, got nan"),
            ("task = 'build'\nevry = '1h'", "unknown key `evry`"),
            (
                "task = 'build'\nevery = '1h'\nmissed = 'non'",
                "manifest: schedules.nightly: missed: invalid policy for missed ticks `non`: expected one of latest, none, all",
            ),
            (
                "task = 'build'\nevery = '1h'\noverlap = 'queue_one'",
                "manifest: schedules.nightly: overlap: invalid policy for overlaps `queue_one`: expected one of allow, skip, queue-one, replace",
            ),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems.iter().any(|problem| problem.to_string().contains(expected)), "{text}: {problems:?}");
        }
    }
}
