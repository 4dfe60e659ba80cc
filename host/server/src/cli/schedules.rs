//! `wharf schedule`: jobs that are enqueued at the moments of a clock.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::value::RawValue;
use wharf_core::bounds;

use super::client::{ApiRequest, Client, retry_while_loading};
use crate::cli_error::{CliError, ExitStatus};
use crate::config::HumanDuration;
use crate::http::api::{
    CLOCK_LAW, Moment, PauseRequest, PluginFile, Schedule, SchedulePage, ScheduleRequest, ScheduleRun, ScheduleState,
    from_name,
};
use crate::http::{encode, to_base64};
use crate::output::{Table, print_json, print_line};
use crate::payload_input;
use crate::stderr::note;

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// List schedules
    List,
    /// Show one schedule: its next moments, its last ticks, and what became of them
    Show {
        /// ID of the schedule
        id: String,
    },
    /// Define a schedule, or give one another definition
    Set(Box<Definition>),
    /// Define a schedule as a plugin suggests it
    Accept {
        /// The suggestion, as PLUGIN/NAME
        suggestion: String,
        /// ID of the schedule [default: the name of the suggestion]
        #[arg(long)]
        id: Option<String>,
    },
    /// Remove a schedule; its jobs stay
    Remove {
        /// ID of the schedule
        id: String,
    },
    /// Enqueue a job of a schedule now
    Run {
        /// ID of the schedule
        id: String,
    },
    /// Pause a schedule: its ticks do not come
    Pause {
        /// ID of the schedule
        id: String,
        /// Length of time after which the pause ends by itself, such as 2h
        #[arg(long = "for", value_name = "DURATION")]
        length: Option<String>,
        /// Moment at which the pause ends by itself, such as 2030-01-31T12:00:00Z
        #[arg(long, value_name = "MOMENT", conflicts_with = "length")]
        until: Option<Moment>,
        /// Reason, shown with the schedule
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End the pause of a schedule
    Resume {
        /// ID of the schedule
        id: String,
    },
}

/// The definition of a schedule.
#[derive(Debug, Args)]
pub(crate) struct Definition {
    /// ID of the schedule, such as nightly
    id: String,
    /// Task of its jobs, as PLUGIN/TASK
    task: String,
    /// Cron expression: minute, hour, day of month, month, day of week
    #[arg(long, value_name = "EXPRESSION", required_unless_present = "every")]
    cron: Option<String>,
    /// Time zone of the expression [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "cron")]
    zone: Option<String>,
    /// Interval, such as 15m, in place of a cron expression: it ticks at its multiples since 1970
    #[arg(long, value_name = "DURATION", conflicts_with = "cron")]
    every: Option<String>,
    /// Payload of its jobs: JSON, @FILE, or - for the standard input [default: null]
    #[arg(long, value_name = "JSON|@FILE|-")]
    input: Option<String>,
    /// Key of its jobs, if the task's manifest does not find it in the payload
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Priority of its jobs
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Ticks that no host fired in time: latest, none or all [default: latest]
    #[arg(long, value_name = "POLICY")]
    missed: Option<String>,
    /// Age up to which missed ticks are fired [default: 1h]
    #[arg(long, value_name = "DURATION")]
    window: Option<String>,
    /// Ticks while earlier jobs have not finished: allow, skip, queue-one or replace [default: allow]
    #[arg(long, value_name = "POLICY")]
    overlap: Option<String>,
    /// Length of time by a fixed part of which all ticks come later
    #[arg(long, value_name = "DURATION")]
    spread: Option<String>,
    /// Number of jobs in a row that fail until the schedule pauses
    #[arg(long, value_name = "N")]
    pause_after: Option<u32>,
    /// JSON pointer to the member of the payload that each job's tick is put into, such as /tick
    #[arg(long, value_name = "POINTER")]
    tick_as: Option<String>,
}

impl ScheduleCommand {
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        match self {
            ScheduleCommand::List => list(client, json),
            ScheduleCommand::Show { id } => one(client, ("GET", path(&id, "")), None, json),
            ScheduleCommand::Set(definition) => {
                let id = definition.id.clone();
                let body = serde_json::to_vec(&definition.request()?)?;
                one(client, ("PUT", path(&id, "")), Some(&body), json)
            }
            ScheduleCommand::Accept { suggestion, id } => accept(client, &suggestion, id, json),
            ScheduleCommand::Remove { id } => {
                client.bytes(ApiRequest { method: "DELETE", path: path(&id, ""), ..ApiRequest::default() })?;
                Ok(ExitStatus::Done)
            }
            ScheduleCommand::Run { id } => {
                let request = ApiRequest { method: "POST", path: path(&id, "/run"), ..ApiRequest::default() };
                let (run, raw): (ScheduleRun, Box<RawValue>) =
                    retry_while_loading(|| client.request_with_raw(request.clone()))?;
                if json {
                    print_json(&raw)?
                } else {
                    print_line(&run.job)?
                }
                Ok(ExitStatus::Done)
            }
            ScheduleCommand::Pause { id, length, until, reason } => {
                let body = serde_json::to_vec(&PauseRequest { until, length, reason })?;
                one(client, ("POST", path(&id, "/pause")), Some(&body), json)
            }
            ScheduleCommand::Resume { id } => one(client, ("POST", path(&id, "/resume")), None, json),
        }
    }
}

/// Defines a schedule as a plugin suggests it.
fn accept(client: &Client, suggestion: &str, id: Option<String>, json: bool) -> anyhow::Result<ExitStatus> {
    let invalid = || CliError::usage(format!("invalid suggestion `{suggestion}`: expected PLUGIN/NAME"));
    let (plugin, name) = suggestion.split_once('/').ok_or_else(invalid)?;
    let found: PluginFile = client.get(format!("/v1/plugins/{}", encode(plugin)))?;
    let schedules = found.loaded.map(|loaded| loaded.schedules).unwrap_or_default();
    let Some(suggested) = schedules.iter().find(|suggested| suggested.name == name) else {
        let names: Vec<&str> = schedules.iter().map(|suggested| suggested.name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(
            CliError::usage(format!("plugin `{plugin}` suggests no schedule `{name}`; it suggests {known}")).into()
        );
    };
    let body = serde_json::to_vec(&suggested.definition)?;
    let id = id.as_deref().unwrap_or(name);
    one(client, ("PUT", path(id, "?new=true")), Some(&body), json)
}

impl Definition {
    fn request(self) -> anyhow::Result<ScheduleRequest> {
        let payload = payload_input::read(self.input.as_deref())?;
        if payload.len() as u64 > bounds::SCHEDULE_PAYLOAD_BYTES_MAX {
            let max = bounds::SCHEDULE_PAYLOAD_BYTES_MAX;
            let text = format!("invalid payload: expected at most {max} bytes, got {}", payload.len());
            return Err(CliError::usage(text).into());
        }
        let (payload, payload_base64) = match serde_json::from_slice::<Box<RawValue>>(&payload) {
            Ok(json) => (Some(json), None),
            Err(_) => (None, Some(to_base64(&payload))),
        };
        Ok(ScheduleRequest {
            task: self.task,
            cron: self.cron,
            zone: self.zone,
            every: self.every,
            payload,
            payload_base64,
            key: self.key,
            priority: self.priority,
            missed: self.missed.map(|name| policy("missed", &name, "latest, none or all")).transpose()?,
            window: self.window,
            overlap: self
                .overlap
                .map(|name| policy("overlap", &name, "allow, skip, queue-one or replace"))
                .transpose()?,
            spread: self.spread,
            pause_after: self.pause_after,
            tick_as: self.tick_as,
        })
    }
}

fn policy<T: serde::de::DeserializeOwned>(option: &str, name: &str, expected: &str) -> anyhow::Result<T> {
    let unknown = || CliError::usage(format!("invalid --{option} `{name}`: expected {expected}"));
    Ok(from_name(name).ok_or_else(unknown)?)
}

fn path(id: &str, rest: &str) -> String {
    format!("/v1/schedules/{}{rest}", encode(id))
}

/// Lists all schedules. With `json`, each page is a document of its own.
fn list(client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
    let mut path = "/v1/schedules?limit=500".to_owned();
    let mut table = Table::new(&["ID", "TASK", "WHEN", "STATE", "NEXT", "FIRED", "MISSED", "SKIPPED"]);
    loop {
        let request = ApiRequest { method: "GET", path: path.clone(), ..ApiRequest::default() };
        let (page, raw): (SchedulePage, Box<RawValue>) = client.request_with_raw(request)?;
        if json {
            print_json(&raw)?;
        }
        for schedule in &page.schedules {
            table.row([
                schedule.id.clone(),
                schedule.task.clone(),
                when(schedule),
                schedule.state.to_string(),
                schedule.next.first().map_or_else(|| "-".to_owned(), |next| next.local.clone()),
                schedule.ticks.fired.to_string(),
                schedule.ticks.missed.to_string(),
                schedule.ticks.skipped.to_string(),
            ]);
        }
        match page.next {
            Some(next) => path = format!("/v1/schedules{next}"),
            None => break,
        }
    }
    match table.is_empty() {
        _ if json => {}
        true => note("no schedules"),
        false => table.print()?,
    }
    Ok(ExitStatus::Done)
}

fn when(schedule: &Schedule) -> String {
    match (&schedule.cron, &schedule.zone, schedule.every_ms) {
        (Some(cron), Some(zone), _) => format!("{cron} {zone}"),
        (_, _, Some(ms)) => format!("every {}", length(ms)),
        _ => "-".to_owned(),
    }
}

/// Returns a number of milliseconds as durations are written. A number that does not stand for a duration stays as a host sent it.
fn length(ms: f64) -> String {
    Duration::try_from_secs_f64(ms / 1000.0)
        .map_or_else(|_| format!("{ms:?}ms"), |length| HumanDuration(length).to_string())
}

fn one(
    client: &Client,
    (method, path): (&'static str, String),
    body: Option<&[u8]>,
    json: bool,
) -> anyhow::Result<ExitStatus> {
    let body = body.map(|body| ("application/json", body));
    let request = ApiRequest { method, path, body, ..ApiRequest::default() };
    let (schedule, raw): (Schedule, Box<RawValue>) = retry_while_loading(|| client.request_with_raw(request.clone()))?;
    if json {
        print_json(&raw)?;
    } else {
        print(&schedule)?;
    }
    Ok(ExitStatus::Done)
}

fn print(schedule: &Schedule) -> anyhow::Result<()> {
    let line = |name: &str, value: &str| print_line(&format!("{name:<12}{}", crate::output::escape_line(value)));
    line("schedule", &schedule.id)?;
    line("task", &schedule.task)?;
    line("when", &when(schedule))?;
    let state = match (&schedule.pause, schedule.state) {
        (Some(pause), ScheduleState::Paused) => {
            let until = pause.until.map(|until| format!(" until {:.0}", until.date())).unwrap_or_default();
            let by = pause.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let reason = if pause.reason.is_empty() { String::new() } else { format!(": {}", pause.reason) };
            format!("paused{until}{by}{reason}")
        }
        (_, state) => state.to_string(),
    };
    line("state", &state)?;
    line("source", &schedule.source.to_string())?;
    if let Some(key) = &schedule.key {
        line("key", key)?;
    }
    if let Some(payload) = schedule.payload.as_ref() {
        line("payload", payload.get())?;
    }
    line("missed", &format!("{}, within {}", schedule.missed, length(schedule.window_ms)))?;
    line("overlap", &schedule.overlap.to_string())?;
    if schedule.spread_ms > 0.0 {
        line("spread", &length(schedule.spread_ms))?;
    }
    if let Some(after) = schedule.pause_after {
        line("pauses", &format!("after {after} failures in a row; {} by now", schedule.failures))?;
    }
    if let Some(path) = &schedule.tick_as {
        line("tick as", path)?;
    }
    let counts = &schedule.ticks;
    line("ticks", &format!("{} fired, {} missed, {} skipped", counts.fired, counts.missed, counts.skipped))?;
    for (place, next) in schedule.next.iter().enumerate() {
        let change = next.change.map(|change| format!(" ({change} by the clock)")).unwrap_or_default();
        line(if place == 0 { "next" } else { "" }, &format!("{}{change}", next.local))?;
    }
    for (place, tick) in schedule.recent.iter().enumerate() {
        let count = if tick.count > 1 { format!(" {} ticks", tick.count) } else { String::new() };
        let job = tick.job.as_ref().map(|job| format!(" {job}")).unwrap_or_default();
        let reason = if tick.reason.is_empty() { String::new() } else { format!(": {}", tick.reason) };
        let text = format!("{:.0} {}{count}{job}{reason}", tick.tick.date(), tick.outcome);
        line(if place == 0 { "last" } else { "" }, &text)?;
    }
    if let Some(version) = &schedule.zones_version {
        line("zones", &format!("IANA {version}"))?;
        note(format!("where the clock changes: {CLOCK_LAW}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn a_length_is_written_as_a_duration_and_a_number_that_is_none_as_it_is() {
        for (ms, text) in [(0.0, "0s"), (0.5, "500us"), (1500.0, "1500ms"), (90_000.0, "90s"), (3_600_000.0, "1h")] {
            assert_eq!(length(ms), text);
        }
        for (ms, text) in [(1e300, "1e300ms"), (f64::NAN, "NaNms"), (-1.0, "-1.0ms"), (f64::INFINITY, "infms")] {
            assert_eq!(length(ms), text);
        }
    }
}
