//! The errors of command lines, for the snapshot of error texts.

use clap::Parser as _;

use super::{CommandLine, flags};
use crate::error_snapshot::ErrorSamples;
use crate::{component_file, payload_input};

/// Adds the errors of invalid command lines and of files that they name.
pub(crate) fn collect(samples: &mut ErrorSamples) {
    for line in [
        "nothing",
        "job enqueue",
        "job enqueue a/b --count 0",
        "job enqueue a/b --delay 1s --at 2030-01-31T12:00:00Z",
        "job list --limit many",
        "broadcast a.b --wait",
        "limit set a key --total 1",
        "hold nothing",
        "hold key",
        "hold all --for 1h --until 2030-01-31T12:00:00Z",
        "new x --language cobol",
        "bench broadcast --wait 5",
        "bench broadcast --wait 2m",
        "bench sandbox --suspended 9000",
        "bench jobs --plugin x.wasm",
    ] {
        let error =
            CommandLine::try_parse_from(["wharf"].into_iter().chain(line.split(' '))).expect_err(line).to_string();
        // The usage that follows the first paragraph is in the snapshot of the help.
        samples.add("command line", line, error.split("\n\n").next().unwrap_or_default());
    }
    for line in ["config --set listen", "config --set listen=a --set listen=b"] {
        let parsed = CommandLine::try_parse_from(["wharf"].into_iter().chain(line.split(' '))).expect(line);
        samples.add("command line", line, flags(&parsed).expect_err(line));
    }
    for input in ["photo.jpg", "@", "@/no/such/file"] {
        samples.add("--input", input, payload_input::read(Some(input)).expect_err(input));
    }
    let file = "/no/such/plugin.wasm";
    samples.add("component", file, component_file::component(file.as_ref()).expect_err(file));
}
