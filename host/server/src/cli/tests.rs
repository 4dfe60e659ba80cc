//! The command line as users see it.

use clap::CommandFactory;

use super::{CommandLine, Parser, flags};
use crate::documents::{blocks, calls_of_wharf};

/// Appends the help texts of a command and its subcommands.
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
fn the_command_line_is_consistent() {
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
fn named_flags_take_precedence_over_set() {
    let line =
        CommandLine::try_parse_from(["wharf", "serve", "--listen", "127.0.0.1:2", "--set", "listen=127.0.0.1:1"])
            .unwrap();
    let flags = flags(&line).unwrap();
    assert_eq!(flags.values.last().unwrap(), &("--listen".to_owned(), "listen".to_owned(), "127.0.0.1:2".to_owned()));
    let line = CommandLine::try_parse_from(["wharf", "config", "--set", "listen"]).unwrap();
    assert!(super::flags(&line).unwrap_err().to_string().contains("expected KEY=VALUE"));
    let line = CommandLine::try_parse_from(["wharf", "config", "--set", "listen=a", "--set", "listen=b"]).unwrap();
    assert!(super::flags(&line).unwrap_err().to_string().contains("--set listen is given twice"));
}

#[test]
fn contradicting_options_are_refused() {
    let enqueue = ["wharf", "job", "enqueue", "a/b"];
    for both in [
        &["--delay", "1s", "--at", "2030-01-31T12:00:00Z"][..],
        &["--input", "1", "--input", "2"],
        &["--key", "a", "--key", "a"],
        &["--token", "a", "--token", "b"],
        &["--count", "2", "--wait"],
        &["--count", "2", "--token", "a"],
    ] {
        assert!(CommandLine::try_parse_from(enqueue.iter().chain(both)).is_err(), "{both:?}");
    }
    let broadcast = ["wharf", "broadcast", "a.b"];
    for both in [
        &["--mode", "first=2", "--mode", "quorum"][..],
        &["--durable", "--mode", "all"],
        &["--durable", "--timeout", "1s"],
        &["--wait"],
    ] {
        assert!(CommandLine::try_parse_from(broadcast.iter().chain(both)).is_err(), "{both:?}");
    }
    assert!(CommandLine::try_parse_from(["wharf", "limit", "set", "a", "key", "--total", "1"]).is_err());
}

#[test]
fn a_running_host_is_asked_for_its_settings_with_an_address_or_without() {
    let running = |args: &[&str]| {
        let line = CommandLine::try_parse_from(["wharf"].iter().chain(args)).unwrap();
        let host = flags(&line).unwrap().values.into_iter().find(|(_, key, _)| key == "host");
        (super::is_of_running_host(&line), host.map(|(.., address)| address))
    };
    assert_eq!(running(&["config"]), (false, None));
    assert_eq!(running(&["config", "--host"]), (true, None));
    assert_eq!(running(&["config", "--host", "--json"]), (true, None));
    assert_eq!(running(&["config", "--host", "http://b:1"]), (true, Some("http://b:1".to_owned())));
    assert_eq!(running(&["node", "list", "--host", "http://b:1"]), (false, Some("http://b:1".to_owned())));
    assert!(CommandLine::try_parse_from(["wharf", "node", "list", "--host"]).is_err());
}

#[test]
fn every_call_in_the_documents_is_one_that_the_command_line_takes() {
    let mut found = 0;
    for block in blocks() {
        let text = match block.language.as_str() {
            "sh" => block.text,
            // Of a session only the lines behind a prompt are calls.
            "console" | "text" => {
                block.text.lines().filter_map(|line| line.strip_prefix("$ ")).collect::<Vec<_>>().join("\n")
            }
            _ => continue,
        };
        for call in calls_of_wharf(&text) {
            found += 1;
            let words = ["wharf".to_owned()].into_iter().chain(call);
            if let Err(error) = CommandLine::try_parse_from(words)
                && error.use_stderr()
            {
                panic!("{}: {error}", block.place);
            }
        }
    }
    assert!(found > 50, "the calls are found: {found}");
}
