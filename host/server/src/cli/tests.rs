//! The command line as people see it.

use clap::CommandFactory;

use super::{CommandLine, Parser, flags};

/// Every help text, one after the other.
fn help(command: &mut clap::Command, name: &str, all: &mut String) {
    *command = std::mem::take(command).term_width(100);
    all.push_str(&format!("$ wharf{name} --help\n{}\n\n", command.render_long_help()));
    for inner in command.get_subcommands_mut().filter(|inner| !inner.is_hide_set()) {
        let name = format!("{name} {}", inner.get_name());
        if inner.get_name() != "help" {
            help(inner, &name, all);
        }
    }
}

#[test]
fn the_command_line_is_sound() {
    CommandLine::command().debug_assert();
}

#[test]
fn help_is_as_it_was_released() {
    let mut now = String::new();
    let mut command = CommandLine::command();
    command.build();
    help(&mut command, "", &mut now);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/help.txt");
    let then = std::fs::read_to_string(file).unwrap_or_default();
    if now != then {
        let new = format!("{file}.new");
        std::fs::write(&new, &now).unwrap();
        panic!("the help has changed; if that is meant, move {new} to {file}");
    }
}

#[test]
fn flags_of_their_own_name_win_over_set() {
    let line =
        CommandLine::try_parse_from(["wharf", "serve", "--listen", "127.0.0.1:2", "--set", "listen=127.0.0.1:1"])
            .unwrap();
    let flags = flags(&line).unwrap();
    assert_eq!(flags.values.last().unwrap(), &("--listen".to_owned(), "listen".to_owned(), "127.0.0.1:2".to_owned()));
    let line = CommandLine::try_parse_from(["wharf", "config", "--set", "listen"]).unwrap();
    assert!(super::flags(&line).unwrap_err().to_string().contains("has no `=`"));
}
