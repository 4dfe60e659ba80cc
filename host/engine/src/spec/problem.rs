//! What is wrong with a plugin or its settings, said to the person who can change it.

use std::fmt;

use serde::{Deserialize, Serialize};
use wharf_core::bounds;

/// One thing that is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong: one sentence without its full stop, or a few lines.
    pub what: String,
    /// Line and column in the text at hand, both from 1.
    pub at: Option<(usize, usize)>,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl Problem {
    pub fn new(what: impl Into<String>) -> Problem {
        Problem { what: what.into(), at: None, hint: String::new() }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = hint.into();
        self
    }

    #[must_use]
    pub fn at(mut self, at: Option<(usize, usize)>) -> Problem {
        self.at = at;
        self
    }

    /// The same problem, said to be in `place`: "manifest, line 3, column 1: ...".
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

/// Problems as they are found. A file can have as many as it likes: past [`bounds::PROBLEMS_MAX`] they are only counted.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// `problem` is only made where it will be told.
    pub(crate) fn add(&mut self, problem: impl FnOnce() -> Problem) {
        if self.found.len() < bounds::PROBLEMS_MAX {
            self.found.push(problem());
        } else {
            self.more += 1;
        }
    }

    /// The first ones, each cut to its bound and all within theirs, and how many more there are.
    pub(crate) fn told(self) -> Vec<Problem> {
        let Problems { found, mut more } = self;
        let mut told: Vec<Problem> = Vec::new();
        let mut room = bounds::REFUSAL_BYTES_MAX;
        for Problem { mut what, at, mut hint } in found {
            cut(&mut what, bounds::PROBLEM_BYTES_MAX);
            cut(&mut hint, bounds::PROBLEM_BYTES_MAX);
            let size = what.len() + hint.len();
            if size > room {
                more += 1;
                continue;
            }
            room -= size;
            told.push(Problem { what, at, hint });
        }
        if more > 0 {
            let noun = if more == 1 { "problem is" } else { "problems are" };
            told.push(Problem::new(format!("{more} more {noun} not shown")));
        }
        told
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(all: Vec<Problem>) -> Problems {
        let mut problems = Problems::default();
        all.into_iter().for_each(|problem| problems.add(|| problem));
        problems
    }
}

/// Cuts a text of a stranger's to `max` bytes, and shows that it was cut.
pub(crate) fn cut(text: &mut String, max: usize) {
    const CUT: &str = " ...";
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max.saturating_sub(CUT.len())));
        text.push_str(CUT);
    }
}

/// Why a plugin is not loaded: the problems that were found, within [`bounds::REFUSAL_BYTES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct LoadError {
    pub problems: Vec<Problem>,
}

impl LoadError {
    /// The first problem in one line, and how many more there are: for where many answers quote the same refusal.
    pub fn first_line(&self) -> String {
        let Some(first) = self.problems.first() else { return "no reason is known".to_owned() };
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
        LoadError { problems: vec![problem] }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
