//! `wharf summary`: what waits and runs on all hosts, how fast it goes, and who uses the machines.

use clap::Args;
use serde_json::value::RawValue;

use super::client::{Client, query};
use crate::cli_error::ExitStatus;
use crate::http::api::{EndedCounts, KeySummary, Quantiles, Summary, TaskSummary, WaitCounts};
use crate::output::{Table, print_json, print_line};
use crate::stderr::note;

/// In place of a number that is not known.
const UNKNOWN: &str = "unknown";

#[derive(Debug, Args)]
pub(crate) struct Summarize {
    /// Also list the keys that used the most processor time [default of N: 20]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "20", value_parser = clap::value_parser!(u32).range(1..=100))]
    keys: Option<u32>,
}

impl Summarize {
    /// Prints the summary of all hosts.
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        let path = format!("/v1/summary{}", query([("keys", self.keys.map(|keys| keys.to_string()))]));
        if json {
            print_json(&client.get::<Box<RawValue>>(path)?)?;
            return Ok(ExitStatus::Done);
        }
        let summary: Summary = client.get(path)?;
        tasks(&summary.tasks)?;
        if let Some(of_keys) = summary.keys.as_deref() {
            print_line("")?;
            keys(of_keys)?;
        }
        if summary.more {
            note("there are more tasks");
        }
        match summary.covers_s {
            None => note("a host does not tell what it did: rates are unknown"),
            Some(seconds) if seconds < 60 => {
                note(format!("a host started {seconds} s ago: rates are known after a minute"));
            }
            Some(seconds) if seconds < 3600 => {
                note(format!("a host started {} min ago: the hour has only these minutes", seconds / 60));
            }
            Some(_) => {}
        }
        Ok(ExitStatus::Done)
    }
}

fn tasks(tasks: &[TaskSummary]) -> anyhow::Result<()> {
    let heads = [
        "TASK",
        "WAITING",
        "WHY",
        "OLDEST",
        "RUNNING",
        "MINUTE",
        "HOUR",
        "WAIT p50/p99",
        "RUN p50/p99",
        "CPU/HOUR",
        "PEAK",
    ];
    let mut table = Table::new(&heads);
    for of in tasks {
        let ended = |of: &Option<EndedCounts>| match of {
            Some(of) if of.failed > 0 => format!("{} ({} failed)", of.ended, of.failed),
            Some(of) => of.ended.to_string(),
            None => UNKNOWN.to_owned(),
        };
        let times = |times: &Option<Quantiles>| match times {
            Some(of) => format!("{}/{}", length(of.p50_ms), length(of.p99_ms)),
            None => "-".to_owned(),
        };
        let of_hour = |show: fn(&EndedCounts) -> String| of.hour.as_ref().map_or_else(|| UNKNOWN.to_owned(), show);
        table.row([
            of.task.clone(),
            if of.held { format!("{} (held)", of.waiting) } else { of.waiting.to_string() },
            why(&of.waits),
            of.oldest_ready_ms.map_or_else(|| "-".to_owned(), length),
            of.running.to_string(),
            ended(&of.minute),
            ended(&of.hour),
            times(&of.wait),
            times(&of.run),
            of_hour(|of| length(of.cpu_ms)),
            of_hour(|of| bytesize::ByteSize(of.memory_peak_bytes).display().iec().to_string()),
        ]);
    }
    Ok(table.print()?)
}

/// Lists why jobs wait, as in "3 ready, 10+ held".
fn why(waits: &WaitCounts) -> String {
    let WaitCounts { ready, blocked, held, delayed, retrying, more } = *waits;
    let counts = [(ready, "ready"), (blocked, "blocked"), (held, "held"), (delayed, "delayed"), (retrying, "retrying")];
    let more = if more { "+" } else { "" };
    let each = counts.into_iter().filter(|(count, _)| *count > 0);
    let each: Vec<String> = each.map(|(count, kind)| format!("{count}{more} {kind}")).collect();
    if each.is_empty() { "-".to_owned() } else { each.join(", ") }
}

fn keys(keys: &[KeySummary]) -> anyhow::Result<()> {
    let mut table = Table::new(&["KEY", "CPU", "OF OTHERS AT MOST"]);
    for of in keys {
        table.row([of.key.clone(), length(of.cpu_ms), length(of.error_ms)]);
    }
    Ok(table.print()?)
}

/// Returns a length of time with a unit that suits it.
fn length(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1}ms"),
        ms if ms < 10_000.0 => format!("{ms:.0}ms"),
        ms => format!("{:.0}s", ms / 1000.0),
    }
}
