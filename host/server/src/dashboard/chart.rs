//! Charts as SVG: geometry in attributes, colours in the style sheet, labels beside them, where they stay readable.

use maud::{Markup, html};

use crate::http::api::Moment;

use super::layout::state;
use super::pulse::{SAMPLES, Sample};
use super::text::count;

/// A line of a chart.
pub(super) struct Line {
    /// Class and word of the state whose colour and shape it has.
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) of: fn(&Sample) -> Option<u64>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 96.0;

/// Returns a chart of the last hour, a minute each; minutes that this host did not see are gaps.
pub(super) fn chart(id: &str, title: &str, samples: &[Sample], lines: &[Line]) -> Markup {
    let values = |line: &Line| -> Vec<Option<u64>> { samples.iter().map(line.of).collect() };
    let top = nice(lines.iter().flat_map(|line| values(line).into_iter().flatten()).max().unwrap_or(0));
    let say: Vec<String> = lines
        .iter()
        .map(|line| {
            let all: Vec<u64> = values(line).into_iter().flatten().collect();
            match (all.iter().min(), all.iter().max(), all.last()) {
                (Some(min), Some(max), Some(last)) => format!("{}: from {min} to {max}, now {last}.", line.name),
                _ => format!("{}: not known yet.", line.name),
            }
        })
        .collect();
    let (title_id, text_id) = (format!("{id}-title"), format!("{id}-text"));
    html! {
        figure class="chart" {
            figcaption {
                span { (title) }
                @for line in lines {
                    @let last = values(line).last().copied().flatten();
                    span class="leg" {
                        (state(line.class, line.name)) b class="now" { @match last { Some(last) => (count(last)), None => "–" } }
                    }
                }
            }
            div class="plot" {
                svg class="line" viewBox="0 0 720 96" preserveAspectRatio="none" role="img" aria-labelledby={ (title_id) " " (text_id) } {
                    title id=(title_id) { (title) }
                    desc id=(text_id) { (say.join(" ")) }
                    path class="grid" d="M0 96H720" {}
                    path class="grid" d="M0 48H720" {}
                    path class="grid" d="M0 0H720" {}
                    @for line in lines { g class=(line.class) { path class="s1" d=(path(&values(line), top)) {} } }
                }
                div class="y" aria-hidden="true" { span { (count(top)) } span { (count(top / 2)) } span { "0" } }
                div class="x" aria-hidden="true" { span { (begin(samples)) } span { "now" } }
            }
        }
    }
}

/// Returns the time at which the chart begins.
fn begin(samples: &[Sample]) -> String {
    let minutes = SAMPLES - 1;
    match samples.last() {
        Some(last) => Moment(last.at - std::time::Duration::from_secs(60 * minutes as u64))
            .date()
            .strftime("%H:%M UTC")
            .to_string(),
        None => format!("{minutes} m ago"),
    }
}

/// Returns the path through values, of which the last one is at the right edge. A value that is missing lifts the pen.
fn path(values: &[Option<u64>], top: u64) -> String {
    let mut path = String::new();
    let mut draws = false;
    let first = SAMPLES.saturating_sub(values.len());
    for (at, value) in values.iter().enumerate() {
        let Some(value) = value else {
            draws = false;
            continue;
        };
        let x = (first + at) as f64 / (SAMPLES - 1) as f64 * WIDTH;
        let y = HEIGHT - *value as f64 / top as f64 * HEIGHT;
        path.push_str(&format!("{}{x:.1} {y:.1}", if draws { 'L' } else { 'M' }));
        // A point alone is a short line.
        if !draws && values.get(at + 1).is_none_or(Option::is_none) {
            path.push_str("h2");
        }
        draws = true;
    }
    path
}

/// Returns the smallest even number of one digit that counts, not below `max`.
fn nice(max: u64) -> u64 {
    let mut unit = 1;
    loop {
        if let Some(step) = [2, 4, 6, 10].into_iter().map(|step| step * unit).find(|step| *step >= max) {
            return step;
        }
        unit *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_minute_is_a_gap_and_never_zero() {
        assert_eq!(path(&[Some(2), Some(0), None, Some(1)], 2), "M684.0 0.0L696.0 96.0M720.0 48.0h2");
        assert_eq!(path(&[], 2), "");
    }

    #[test]
    fn the_scale_ends_at_a_number_that_is_read_at_a_glance() {
        assert_eq!([0, 1, 3, 7, 430, 1001].map(nice), [2, 2, 4, 10, 600, 2000]);
    }
}
