//! Names of plugins, tasks, limit groups and schedules.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::ParseIdError;
use crate::bounds;

fn is_name(text: &str) -> bool {
    let mut chars = text.bytes();
    chars.next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        && text.len() <= bounds::NAME_BYTES_MAX
}

/// A task's name within its plugin: one name, or names with dots between them, as "interface.function".
fn is_task(text: &str) -> bool {
    text.len() <= bounds::NAME_BYTES_MAX && text.split('.').all(is_name)
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Returns the name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// A plugin's ID: the name of its file without ".wasm".
    PluginId
}

impl FromStr for PluginId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if is_name(text) {
            return Ok(PluginId(text.into()));
        }
        let reason =
            format!("expected a-z, 0-9 and `-`, not starting with `-`, at most {} characters", bounds::NAME_BYTES_MAX);
        Err(ParseIdError::new("name", text, reason))
    }
}

name! {
    /// A schedule's ID, which its operator chose.
    ScheduleId
}

impl FromStr for ScheduleId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if is_name(text) {
            return Ok(ScheduleId(text.into()));
        }
        let reason =
            format!("expected a-z, 0-9 and `-`, not starting with `-`, at most {} characters", bounds::NAME_BYTES_MAX);
        Err(ParseIdError::new("schedule ID", text, reason))
    }
}

name! {
    /// A task's full name: "plugin/task".
    TaskName
}

impl TaskName {
    /// Joins a plugin's ID and the task's name within the plugin.
    ///
    /// # Errors
    /// If `task` is not a valid name.
    pub fn new(plugin: &PluginId, task: &str) -> Result<TaskName, ParseIdError> {
        format!("{plugin}/{task}").parse()
    }

    /// Returns the ID of the task's plugin.
    pub fn plugin(&self) -> PluginId {
        PluginId(self.0.split_once('/').expect("parsed").0.into())
    }

    /// Returns the task's name within its plugin, such as "count".
    pub fn task(&self) -> &str {
        self.0.split_once('/').expect("parsed").1
    }
}

impl FromStr for TaskName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.split_once('/') {
            Some((plugin, task)) if is_name(plugin) && is_task(task) => Ok(TaskName(text.into())),
            _ => Err(ParseIdError::new(
                "task",
                text,
                "expected \"plugin/task\", each part from a-z, 0-9 and `-`, the task also with dots",
            )),
        }
    }
}

name! {
    /// A group of tasks that share limits. By default each task is in a group of its own, named "plugin/task".
    Group
}

impl From<&TaskName> for Group {
    fn from(task: &TaskName) -> Group {
        Group(task.0.clone())
    }
}

impl FromStr for Group {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if is_name(text) || text.parse::<TaskName>().is_ok() {
            return Ok(Group(text.into()));
        }
        Err(ParseIdError::new("limit group", text, "expected a name or \"plugin/task\", from a-z, 0-9 and `-`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_once() {
        for good in ["a/b", "thumb-nail/make-2", "0/0"] {
            assert_eq!(good.parse::<TaskName>().unwrap().as_str(), good);
        }
        for bad in ["", "a", "a/", "/b", "a/b/c", "A/b", "-a/b", "a/b c"] {
            assert!(bad.parse::<TaskName>().is_err(), "{bad}");
        }
        assert!("x".repeat(65).parse::<PluginId>().is_err() && "x".repeat(64).parse::<PluginId>().is_ok());
        let task: TaskName = "words/count".parse().unwrap();
        assert_eq!((task.plugin().as_str(), task.task()), ("words", "count"));
        assert_eq!(Group::from(&task).as_str().parse(), Ok(Group::from(&task)));
        assert!("count".parse::<Group>().is_ok() && "a b".parse::<Group>().is_err());
    }

    #[test]
    fn a_task_belongs_to_a_plugin_whose_name_follows_the_same_rule() {
        let plugin: PluginId = "thumb-nail".parse().unwrap();
        let task = TaskName::new(&plugin, "make-2").unwrap();
        assert_eq!((task.as_str(), task.plugin(), task.task()), ("thumb-nail/make-2", plugin.clone(), "make-2"));
        for bad in ["", "a_b", "A", "-a", "a..b", ".a", "a.", "a.-b", "é", "a/b"] {
            assert!(TaskName::new(&plugin, bad).is_err() && bad.parse::<PluginId>().is_err(), "{bad}");
        }
        // A task's name may have an interface before it.
        assert_eq!(TaskName::new(&plugin, "rows.reverse").unwrap().task(), "rows.reverse");
        assert!("rows.reverse".parse::<PluginId>().is_err() && "a.b/c".parse::<TaskName>().is_err());
        assert!(TaskName::new(&plugin, &format!("a.{}", "b".repeat(bounds::NAME_BYTES_MAX - 1))).is_err());
        assert!("a/é".parse::<Group>().is_err() && "a/b/c".parse::<Group>().is_err());
    }
}
