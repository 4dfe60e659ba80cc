//! What a bench says: under which conditions, which figures, how long things took. A table for people, JSON for programs.

use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::super::output::{Table, millis, print_json, print_line};
use super::cost::Cost;

/// What a number means; in JSON its name ends with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    PerSecond,
    /// Times as much as something else of the same run.
    Ratio,
    Millis,
    Bytes,
    Count,
}

#[derive(Debug)]
pub(super) struct Report {
    bench: &'static str,
    with: Map<String, Value>,
    figures: Vec<(String, f64, Unit)>,
    spreads: Vec<(String, Spread)>,
}

impl Report {
    /// With the conditions that every bench has.
    pub(super) fn new(bench: &'static str) -> Report {
        let mut report = Report { bench, with: Map::new(), figures: Vec::new(), spreads: Vec::new() };
        report.with("wharf", env!("CARGO_PKG_VERSION"));
        report.with("cores", std::thread::available_parallelism().map_or(1, usize::from));
        report
    }

    /// A condition: what was chosen, and what differs from machine to machine.
    pub(super) fn with(&mut self, name: &str, value: impl Into<Value>) {
        self.with.insert(name.to_owned(), value.into());
    }

    pub(super) fn figure(&mut self, name: impl Into<String>, value: f64, unit: Unit) {
        self.figures.push((name.into(), value, unit));
    }

    pub(super) fn length(&mut self, name: impl Into<String>, length: Duration) {
        self.figure(name, length.as_secs_f64() * 1e3, Unit::Millis);
    }

    pub(super) fn spread(&mut self, name: impl Into<String>, spread: Spread) {
        self.spreads.push((name.into(), spread));
    }

    /// What it took of the machine; `of` is empty where that is this process.
    pub(super) fn cost(&mut self, of: &str, cost: Cost, pieces: u64, piece: &str) {
        let name = |what: &str| if of.is_empty() { what.to_owned() } else { format!("{of}-{what}") };
        self.figure(name("busy-cores"), cost.cores(), Unit::Count);
        self.length(name(&format!("processor-per-{piece}")), cost.processor.div_f64(pieces.max(1) as f64));
        self.figure(name("peak-memory"), cost.peak_bytes as f64, Unit::Bytes);
    }

    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return print_json(&self.document());
        }
        print_line(&format!("wharf bench {}", self.bench))?;
        for (name, value) in &self.with {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            print_line(&format!("  {name:<22} {text}"))?;
        }
        print_line("")?;
        let mut figures = Table::new(&["FIGURE", "VALUE"]);
        for (name, value, unit) in &self.figures {
            figures.row([name.replace('-', " "), shown(*value, *unit)]);
        }
        figures.print()?;
        if self.spreads.is_empty() {
            return Ok(());
        }
        print_line("")?;
        let mut spreads = Table::new(&["LATENCY", "P50", "P90", "P99", "P99.9", "MAX", "OF"]);
        for (name, spread) in &self.spreads {
            let [p50, p90, p99, p999, max] = spread.points().map(|(_, ms)| shown(ms, Unit::Millis));
            spreads.row([name.replace('-', " "), p50, p90, p99, p999, max, spread.count().to_string()]);
        }
        Ok(spreads.print()?)
    }

    fn document(&self) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|(name, value, unit)| (member(&format!("{name}{}", ending(*unit))), json!(value)))
            .collect();
        let spread = |spread: &Spread| {
            let mut points: Map<String, Value> =
                spread.points().into_iter().map(|(name, ms)| (name.to_owned(), json!(ms))).collect();
            points.insert("count".to_owned(), json!(spread.count()));
            Value::Object(points)
        };
        let spreads: Map<String, Value> = self.spreads.iter().map(|(name, one)| (member(name), spread(one))).collect();
        let with: Map<String, Value> = self.with.iter().map(|(name, value)| (member(name), value.clone())).collect();
        json!({ "bench": self.bench, "with": with, "figures": figures, "latency_ms": spreads })
    }
}

/// A name as a member of JSON.
fn member(name: &str) -> String {
    name.replace('-', "_")
}

fn ending(unit: Unit) -> &'static str {
    match unit {
        Unit::PerSecond => "-per-second",
        Unit::Ratio => "-ratio",
        Unit::Millis => "-ms",
        Unit::Bytes => "-bytes",
        Unit::Count => "",
    }
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond if value >= 100.0 => format!("{value:.0} /s"),
        Unit::PerSecond => format!("{value:.2} /s"),
        Unit::Ratio => format!("{value:.2} x"),
        Unit::Millis if value < 0.1 => format!("{:.1} µs", value * 1e3),
        Unit::Millis => millis(value),
        Unit::Bytes => bytesize::ByteSize(value as u64).display().iec().to_string(),
        Unit::Count if value.fract() == 0.0 => format!("{value:.0}"),
        Unit::Count => format!("{value:.2}"),
    }
}

/// What takes longer counts as this: an hour.
const LONGEST_NANOS: u64 = 3_600_000_000_000;

/// How long many of the same kind took, each counted: a high dynamic range histogram of nanoseconds.
#[derive(Debug)]
pub(super) struct Spread(Histogram<u64>);

impl Spread {
    pub(super) fn new() -> anyhow::Result<Spread> {
        Ok(Spread(Histogram::new_with_bounds(1, LONGEST_NANOS, 3).context("could not make a histogram")?))
    }

    pub(super) fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn merge(&mut self, other: &Spread) -> anyhow::Result<()> {
        self.0.add(&other.0).context("could not add up histograms")
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The length under which this part of all of them stayed, from 0 to 1.
    pub(super) fn at(&self, part: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(part))
    }

    /// In milliseconds.
    fn points(&self) -> [(&'static str, f64); 5] {
        let ms = |length: Duration| length.as_secs_f64() * 1e3;
        let at = |part| ms(self.at(part));
        [("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("p99.9", at(0.999)), ("max", at(1.0))]
    }
}

/// The one in the middle.
pub(super) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_json_say_their_unit() {
        let mut report = Report::new("jobs");
        report.with("batch", 7);
        report.figure("jobs", 1234.5, Unit::PerSecond);
        report.length("fsync", Duration::from_micros(1500));
        let mut spread = Spread::new().unwrap();
        (1..=100).for_each(|ms| spread.add(Duration::from_millis(ms)));
        report.spread("single", spread);
        let document = report.document();
        assert_eq!(document["with"]["batch"], 7);
        assert_eq!(document["figures"], json!({"jobs-per-second": 1234.5, "fsync-ms": 1.5}));
        assert_eq!(document["latency_ms"]["single"]["count"], 100);
        let p99 = document["latency_ms"]["single"]["p99"].as_f64().unwrap();
        assert!((99.0..99.2).contains(&p99), "{p99}");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(shown(28_812.4, Unit::PerSecond), "28812 /s");
        assert_eq!(shown(0.0234, Unit::Millis), "23.4 µs");
        assert_eq!(shown(f64::from(3 << 20), Unit::Bytes), "3.0 MiB");
        assert_eq!((shown(2.0, Unit::Count), shown(1.25, Unit::Ratio)), ("2".to_owned(), "1.25 x".to_owned()));
    }
}
