//! A real terminal: a pseudo terminal of `script`, which every machine with util-linux has.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the command with its output on a terminal. Returns what the terminal got, and what went to the standard error, which stays a
/// pipe or with `all` is on the terminal as well.
#[track_caller]
pub(crate) fn on_a_terminal(command: &Command, all: bool) -> Output {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut line: Vec<String> = words.map(|word| quoted(word.to_str().expect("text"))).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let errors = folder.path().join("stderr");
    if !all {
        line.push(format!("2>{}", quoted(errors.to_str().expect("text"))));
    }
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    script.env("SHELL", "/bin/sh").env("TERM", "xterm").stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    let mut output = script.output().expect("`script` of util-linux runs");
    if !all {
        output.stderr = std::fs::read(&errors).expect("the shell made it");
    }
    output
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
