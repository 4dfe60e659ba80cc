//! The format of `/metrics`: OpenMetrics for clients that accept it, and otherwise the older text format, which every client
//! reads.

use axum::http::{HeaderMap, header};

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

impl Format {
    /// Returns the media type.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Returns the format that a client prefers: OpenMetrics if it names it, and no text format more.
    pub(crate) fn accepted(headers: &HeaderMap) -> Format {
        let (mut open_metrics, mut text) = (0, 0);
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in accepted.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
            match kind.as_str() {
                "application/openmetrics-text" => open_metrics = open_metrics.max(weight),
                "text/plain" => text = text.max(weight),
                _ => {}
            }
        }
        if open_metrics > 0 && open_metrics >= text { Format::OpenMetrics } else { Format::Text }
    }

    /// Returns metrics in this format; `text` has them in OpenMetrics.
    pub(crate) fn of_open_metrics(self, text: String) -> String {
        match self {
            Format::OpenMetrics => text,
            Format::Text => older(&text),
        }
    }
}

/// Reads a weight, such as "0.5"; one that is none counts as nothing.
fn thousandths(weight: &str) -> u32 {
    weight
        .parse::<f64>()
        .ok()
        .filter(|weight| (0.0..=1.0).contains(weight))
        .map_or(0, |weight| (weight * 1000.0) as u32)
}

/// Returns OpenMetrics as the older text format. There the name of a counter and of an info ends as its samples' do, there are
/// no units, and nothing marks the end.
fn older(text: &str) -> String {
    let mut older = String::with_capacity(text.len() + text.len() / 16);
    let kinds: std::collections::HashMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            older.push_str(line);
            older.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (Some(word @ ("HELP" | "TYPE")), Some(name), rest) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let (suffix, kind) = match kinds.get(name) {
            Some(&"counter") => ("_total", "counter"),
            Some(&"info") => ("_info", "gauge"),
            Some(&"unknown") => ("", "untyped"),
            Some(kind) => ("", *kind),
            None => ("", "untyped"),
        };
        let rest = if word == "TYPE" { kind } else { rest.unwrap_or_default() };
        older.push_str(&format!("# {word} {name}{suffix} {rest}\n"));
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(accept: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        accept.iter().for_each(|value| _ = headers.append(header::ACCEPT, value.parse().unwrap()));
        Format::accepted(&headers)
    }

    #[test]
    fn who_names_openmetrics_gets_it_unless_it_prefers_the_older_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(format(&[prometheus]), Format::OpenMetrics);
        assert_eq!(format(&["text/plain;q=0.1", "Application/OpenMetrics-Text; q=0.2"]), Format::OpenMetrics);
        for older in [&[][..], &["*/*"], &["text/html", "text/plain"], &["application/openmetrics-text;q=0"]] {
            assert_eq!(format(older), Format::Text, "{older:?}");
        }
        assert_eq!(format(&["application/openmetrics-text;q=0.3,text/plain;q=0.9"]), Format::Text);
        assert_eq!(format(&["application/openmetrics-text;q=much"]), Format::Text);
    }

    #[test]
    fn the_older_format_has_the_same_samples_and_other_comments() {
        let text = "# HELP wharf_jobs_enqueued Jobs enqueued.\n# TYPE wharf_jobs_enqueued counter\n\
                    wharf_jobs_enqueued_total{task=\"a/b\"} 3\n# HELP wharf_build Version.\n# TYPE wharf_build info\n\
                    wharf_build_info{version=\"1\"} 1\n# HELP wharf_wait_seconds Wait.\n# TYPE wharf_wait_seconds histogram\n\
                    # UNIT wharf_wait_seconds seconds\nwharf_wait_seconds_sum 1.5\n# EOF\n";
        assert_eq!(
            Format::Text.of_open_metrics(text.to_owned()),
            "# HELP wharf_jobs_enqueued_total Jobs enqueued.\n# TYPE wharf_jobs_enqueued_total counter\n\
             wharf_jobs_enqueued_total{task=\"a/b\"} 3\n# HELP wharf_build_info Version.\n# TYPE wharf_build_info gauge\n\
             wharf_build_info{version=\"1\"} 1\n# HELP wharf_wait_seconds Wait.\n# TYPE wharf_wait_seconds histogram\n\
             wharf_wait_seconds_sum 1.5\n"
        );
        assert_eq!(Format::OpenMetrics.of_open_metrics(text.to_owned()), text);
    }
}
