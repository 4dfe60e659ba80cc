//! What a plugin says of itself, completed by what the operator says of it.

use std::collections::{BTreeMap, BTreeSet};

use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::topic::Pattern;

use crate::spec::grants::PluginSettings;
use crate::spec::payload;
use crate::spec::problem::Problem;
use crate::spec::raw::{RawLimit, RawManifest, RawReceive, Subscription};
use crate::spec::task::{self, Place, Task};
use crate::spec::toml_diagnostics;

/// The name of the task that a durable broadcast asks of its subscribers: "plugin/receive".
pub const RECEIVE: &str = "receive";

/// A plugin's manifest with the operator's settings on top: what holds.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Shown to people; the plugin's id is its file's.
    pub name: String,
    pub version: String,
    /// By the name within the plugin: "count".
    pub tasks: BTreeMap<String, Task>,
    /// What it subscribes to.
    pub topics: Vec<Pattern>,
    /// There is one exactly if there are topics.
    pub receive: Option<Receive>,
}

/// How a plugin's subscriber is called.
#[derive(Clone, Debug)]
pub struct Receive {
    /// Named "plugin/receive", without schema and key. Its limits, retry policy and conflicts are those of the durable form.
    pub task: Task,
    /// Whether it may be called by what it broadcasts itself.
    pub reentrant: bool,
}

impl Manifest {
    /// Reads what `describe` returned, with the operator's settings on top.
    ///
    /// # Errors
    /// The problems of the manifest and of the settings: as many as help its author.
    pub fn read(plugin: &PluginId, text: &str, settings: &PluginSettings) -> Result<Manifest, Vec<Problem>> {
        Manifest::completed(plugin, text, settings).map_err(toml_diagnostics::few)
    }

    fn completed(plugin: &PluginId, text: &str, settings: &PluginSettings) -> Result<Manifest, Vec<Problem>> {
        if text.len() as u64 > bounds::MANIFEST_BYTES_MAX {
            let size = bytesize::ByteSize(text.len() as u64).display().iec();
            let max = bytesize::ByteSize(bounds::MANIFEST_BYTES_MAX).display().iec();
            return Err(vec![Problem::new(format!("manifest: it is {size} long; {max} is the most"))]);
        }
        let within = |problem: Problem| problem.within("manifest");
        let given: RawManifest =
            toml_diagnostics::read(text).map_err(|found| found.into_iter().map(within).collect::<Vec<_>>())?;

        let mut problems: Vec<Problem> = Vec::new();
        let name = required("name", given.name, &mut problems);
        let version = required("version", given.version, &mut problems);
        let declares_topics = !given.topics.is_empty();
        let topics = settings.topics.clone().unwrap_or(given.topics);
        let subscribes = declares_topics || !topics.is_empty();
        if given.tasks.is_empty() && !subscribes {
            problems.push(
                Problem::new("manifest: neither a task nor a topic is declared")
                    .hint("a plugin handles jobs, [tasks.NAME], or answers broadcasts, topics = [\"...\"], or both"),
            );
        }
        for (what, count, max) in
            [("tasks", given.tasks.len(), bounds::TASKS_MAX), ("topics", topics.len(), bounds::TOPICS_MAX)]
        {
            if count > max {
                problems.push(Problem::new(format!("manifest: {count} {what} are declared; {max} is the most")));
            }
        }
        let schemas = given.tasks.iter().filter_map(|(name, task)| {
            let over = settings.tasks.get(name).and_then(|over| over.payload_schema.as_ref());
            over.or(task.payload_schema.as_ref())
        });
        // Counted before any is made ready: what they take is taken then.
        let patterns: usize = schemas.map(|schema| payload::patterns_in(schema)).sum();
        if patterns > bounds::PATTERNS_MAX {
            problems.push(
                Problem::new(format!(
                    "manifest: its payload schemas have {patterns} regular expressions in all; {} is the most",
                    bounds::PATTERNS_MAX
                ))
                .hint(
                    "check in the handler what a schema need not, or let `$ref` lead to one pattern from many places",
                ),
            );
            return Err(problems);
        }
        for stranger in settings.tasks.keys().filter(|task| !given.tasks.contains_key(*task)) {
            let near = toml_diagnostics::nearest(stranger, given.tasks.keys().map(String::as_str));
            let hint = near.map_or_else(|| "remove it".to_owned(), |near| format!("did you mean `{near}`?"));
            problems.push(
                Problem::new(format!(
                    "settings: [plugins.{plugin}.tasks.{stranger}] is about a task that the plugin does not have"
                ))
                .hint(hint),
            );
        }
        if subscribes && given.tasks.contains_key(RECEIVE) {
            problems.push(
                Problem::new("manifest: a task is called `receive`, which in a plugin with topics is the job that a durable broadcast makes")
                    .hint("give the task another name"),
            );
        }
        let own: BTreeSet<String> = given
            .tasks
            .keys()
            .map(String::as_str)
            .chain(subscribes.then_some(RECEIVE))
            .map(|task| format!("{plugin}/{task}"))
            .collect();
        let own = Own { plugin, tasks: &own };
        let mut tasks = BTreeMap::new();
        for (task, mut given) in given.tasks {
            let table = format!("tasks.{task}");
            own.group(&table, given.limit.as_mut(), &mut problems);
            let given = settings.tasks.get(&task).map_or_else(|| given.clone(), |over| given.clone().under(over));
            let at = Place { plugin, task: &task, table: &table, timeout_default: bounds::TIMEOUT_DEFAULT };
            if let Some(ready) = task::ready(&at, given, &mut problems) {
                tasks.insert(task, ready);
            }
        }
        if !subscribes {
            let places = [("manifest: [receive]".to_owned(), given.receive.is_some())]
                .into_iter()
                .chain([(format!("settings: [plugins.{plugin}.receive]"), settings.receive.is_some())]);
            problems.extend(places.filter(|(_, is_given)| *is_given).map(|(place, _)| {
                Problem::new(format!("{place} says how a subscriber is called, but the plugin has no topics"))
                    .hint("say to what it subscribes, topics = [\"...\"] at the manifest's top, or remove it")
            }));
        }
        let over = settings.receive.as_ref();
        let receive = subscribes.then(|| own.receive(given.receive.unwrap_or_default(), over, &mut problems)).flatten();
        if !problems.is_empty() {
            return Err(problems);
        }
        let topics: Vec<Pattern> = topics.into_iter().map(|Subscription(pattern)| pattern).collect();
        // Muted by the operator, it has no subscriber.
        let receive = receive.filter(|_| !topics.is_empty());
        Ok(Manifest { name, version, tasks, topics, receive })
    }
}

/// The tasks of one plugin.
struct Own<'a> {
    plugin: &'a PluginId,
    /// With their full names.
    tasks: &'a BTreeSet<String>,
}

impl Own<'_> {
    /// A manifest's groups are its plugin's own: with limits of a shared one it could hold up another plugin's jobs.
    /// What the operator says of a group is not asked about: tasks of several plugins are theirs to bind together.
    fn group(&self, table: &str, limit: Option<&mut RawLimit>, problems: &mut Vec<Problem>) {
        let Some(group) = limit.and_then(|limit| limit.group.as_mut()) else { return };
        if !group.contains('/') {
            *group = format!("{}/{group}", self.plugin);
        } else if !self.tasks.contains(group) {
            problems.push(
                Problem::new(format!("{table}.limit.group: `{group}` is not a task of this plugin: its limits are not this manifest's to set"))
                    .hint("name a task of its own, or a group without `/`; the operator may join it to another plugin's task in wharf.toml"),
            );
        }
    }

    fn receive(
        &self,
        mut given: RawReceive,
        over: Option<&RawReceive>,
        problems: &mut Vec<Problem>,
    ) -> Option<Receive> {
        self.group(RECEIVE, given.limit.as_mut(), problems);
        let given = over.map_or_else(|| given.clone(), |over| given.clone().under(over));
        let reentrant = given.reentrant.unwrap_or(false);
        let timeout_default = bounds::RECEIVE_TIMEOUT_DEFAULT;
        let at = Place { plugin: self.plugin, task: RECEIVE, table: RECEIVE, timeout_default };
        task::ready(&at, given.as_task(), problems).map(|task| Receive { task, reentrant })
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
        let told = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<String>();
        Manifest::read(&"b".parse().unwrap(), &text, &settings).map_err(told)
    }

    #[test]
    fn a_manifest_sets_no_limits_of_another_plugin_s_tasks() {
        let told = read(r#"group = "words/count", total = 0"#, "").unwrap_err();
        assert!(
            told.contains("tasks.first.limit.group: `words/count` is not a task of this plugin")
                && told.contains("wharf.toml"),
            "{told}"
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
        let told = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let settings: PluginSettings = toml_diagnostics::read(overlay).map_err(told)?;
        Manifest::read(&"b".parse().unwrap(), &text, &settings).map_err(told)
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
        let told = subscriber(&(task(1, half) + &task(2, half) + &task(3, 2)), "").unwrap_err();
        assert!(
            told.starts_with("manifest: its payload schemas have 66 regular expressions in all; 64 is the most"),
            "{told}"
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
        let told = |manifest, overlay| subscriber(manifest, overlay).unwrap_err();
        assert_eq!(told("", "").lines().next().unwrap(), "manifest: neither a task nor a topic is declared");
        let text = told("topics = ['a..b', 'ok', '>.c', 3]", "");
        for says in [
            "manifest, line 3, column 11: invalid subscription `a..b`",
            "line 3, column 25: invalid subscription `>.c`: `>` matches",
            "line 3, column 32: invalid type",
        ] {
            assert!(text.contains(says), "`{says}` is not in\n{text}");
        }
        let text = told(
            "topics = ['a']\n[tasks.receive]\n[receive]\nretry = { attempts = 0 }\nlimit = { group = 'x/y' }\ntimeout = '48h'",
            "",
        );
        for says in [
            "a task is called `receive`",
            "receive.retry.attempts: 0 is not between",
            "receive.limit.group: `x/y` is not a task of this plugin",
            "receive.timeout: it is not between",
        ] {
            assert!(text.contains(says), "`{says}` is not in\n{text}");
        }
        assert!(told("topics = ['a']\n[receive]\nkey = '/x'", "").contains("unknown key `key`"));
        let text = told("[tasks.t]\n[receive]", "[receive]");
        assert!(
            text.contains("manifest: [receive] says how") && text.contains("settings: [plugins.b.receive] says how"),
            "{text}"
        );
        let many = format!("topics = [{}]", "'a', ".repeat(bounds::TOPICS_MAX + 1));
        assert_eq!(told(&many, ""), "manifest: 65 topics are declared; 64 is the most");
        assert!(subscriber("topics = ['a']", "topics = ['a b']").unwrap_err().contains("invalid subscription"));
    }
}
