//! Holds: which jobs operators keep waiting, until when, and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::hold::{self, HoldScope};

use super::moment::Moment;
use super::values::HoldKind;

/// A hold: its jobs are enqueued and wait. What runs goes on.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Hold {
    /// Kind of the scope: every job, or the jobs of the plugin, task, limit group or key that the member of this name has.
    pub(crate) kind: HoldKind,
    /// The plugin whose jobs are held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plugin: Option<String>,
    /// The task whose jobs are held, as PLUGIN/TASK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<String>,
    /// The limit group whose jobs are held; with `key`, only those of that key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// The key whose jobs are held, in all limit groups or in `group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// When the hold ends by itself; `null` if somebody has to release it.
    pub(crate) until: Option<Moment>,
    /// The operator's reason; may be empty.
    pub(crate) reason: String,
    /// Name of the operator's token; `null` if the host asks for none.
    pub(crate) by: Option<String>,
    /// When the hold was set.
    pub(crate) since: Moment,
    /// False if no host has the plugin, the task or the group; present in the response to the request that sets the hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) known: Option<bool>,
}

/// A page of a list of holds.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct HoldPage {
    /// The holds in force.
    pub(crate) holds: Vec<Hold>,
    /// Address of the next page, relative to the address of the request; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uri-reference"))]
    pub(crate) next: Option<String>,
}

/// A request to hold jobs: exactly one of `all`, `plugin`, `task`, `group`, `key` and `keys`, or `group` together with `key` or `keys`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoldRequest {
    /// True to hold every job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) all: Option<bool>,
    /// A plugin, to hold its jobs; live broadcasts skip it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plugin: Option<String>,
    /// A task, as PLUGIN/TASK, to hold its jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<String>,
    /// A limit group, to hold its jobs; with `key`, only those of that key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// A key, to hold its jobs in all limit groups, or in `group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// Keys, at most 1000, to hold the jobs of each, in all limit groups, or in `group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<Vec<String>>,
    /// Moment at which the hold ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Moment>,
    /// Length of time after which the hold ends by itself, such as "30m"; instead of `until`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub(crate) length: Option<String>,
    /// Reason, shown with every job that waits for the hold: one line of at most 500 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// The query of a request to release a hold: the members by which it was set.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseQuery {
    /// True to release the hold of every job.
    pub(crate) all: Option<bool>,
    /// The plugin of the hold.
    pub(crate) plugin: Option<String>,
    /// The task of the hold, as PLUGIN/TASK.
    pub(crate) task: Option<String>,
    /// The limit group of the hold.
    pub(crate) group: Option<String>,
    /// The key of the hold.
    pub(crate) key: Option<String>,
}

impl Hold {
    /// Returns what is held, in words.
    pub(crate) fn what(&self) -> String {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        match (self.kind, &self.group) {
            (HoldKind::All, _) => "all jobs".to_owned(),
            (HoldKind::Plugin, _) => format!("plugin `{}`", name(&self.plugin)),
            (HoldKind::Task, _) => format!("task `{}`", name(&self.task)),
            (HoldKind::Group, group) => format!("limit group `{}`", name(group)),
            (HoldKind::Key, None) => format!("key `{}`", name(&self.key)),
            (HoldKind::Key, Some(group)) => format!("key `{}` in limit group `{group}`", name(&self.key)),
        }
    }

    /// Returns the hold in one line.
    pub(crate) fn text(&self) -> String {
        let until = self.until.map(|until| format!(" until {:.0}", until.date())).unwrap_or_default();
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        let what = self.what();
        match self.by.as_deref().map(|by| (by, by.strip_prefix("plugin:"))) {
            None => format!("an operator holds {what}{until}{reason}"),
            Some((by, None)) => format!("an operator holds {what}{until}{reason} (set by `{by}`)"),
            Some((_, Some(plugin))) => format!("plugin `{plugin}` holds {what}{until}{reason}"),
        }
    }
}

impl From<&hold::Hold> for Hold {
    fn from(hold: &hold::Hold) -> Hold {
        let mut document = Hold {
            kind: HoldKind::All,
            plugin: None,
            task: None,
            group: None,
            key: None,
            until: hold.until.map(Moment),
            reason: hold.reason.as_str().to_owned(),
            by: hold.by.clone(),
            since: Moment(hold.since),
            known: None,
        };
        match &hold.scope {
            HoldScope::All => {}
            HoldScope::Plugin(plugin) => {
                (document.kind, document.plugin) = (HoldKind::Plugin, Some(plugin.to_string()));
            }
            HoldScope::Task(task) => (document.kind, document.task) = (HoldKind::Task, Some(task.to_string())),
            HoldScope::Group(group) => (document.kind, document.group) = (HoldKind::Group, Some(group.to_string())),
            HoldScope::Key { group, key } => {
                document.kind = HoldKind::Key;
                (document.group, document.key) = (group.as_ref().map(ToString::to_string), Some(key.to_string()));
            }
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_says_what_it_holds_until_when_why_and_by_whom() {
        let text = |scope: &str, reason: &str, by: Option<&str>| {
            let hold = hold::Hold {
                scope: scope.parse().unwrap(),
                until: by.map(|_| "2030-01-31T12:00:00Z".parse::<Moment>().unwrap().0),
                reason: reason.parse().unwrap(),
                by: by.map(str::to_owned),
                since: Default::default(),
            };
            Hold::from(&hold).text()
        };
        assert_eq!(text("all", "", None), "an operator holds all jobs");
        assert_eq!(
            text("group:words/count key:a", "stripe 429", Some("ann")),
            "an operator holds key `a` in limit group `words/count` until 2030-01-31T12:00:00Z: stripe 429 (set by `ann`)"
        );
        assert_eq!(text("plugin:words", "x", None), "an operator holds plugin `words`: x");
        assert_eq!(
            text("key:a", "429", Some("plugin:words")),
            "plugin `words` holds key `a` until 2030-01-31T12:00:00Z: 429"
        );
    }
}
