//! The command line: every command on one page.

mod cli_error;
mod spread;
mod output;
mod input;
mod sse;
mod progress;
mod client;
mod follow;
mod jobs;
mod broadcast;
mod plugins;
mod limits;
mod nodes;
mod settings;
mod in_process;
mod check;
mod ephemeral_kv;
mod call;
mod new;
mod bindings;
mod pack;
mod log_thread;
mod log;
mod log_notices;
mod open_store;
mod serve;
mod bench;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{Flags, Given, Settings, Surroundings};
use cli_error::{EXIT_CODES, Ending, Exit};
use client::Client;

/// Runs WebAssembly plugins as durable jobs, many at once, under limits that hold per key
#[derive(Debug, Parser)]
#[command(name = "wharf", version, after_help = EXIT_CODES, max_term_width = 100)]
struct CommandLine {
    #[command(flatten)]
    everywhere: Everywhere,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a host: load the plugins of the folder, run jobs, answer the HTTP API
    Serve(ServeFlags),
    /// Run one job here and now: no host, no store
    Call(call::Call),
    /// Say what would happen if a file were put into the plugin folder
    Check(check::Check),
    /// Make a folder with a first plugin in it
    New(new::New),
    /// Write the contract in C, Go or TypeScript
    Bindings(bindings::Bindings),
    /// Make a component of a core module
    Pack(pack::Pack),
    /// Enqueue jobs on a running host, look at them, follow them
    #[command(subcommand)]
    Job(jobs::Command),
    /// Call every subscriber of a topic, and show what each of them answers
    Broadcast(broadcast::Send),
    /// See the plugins of a running host
    #[command(subcommand)]
    Plugin(plugins::Command),
    /// See and change how many jobs run at once
    #[command(subcommand)]
    Limit(limits::Command),
    /// See the hosts that share the store
    #[command(subcommand)]
    Node(nodes::Command),
    /// Measure: jobs a second, latency, what a sandbox costs; a host of its own by default, a running one with --host
    #[command(subcommand)]
    Bench(bench::Command),
    /// Print the settings that hold, each with where it comes from, and every hard bound
    Config,
    /// Print a completion script: wharf completion bash > /etc/bash_completion.d/wharf
    Completion { shell: Shell },
    /// Compile one component, in a process of its own
    #[command(name = in_process::COMPILE_COMMAND, hide = true)]
    CompileChild {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Flags of every command.
#[derive(Debug, Args)]
struct Everywhere {
    /// The settings file, instead of ./wharf.toml [env: WHARF__CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Any setting by its key, as in --set attempts.at-once=64; see `wharf config`
    #[arg(long, global = true, value_name = "KEY=VALUE", help_heading = "Global options")]
    set: Vec<String>,
    /// Where the running host is [default: http://127.0.0.1:7070] [env: WHARF__HOST]
    #[arg(long, global = true, value_name = "ADDRESS", help_heading = "Global options")]
    host: Option<String>,
    /// The token of the host [env: WHARF__TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Global options")]
    bearer: Option<String>,
    /// Print JSON
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
}

/// The settings that are often given on the command line; --set reaches the others.
#[derive(Debug, Args)]
struct ServeFlags {
    /// Where to listen [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where jobs are kept: sqlite:FILE, postgres://… or memory: [default: sqlite:wharf.db]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// The folder of the plugins [default: plugins]
    #[arg(long, value_name = "FOLDER")]
    plugins_dir: Option<String>,
    /// Where compiled plugins are kept [default: wharf in the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<String>,
    /// How much to log: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Reads the command line, runs one command, and says how the process ends.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = CommandLine::parse_from(args);
    if let Command::CompileChild { args } = line.command {
        return ExitCode::from(wharf_engine::compile_child_main(args));
    }
    ExitCode::from(cli_error::tell(command(line)) as u8)
}

fn command(line: CommandLine) -> anyhow::Result<Exit> {
    if let Command::Completion { shell } = line.command {
        // The generator panics where it cannot write, as when its reader has closed its end.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut CommandLine::command(), "wharf", &mut script);
        output::print_bytes(&script)?;
        return Ok(Exit::Done);
    }
    let json = line.everywhere.json;
    // These need no settings, and must not stumble over those of the folder that they are called in.
    match line.command {
        Command::New(new) => return new.run(json),
        Command::Bindings(bindings) => return bindings.run(),
        Command::Pack(pack) => return pack.run(),
        _ => {}
    }
    let wrong = |problems: crate::config::Problems| Ending::usage(problems.to_string());
    let around = Surroundings::of_this_process();
    let mut given = Given::read(&flags(&line)?, &around).map_err(wrong)?;
    let settings = Settings::ready(&mut given, &around).map_err(wrong)?;
    let client = || Client::new(&settings.host, settings.token.clone());
    match line.command {
        Command::Serve(_) => serve::serve(&settings),
        Command::Call(call) => call.run(&settings, json),
        Command::Check(check) => check.run(&settings, json),
        Command::Job(command) => command.run(&client(), json),
        Command::Broadcast(send) => send.run(&client(), json),
        Command::Plugin(command) => command.run(&client(), json),
        Command::Limit(command) => command.run(&client(), json),
        Command::Node(command) => command.run(&client(), json),
        Command::Bench(command) => command.run(&settings, line.everywhere.host.is_some(), json),
        Command::Config => settings::show(&given, json),
        // Done above.
        Command::New(_) | Command::Bindings(_) | Command::Pack(_) => Ok(Exit::Done),
        Command::Completion { .. } | Command::CompileChild { .. } => Ok(Exit::Done),
    }
}

/// What the flags say of settings. --set comes first, so that a flag of its own name wins over it.
fn flags(line: &CommandLine) -> anyhow::Result<Flags> {
    let everywhere = &line.everywhere;
    let mut values: Vec<(String, String, String)> = Vec::new();
    for set in &everywhere.set {
        let (key, value) = set
            .split_once('=')
            .ok_or_else(|| Ending::usage(format!("--set `{set}` has no `=`; write --set KEY=VALUE")))?;
        if values.iter().any(|(_, set, _)| set == key) {
            return Err(
                Ending::usage(format!("--set {key} is given twice, and only one can hold; leave one out")).into()
            );
        }
        values.push((format!("--set {key}"), key.to_owned(), value.to_owned()));
    }
    let mut named = vec![("--host", "host", &everywhere.host), ("--bearer", "token", &everywhere.bearer)];
    if let Command::Serve(serve) = &line.command {
        named.extend([
            ("--listen", "listen", &serve.listen),
            ("--store", "store", &serve.store),
            ("--plugins-dir", "plugins-dir", &serve.plugins_dir),
            ("--cache-dir", "cache-dir", &serve.cache_dir),
            ("--log", "log.level", &serve.log),
            ("--log-format", "log.format", &serve.log_format),
        ]);
    }
    values.extend(
        named.into_iter().filter_map(|(flag, key, value)| Some((flag.to_owned(), key.to_owned(), value.clone()?))),
    );
    Ok(Flags { config: everywhere.config.clone(), values })
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
