//! `[schedules.NAME]`: the schedules of the settings file.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};
use wharf_core::bounds;
use wharf_core::ids::ScheduleId;
use wharf_core::schedule::{ScheduleSpec, Timing};
use wharf_core::time::Timestamp;
use wharf_engine::spec::duration::parse_duration;
use wharf_runner::checked_schedule;

use super::origin::{Origin, Problems};

/// One schedule of the file.
#[derive(Debug)]
pub(crate) struct ScheduleSection {
    pub(crate) id: ScheduleId,
    pub(crate) spec: ScheduleSpec,
    /// Keys and values as they are written, for `wharf config`.
    pub(crate) shown: Vec<(String, String, Origin)>,
}

/// A section as it is written, without its payload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawSchedule {
    task: Spanned<String>,
    cron: Option<Spanned<String>>,
    zone: Option<Spanned<String>>,
    every: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    #[serde(default)]
    priority: i32,
    missed: Option<Spanned<String>>,
    window: Option<Spanned<String>>,
    overlap: Option<Spanned<String>>,
    spread: Option<Spanned<String>>,
    pause_after: Option<u32>,
    tick_as: Option<Spanned<String>>,
}

/// Reads one section. `place` gives the origin of an offset in the file, `complain` reports an error of its reader.
pub(super) fn section(
    name: &Spanned<impl AsRef<str>>,
    section: Spanned<DeValue<'_>>,
    (now, place): (Timestamp, &dyn Fn(usize) -> Origin),
    problems: &mut Problems,
    complain: &dyn Fn(&toml::de::Error, usize, &mut Problems),
) -> Option<(ScheduleId, ScheduleSpec)> {
    let (here, at) = (place(name.span().start), section.span().start);
    let id: ScheduleId = match name.get_ref().as_ref().parse() {
        Ok(id) => id,
        Err(error) => {
            problems.add(&here, format_args!("{error}; write `[schedules.NAME]`"));
            return None;
        }
    };
    let (span, value) = (section.span(), section.into_inner());
    let DeValue::Table(mut table) = value else {
        problems.add(&here, format_args!("`schedules.{id}`: expected a table; write `[schedules.{id}]`"));
        return None;
    };
    let payload = match table.remove("payload") {
        None => "null".to_owned(),
        Some(value) => match json(value.get_ref()) {
            Ok(json) => json,
            Err(why) => {
                problems.add(&place(value.span().start), format_args!("`schedules.{id}.payload`: {why}"));
                return None;
            }
        },
    };
    let rest = Spanned::new(span, DeValue::Table(table));
    let raw = match RawSchedule::deserialize(ValueDeserializer::from(rest)) {
        Ok(raw) => raw,
        Err(error) => {
            complain(&error, at, problems);
            return None;
        }
    };
    let spec = read(&raw, payload, |key, span, text| {
        problems.add(&place(span.start), format_args!("`schedules.{id}.{key}`: {text}"));
    })?;
    match checked_schedule(spec, now) {
        Ok(spec) => Some((id, spec)),
        Err(why) => {
            let span = raw.cron.as_ref().or(raw.every.as_ref()).map_or(name.span(), Spanned::span);
            problems.add(&place(span.start), format_args!("`schedules.{id}`: {why}"));
            None
        }
    }
}

fn read(
    raw: &RawSchedule,
    payload: String,
    mut problem: impl FnMut(&str, std::ops::Range<usize>, String),
) -> Option<ScheduleSpec> {
    let timing = match (&raw.cron, &raw.every) {
        (Some(expression), None) => {
            let zone = raw.zone.as_ref().map_or("UTC", |zone| zone.get_ref());
            Timing::Cron { expression: expression.get_ref().clone(), zone: zone.to_owned() }
        }
        (None, Some(every)) => match (parse_duration(every.get_ref()), &raw.zone) {
            (Ok(_), Some(zone)) => {
                problem("zone", zone.span(), "only `cron` has one; an interval follows real time".to_owned());
                return None;
            }
            (Ok(every), None) => Timing::Every(every),
            (Err(error), _) => {
                problem("every", every.span(), error.to_string());
                return None;
            }
        },
        (Some(_), Some(every)) => {
            problem("every", every.span(), "`cron` and `every` are both given; leave one out".to_owned());
            return None;
        }
        (None, None) => {
            problem(
                "cron",
                raw.task.span(),
                "it is missing, and so is `every`: when does the schedule tick?".to_owned(),
            );
            return None;
        }
    };
    let mut is_valid = true;
    let mut parsed = |key: &str, text: &Option<Spanned<String>>, default: Duration| {
        let Some(text) = text else { return default };
        parse_duration(text.get_ref()).unwrap_or_else(|error| {
            problem(key, text.span(), error.to_string());
            is_valid = false;
            default
        })
    };
    let window = parsed("window", &raw.window, bounds::SCHEDULE_WINDOW_DEFAULT);
    let spread = parsed("spread", &raw.spread, Duration::ZERO);
    let mut named = |key: &str, span: std::ops::Range<usize>, error: wharf_core::ids::ParseIdError| {
        problem(key, span, error.to_string());
    };
    let task = raw.task.get_ref().parse().map_err(|error| named("task", raw.task.span(), error)).ok();
    let key = raw.key.as_ref().map(|key| key.get_ref().parse().map_err(|error| named("key", key.span(), error)));
    let missed =
        raw.missed.as_ref().map(|name| name.get_ref().parse().map_err(|error| named("missed", name.span(), error)));
    let overlap =
        raw.overlap.as_ref().map(|name| name.get_ref().parse().map_err(|error| named("overlap", name.span(), error)));
    let tick_as =
        raw.tick_as.as_ref().map(|path| path.get_ref().parse().map_err(|error| named("tick-as", path.span(), error)));
    let spec = ScheduleSpec {
        task: task?,
        payload: payload.into_bytes().into(),
        key: key.transpose().ok()?,
        priority: raw.priority,
        timing,
        missed: missed.transpose().ok()?.unwrap_or_default(),
        window,
        overlap: overlap.transpose().ok()?.unwrap_or_default(),
        spread,
        pause_after: raw.pause_after,
        tick_as: tick_as.transpose().ok()?,
    };
    is_valid.then_some(spec)
}

/// Returns a value as JSON.
///
/// # Errors
/// If JSON has no such value.
fn json(value: &DeValue<'_>) -> Result<String, String> {
    Ok(match value {
        DeValue::String(text) => serde_json::Value::from(text.as_ref()).to_string(),
        DeValue::Boolean(is_true) => is_true.to_string(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| format!("expected a number of 64 bits, got {number}"))?,
        DeValue::Float(number) => {
            let finite = number.as_str().parse::<f64>().ok().filter(|number| number.is_finite());
            let finite = finite.and_then(serde_json::Number::from_f64);
            finite.ok_or_else(|| format!("expected a number that JSON has, got {number}"))?.to_string()
        }
        DeValue::Datetime(moment) => serde_json::Value::from(moment.to_string()).to_string(),
        DeValue::Array(values) => {
            let values: Vec<String> =
                values.iter().map(|value| json(value.get_ref())).collect::<Result<_, String>>()?;
            format!("[{}]", values.join(","))
        }
        DeValue::Table(table) => {
            let member = |(name, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                let name = serde_json::Value::from(name.get_ref().as_ref());
                Ok::<String, String>(format!("{name}:{}", json(value.get_ref())?))
            };
            let members: Vec<String> = table.iter().map(member).collect::<Result<_, String>>()?;
            format!("{{{}}}", members.join(","))
        }
    })
}
