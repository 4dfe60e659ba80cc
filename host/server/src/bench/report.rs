//! The report of a benchmark: its conditions, figures and latencies, as tables for users or JSON for programs.

use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::process_stats::ProcessUsage;
use crate::output::{Table, millis, print_json, print_line};

/// The unit of a figure. In JSON the name of the figure ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    PerSecond,
    /// A multiple of another figure of the same run.
    Ratio,
    Millis,
    Bytes,
    Count,
}

#[derive(Debug)]
pub(super) struct BenchReport {
    bench: &'static str,
    with: Map<String, Value>,
    figures: Vec<(String, f64, Unit)>,
    latencies: Vec<(String, Latencies)>,
}

impl BenchReport {
    /// Creates a report with the conditions that every benchmark has.
    pub(super) fn new(bench: &'static str) -> BenchReport {
        let mut report = BenchReport { bench, with: Map::new(), figures: Vec::new(), latencies: Vec::new() };
        report.with("wharf", env!("CARGO_PKG_VERSION"));
        report.with("cores", std::thread::available_parallelism().map_or(1, usize::from));
        report
    }

    /// Adds a condition: a chosen parameter, or a property of the machine.
    pub(super) fn with(&mut self, name: &str, value: impl Into<Value>) {
        self.with.insert(name.to_owned(), value.into());
    }

    /// Adds a figure.
    pub(super) fn figure(&mut self, name: impl Into<String>, value: f64, unit: Unit) {
        self.figures.push((name.into(), value, unit));
    }

    /// Adds a duration as a figure, in milliseconds.
    pub(super) fn duration(&mut self, name: impl Into<String>, duration: Duration) {
        self.figure(name, duration.as_secs_f64() * 1e3, Unit::Millis);
    }

    pub(super) fn latencies(&mut self, name: impl Into<String>, latencies: Latencies) {
        self.latencies.push((name.into(), latencies));
    }

    /// Adds the resource usage of a process, in total and per piece; `of` is empty for this process.
    pub(super) fn usage(&mut self, of: &str, usage: ProcessUsage, pieces: u64, piece: &str) {
        let name = |what: &str| if of.is_empty() { what.to_owned() } else { format!("{of}-{what}") };
        self.figure(name("busy-cores"), usage.cores(), Unit::Count);
        self.duration(name(&format!("processor-per-{piece}")), usage.cpu.div_f64(pieces.max(1) as f64));
        self.figure(name("peak-memory"), usage.peak_bytes as f64, Unit::Bytes);
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
            figures.row([name.replace('-', " "), format_value(*value, *unit)]);
        }
        figures.print()?;
        if self.latencies.is_empty() {
            return Ok(());
        }
        print_line("")?;
        let mut table = Table::new(&["LATENCY", "P50", "P90", "P99", "P99.9", "MAX", "OF"]);
        for (name, latencies) in &self.latencies {
            let [p50, p90, p99, p999, max] = latencies.points().map(|(_, ms)| format_value(ms, Unit::Millis));
            table.row([name.replace('-', " "), p50, p90, p99, p999, max, latencies.count().to_string()]);
        }
        Ok(table.print()?)
    }

    fn document(&self) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|(name, value, unit)| (member(&format!("{name}{}", suffix(*unit))), json!(value)))
            .collect();
        let latencies = |latencies: &Latencies| {
            let mut points: Map<String, Value> =
                latencies.points().into_iter().map(|(name, ms)| (name.to_owned(), json!(ms))).collect();
            points.insert("count".to_owned(), json!(latencies.count()));
            Value::Object(points)
        };
        let latencies: Map<String, Value> =
            self.latencies.iter().map(|(name, one)| (member(name), latencies(one))).collect();
        let with: Map<String, Value> = self.with.iter().map(|(name, value)| (member(name), value.clone())).collect();
        json!({ "bench": self.bench, "with": with, "figures": figures, "latency_ms": latencies })
    }
}

/// Converts a name to that of a JSON member.
fn member(name: &str) -> String {
    name.replace('-', "_")
}

fn suffix(unit: Unit) -> &'static str {
    match unit {
        Unit::PerSecond => "-per-second",
        Unit::Ratio => "-ratio",
        Unit::Millis => "-ms",
        Unit::Bytes => "-bytes",
        Unit::Count => "",
    }
}

fn format_value(value: f64, unit: Unit) -> String {
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

/// The largest value of the histogram, an hour in nanoseconds. Longer latencies count as this.
const LONGEST_NANOS: u64 = 3_600_000_000_000;

/// The latencies of many operations of one kind: a high dynamic range histogram of nanoseconds.
#[derive(Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> anyhow::Result<Latencies> {
        Ok(Latencies(Histogram::new_with_bounds(1, LONGEST_NANOS, 3).context("could not create a histogram")?))
    }

    pub(super) fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn merge(&mut self, other: &Latencies) -> anyhow::Result<()> {
        self.0.add(&other.0).context("could not merge histograms")
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the latency at a quantile from 0 to 1.
    pub(super) fn at(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }

    /// Returns the names and the latencies of the reported quantiles, in milliseconds.
    fn points(&self) -> [(&'static str, f64); 5] {
        let ms = |length: Duration| length.as_secs_f64() * 1e3;
        let at = |part| ms(self.at(part));
        [("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("p99.9", at(0.999)), ("max", at(1.0))]
    }
}

/// Returns the median; of an even number of values, the upper one of the two in the middle.
pub(super) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_json_end_with_their_unit() {
        let mut report = BenchReport::new("jobs");
        report.with("batch", 7);
        report.figure("jobs", 1234.5, Unit::PerSecond);
        report.duration("fsync", Duration::from_micros(1500));
        let mut latencies = Latencies::new().unwrap();
        (1..=100).for_each(|ms| latencies.add(Duration::from_millis(ms)));
        report.latencies("single", latencies);
        let document = report.document();
        assert_eq!(document["with"]["batch"], 7);
        assert_eq!(document["figures"], json!({"jobs_per_second": 1234.5, "fsync_ms": 1.5}));
        assert_eq!(document["latency_ms"]["single"]["count"], 100);
        let p99 = document["latency_ms"]["single"]["p99"].as_f64().unwrap();
        assert!((99.0..99.2).contains(&p99), "{p99}");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(format_value(28_812.4, Unit::PerSecond), "28812 /s");
        assert_eq!(format_value(0.0234, Unit::Millis), "23.4 µs");
        assert_eq!(format_value(f64::from(3 << 20), Unit::Bytes), "3.0 MiB");
        assert_eq!(
            (format_value(2.0, Unit::Count), format_value(1.25, Unit::Ratio)),
            ("2".to_owned(), "1.25 x".to_owned())
        );
    }
}
