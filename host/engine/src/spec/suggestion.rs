//! Schedules that a plugin suggests. A suggestion does nothing until an operator accepts it.

use serde::{Deserialize, Deserializer, de};
use wharf_core::ids::{PluginId, ScheduleId};
use wharf_core::schedule::{MissedPolicy, OverlapPolicy};

use crate::spec::problem::Problem;

/// The most schedules that a manifest suggests.
const SUGGESTIONS_MAX: usize = 20;

/// A schedule as a manifest suggests it. Its times are checked when it is accepted, as those of any schedule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Suggestion {
    /// The task of its jobs, without the name of the plugin.
    pub task: String,
    /// A cron expression.
    pub cron: Option<String>,
    /// The time zone of the expression.
    pub zone: Option<String>,
    /// An interval, in place of an expression.
    pub every: Option<String>,
    /// The payload of its jobs.
    #[serde(default)]
    pub payload: JsonText,
    /// The key of its jobs.
    pub key: Option<String>,
    /// The policy for missed ticks.
    pub missed: Option<String>,
    /// The age up to which missed ticks are fired.
    pub window: Option<String>,
    /// The policy for jobs of earlier ticks.
    pub overlap: Option<String>,
    /// The length by a part of which all ticks come later.
    pub spread: Option<String>,
    /// The number of jobs in a row that fail until the schedule pauses.
    pub pause_after: Option<u32>,
    /// The place in the payload where each job finds its tick.
    pub tick_as: Option<String>,
}

/// A value of a manifest as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(pub String);

impl Default for JsonText {
    fn default() -> JsonText {
        JsonText("null".to_owned())
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<JsonText, D::Error> {
        let value = json(toml::Value::deserialize(from)?)
            .ok_or_else(|| de::Error::custom("invalid payload: expected a finite number, got nan or inf"))?;
        Ok(JsonText(value.to_string()))
    }
}

/// Returns a value as JSON: a moment becomes a string. Returns `None` for a number that JSON does not have.
fn json(value: toml::Value) -> Option<serde_json::Value> {
    Some(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)?.into(),
        toml::Value::Boolean(is_true) => is_true.into(),
        toml::Value::Datetime(moment) => moment.to_string().into(),
        toml::Value::Array(list) => serde_json::Value::Array(list.into_iter().map(json).collect::<Option<_>>()?),
        toml::Value::Table(table) => {
            let members = table.into_iter().map(|(name, value)| Some((name, json(value)?)));
            serde_json::Value::Object(members.collect::<Option<_>>()?)
        }
    })
}

/// Adds the problems of the suggestions of a manifest. `is_task` tells the tasks of the plugin.
pub(crate) fn check<'s>(
    plugin: &PluginId,
    suggestions: impl ExactSizeIterator<Item = (&'s String, &'s Suggestion)>,
    is_task: impl Fn(&str) -> bool,
    problems: &mut Vec<Problem>,
) {
    if suggestions.len() > SUGGESTIONS_MAX {
        let text = format!("manifest: {} schedules are suggested; the limit is {SUGGESTIONS_MAX}", suggestions.len());
        return problems.push(Problem::new(text));
    }
    for (name, suggestion) in suggestions {
        let mut problem = |what: String| problems.push(Problem::new(format!("manifest: schedules.{name}: {what}")));
        if let Err(error) = name.parse::<ScheduleId>() {
            problem(error.to_string());
        }
        if !is_task(&suggestion.task) {
            problem(format!(
                "unknown task `{}`; name a task of `{plugin}`, without the name of the plugin",
                suggestion.task
            ));
        }
        if suggestion.cron.is_some() == suggestion.every.is_some() {
            problem("expected either `cron` or `every`".to_owned());
        }
        let missed = suggestion.missed.as_deref().map(str::parse::<MissedPolicy>);
        if let Some(Err(error)) = missed {
            problem(format!("missed: {error}"));
        }
        let overlap = suggestion.overlap.as_deref().map(str::parse::<OverlapPolicy>);
        if let Some(Err(error)) = overlap {
            problem(format!("overlap: {error}"));
        }
    }
}
