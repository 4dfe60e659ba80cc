//! Problems of a plugin or of its settings, for the author or operator who can fix them.

use std::fmt;

use serde::{Deserialize, Serialize};
use wharf_core::bounds;
use wharf_core::text::is_unsafe;

/// One thing that is wrong, where it is, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Description of the mistake: one sentence without a full stop, or a few lines.
    pub what: String,
    /// Line and column in the text, both from 1.
    pub at: Option<(usize, usize)>,
    /// Advice on how to fix it; may be empty.
    pub hint: String,
}

impl Problem {
    /// Makes a problem without a place and without a hint. `what` is cut to [`bounds::PROBLEM_BYTES_MAX`] bytes: it may quote
    /// a name that is as long as the file.
    pub fn new(what: impl Into<String>) -> Problem {
        let mut what = what.into();
        cut(&mut what, bounds::PROBLEM_BYTES_MAX);
        Problem { what, at: None, hint: String::new() }
    }

    /// Adds how to fix it, cut to [`bounds::PROBLEM_BYTES_MAX`] bytes.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = hint.into();
        cut(&mut self.hint, bounds::PROBLEM_BYTES_MAX);
        self
    }

    /// Adds its place in the text: line and column, both from 1.
    #[must_use]
    pub fn at(mut self, at: Option<(usize, usize)>) -> Problem {
        self.at = at;
        self
    }

    /// Moves the place into the text: "manifest, line 3, column 1: ...".
    #[must_use]
    pub fn within(mut self, place: &str) -> Problem {
        self.what = match self.at.take() {
            Some((line, column)) => format!("{place}, line {line}, column {column}: {}", self.what),
            None => format!("{place}: {}", self.what),
        };
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.at {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.what)?;
        for line in self.hint.lines() {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// Collects problems. A file can have any number of them: beyond [`bounds::PROBLEMS_MAX`] they are only counted.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Adds a problem; `problem` is called only if it will be shown.
    pub(crate) fn add(&mut self, problem: impl FnOnce() -> Problem) {
        if self.found.len() < bounds::PROBLEMS_MAX {
            self.found.push(problem());
        } else {
            self.more += 1;
        }
    }

    /// Returns the first problems, each cut to its limit and all within theirs, with the number of those that are left
    /// out.
    pub(crate) fn into_bounded(self) -> Vec<Problem> {
        let Problems { found, mut more } = self;
        let mut shown: Vec<Problem> = Vec::new();
        let mut bytes_left = bounds::REFUSAL_BYTES_MAX;
        for Problem { mut what, at, mut hint } in found {
            cut(&mut what, bounds::PROBLEM_BYTES_MAX);
            cut(&mut hint, bounds::PROBLEM_BYTES_MAX);
            let size = what.len() + hint.len();
            if size > bytes_left {
                more += 1;
                continue;
            }
            bytes_left -= size;
            shown.push(Problem { what, at, hint });
        }
        if more > 0 {
            let noun = if more == 1 { "problem is" } else { "problems are" };
            shown.push(Problem::new(format!("{more} more {noun} not shown")));
        }
        shown
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(all: Vec<Problem>) -> Problems {
        let mut problems = Problems::default();
        all.into_iter().for_each(|problem| problems.add(|| problem));
        problems
    }
}

/// Returns a text that a file or its author wrote, in one line: control characters and marks that nobody sees become escapes. So
/// what an error quotes does not look like a line of the error.
pub(crate) fn in_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Cuts an untrusted text to `max` bytes, and marks the cut.
pub(crate) fn cut(text: &mut String, max: usize) {
    const CUT: &str = " ...";
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max.saturating_sub(CUT.len())));
        text.push_str(CUT);
    }
}

/// Why a plugin could not be loaded: the problems, within [`bounds::REFUSAL_BYTES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct LoadError {
    /// The problems that were found.
    pub problems: Vec<Problem>,
    /// True if they say nothing about the file, so that it may be loaded later as it is: a full disk, a process that could
    /// not be started.
    pub passing: bool,
}

impl LoadError {
    /// Returns an error that says nothing about the file.
    pub fn passing(problem: Problem) -> LoadError {
        LoadError { problems: vec![problem], passing: true }
    }

    /// Returns the first problem in one line, with the number of others: for responses that quote the same refusal many
    /// times.
    pub fn first_line(&self) -> String {
        let Some(first) = self.problems.first() else { return "unknown reason".to_owned() };
        let mut line = first.what.lines().next().unwrap_or_default().to_owned();
        cut(&mut line, bounds::REFUSAL_LINE_BYTES_MAX);
        match self.problems.len() - 1 {
            0 => line,
            more => format!("{line} (and {more} more)"),
        }
    }
}

impl From<Problem> for LoadError {
    fn from(problem: Problem) -> LoadError {
        LoadError { problems: vec![problem], passing: false }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
