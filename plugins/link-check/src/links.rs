//! Links of Markdown, and what is wrong with them.

use std::collections::BTreeSet;

use serde::Serialize;

#[derive(Serialize)]
pub struct Checked {
    /// How many links there are.
    links: usize,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    /// From 1.
    line: usize,
    target: String,
    why: String,
}

pub fn check(path: &str, text: &str) -> Checked {
    let anchors = anchors(text);
    let depth = path.split('/').filter(|part| !part.is_empty()).count().saturating_sub(1);
    let found: Vec<(usize, &str)> = prose(text)
        .flat_map(|(number, line)| targets(line).map(move |target| (number, target)))
        .collect();
    let problems = found.iter().filter_map(|(line, target)| {
        let why = wrong(target, depth, &anchors)?;
        Some(Problem {
            line: *line,
            target: (*target).to_owned(),
            why,
        })
    });
    Checked {
        links: found.len(),
        problems: problems.collect(),
    }
}

/// The numbered lines that are not code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// What stands in the round brackets of `[text](target)` and `![alt](target "title")`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(move |(at, _)| {
        let rest = &line[at + 2..];
        let inside = &rest[..rest.find(')')?];
        Some(inside.split(" \"").next().unwrap_or(inside).trim())
    })
}

/// What headings can be linked to as: in lower case, spaces as hyphens, without other signs.
fn anchors(text: &str) -> BTreeSet<String> {
    let heading = |line: &str| {
        let rest = line.trim_start_matches('#');
        (rest.len() < line.len() && rest.starts_with(' ')).then(|| slug(rest.trim()))
    };
    prose(text).filter_map(|(_, line)| heading(line)).collect()
}

fn slug(heading: &str) -> String {
    let sign = |c: char| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c),
        _ => None,
    };
    heading.to_lowercase().chars().filter_map(sign).collect()
}

/// Why a target leads nowhere, if that can be seen.
fn wrong(target: &str, depth: usize, anchors: &BTreeSet<String>) -> Option<String> {
    if target.is_empty() {
        return Some("it is empty".into());
    }
    if target.contains(char::is_whitespace) && !target.starts_with('<') {
        return Some("it has a space; write %20".into());
    }
    if let Some(anchor) = target.strip_prefix('#') {
        return (!anchors.contains(anchor)).then(|| format!("no heading here is #{anchor}"));
    }
    if let Some((scheme, rest)) = target.split_once(':') {
        let host = rest.trim_start_matches('/').split('/').next().unwrap_or_default();
        return match scheme {
            "http" | "https" if !rest.starts_with("//") || host.is_empty() => Some("it names no host".into()),
            "http" | "https" => None,
            "mailto" if rest.contains('@') => None,
            "mailto" => Some("it names no mailbox".into()),
            other => Some(format!("`{other}` is no scheme that a reader can follow")),
        };
    }
    let mut depth = depth as isize;
    for part in target.split(['#', '?']).next().unwrap_or_default().split('/') {
        depth += match part {
            ".." => -1,
            "" | "." => 0,
            _ => 1,
        };
        if depth < 0 {
            return Some("it leads above the root of the documents".into());
        }
    }
    None
}
