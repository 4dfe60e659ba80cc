//! What is wrong with a plugin or its settings, said to the person who can change it.

use std::fmt;

/// One thing that is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Why a plugin is not loaded: every problem that was found, not only the first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct LoadError {
    pub problems: Vec<Problem>,
}

impl From<Problem> for LoadError {
    fn from(problem: Problem) -> LoadError {
        LoadError { problems: vec![problem] }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
