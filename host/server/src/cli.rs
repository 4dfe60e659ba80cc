//! The command line, with every command on one page. Each command has its file in `cli/`.

mod sse;
mod client;
mod follow;
mod operations;
mod schedules;
mod jobs;
mod broadcast;
mod plugins;
mod limits;
mod failures;
mod holds;
mod audit;
mod summary;
mod nodes;
mod store;
mod settings;
mod check;
mod ephemeral_kv;
mod call_job;
mod call;
mod new;
mod bindings;
mod pack;
mod tokens;
mod log_thread;
mod log_fields;
mod log_targets;
mod log;
mod log_notices;
mod reload;
mod serve;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::access::Tokens;
use crate::bench::BenchCommand;
use crate::cli_error::{CliError, EXIT_CODES, ExitStatus};
use crate::config::{self, Environment, Flags, Problems, RawSettings, Settings};
use crate::http::HeldConfig;
use crate::{cli_error, in_process_engine, output};
use client::Client;
use reload::{Files, Reload};
use serve::Start;

/// Run WebAssembly plugins as durable jobs, with concurrency limits per key
#[derive(Debug, Parser)]
#[command(name = "wharf", version, after_help = EXIT_CODES, max_term_width = 100)]
struct CommandLine {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a host: load the plugins in the folder, run jobs, serve the HTTP API
    Serve(ServeFlags),
    /// Run one job in this process, without a host or a store
    Call(call::Call),
    /// Validate a plugin without loading it into a host
    Check(check::Check),
    /// Create a new plugin project
    New(new::New),
    /// Generate bindings for C, Go or TypeScript
    Bindings(bindings::Bindings),
    /// Convert a core Wasm module into a component
    Pack(pack::Pack),
    /// Enqueue, inspect, follow, cancel and retry jobs on a running host
    #[command(subcommand)]
    Job(jobs::JobCommand),
    /// Show the jobs that failed, by what they have in common
    #[command(subcommand)]
    Failure(failures::FailureCommand),
    /// Call every subscriber of a topic and show the replies
    Broadcast(broadcast::Send),
    /// Show the plugins of a running host
    #[command(subcommand)]
    Plugin(plugins::PluginCommand),
    /// Show and change concurrency limits
    #[command(subcommand)]
    Limit(limits::LimitCommand),
    /// Hold jobs: they are enqueued and wait, while running ones go on
    #[command(subcommand)]
    Hold(holds::HoldCommand),
    /// Release a hold
    #[command(subcommand)]
    Release(holds::ReleaseCommand),
    /// List the holds in force
    Holds,
    /// List what operators changed: who, what, when and from where
    Audit(audit::Audit),
    /// Show what waits, runs and ended on all hosts, by task, and who uses the machines
    Summary(summary::Summarize),
    /// Show and cancel bulk operations, which `job retry --where` and others start
    #[command(subcommand)]
    Operation(operations::OperationCommand),
    /// Define, show, pause and run schedules: jobs that are enqueued at the moments of a clock
    #[command(subcommand)]
    Schedule(schedules::ScheduleCommand),
    /// Show the hosts that share the store
    #[command(subcommand)]
    Node(nodes::NodeCommand),
    /// Back up, restore and check the store of the settings
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Create a token for clients of a host
    #[command(subcommand)]
    Token(tokens::TokenCommand),
    /// Measure throughput, latency and the cost of a sandbox: on a temporary host by default, on a running one with --host
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print effective settings and their sources, and every hard limit
    ///
    /// These are the settings that a host started in this folder would have. With --host, those that a running host has, why it
    /// refuses its settings file, if it does, and which changes wait for its next start.
    Config {
        /// Print the settings of a running host: of the one at this address, or of the one that other commands talk to
        // In place of the global option of this name, which needs an address.
        #[arg(id = "host", long = "host", value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "")]
        running: Option<String>,
    },
    /// Print a shell completion script, as in: wharf completion bash > /etc/bash_completion.d/wharf
    Completion { shell: Shell },
    /// Compile one component in a process of its own
    #[command(name = in_process_engine::COMPILE_CHILD_COMMAND, hide = true)]
    CompileChild {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// The options that every command has.
#[derive(Debug, Args)]
struct GlobalArgs {
    /// Settings file [default: ./wharf.toml] [env: WHARF__CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Override a setting, as in --set attempts.at-once=64; `wharf config` lists the keys
    #[arg(long, global = true, value_name = "KEY=VALUE", help_heading = "Global options")]
    set: Vec<String>,
    /// Address of the running host [default: http://127.0.0.1:7070] [env: WHARF__HOST]
    #[arg(long, global = true, value_name = "ADDRESS", help_heading = "Global options")]
    host: Option<String>,
    /// Bearer token of the host [env: WHARF__TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Global options")]
    bearer: Option<String>,
    /// Print JSON
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
}

/// Flags for the settings that are often overridden; `--set` overrides any other.
#[derive(Debug, Args)]
struct ServeFlags {
    /// Address and port to listen on [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Job store: sqlite:FILE, postgres://… or memory: [default: sqlite:wharf.db]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Plugin folder [default: plugins]
    #[arg(long, value_name = "FOLDER")]
    plugins_dir: Option<String>,
    /// Folder for compiled plugins [default: wharf in the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<String>,
    /// Log level: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Log format: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Parses the command line, runs one command and returns the exit code of the process.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = CommandLine::parse_from(args);
    if let Command::CompileChild { args } = line.command {
        return ExitCode::from(wharf_engine::compile_child_main(args));
    }
    ExitCode::from(cli_error::report(command(line)) as u8)
}

fn command(line: CommandLine) -> anyhow::Result<ExitStatus> {
    if let Command::Completion { shell } = line.command {
        // Into memory first: the generator panics if it cannot write, such as when the reader has closed the pipe.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut CommandLine::command(), "wharf", &mut script);
        output::print_bytes(&script)?;
        return Ok(ExitStatus::Done);
    }
    let json = line.global.json;
    // These commands need no settings, and must not fail because of a wharf.toml in the current folder.
    match line.command {
        Command::New(new) => return new.run(json),
        Command::Bindings(bindings) => return bindings.run(),
        Command::Pack(pack) => return pack.run(),
        Command::Token(command) => return command.run(json),
        _ => {}
    }
    let invalid = |problems: Problems| CliError::usage(problems.to_string());
    let environment = Environment::of_this_process();
    let flags = flags(&line)?;
    let files = Files::of_settings(&flags, &environment);
    let (mut raw, settings) = match read_settings(&flags, &environment) {
        // The file may be the one that the host refuses, too.
        Err(_) if is_of_running_host(&line) => read_settings(&flags.without_file(), &environment).map_err(invalid)?,
        read => read.map_err(invalid)?,
    };
    let client = || Client::new(&settings.host, settings.token.clone());
    match line.command {
        Command::Serve(_) => {
            // Before they are read: a change while they are read is seen.
            let files = files.with_outside(&raw, &environment);
            raw.read_outside(None, &environment).map_err(invalid)?;
            let settings = Settings::check(&mut raw, &environment).map_err(invalid)?;
            let table = settings.token_table(&raw, &environment).map_err(invalid)?;
            let needs_tokens = !table.is_empty() || !settings.listen.ip().is_loopback();
            let live = settings.live_settings(&raw);
            let config = HeldConfig::new(config::shown(&raw), live.digest.clone());
            let reload = Reload::new(flags, environment, files, raw, needs_tokens);
            serve::serve(&settings, Start { live, tokens: Tokens::new(table), config, reload })
        }
        Command::Call(call) => {
            let call = call.with_job(client)?;
            raw.read_outside(Some(call.plugin()), &environment).map_err(invalid)?;
            call.run(&Settings::check(&mut raw, &environment).map_err(invalid)?, json)
        }
        Command::Check(check) => check.run(&settings, json),
        Command::Job(command) => command.run(&client(), json),
        Command::Failure(command) => command.run(&client(), json),
        Command::Broadcast(send) => send.run(&client(), json),
        Command::Plugin(command) => command.run(&client(), json),
        Command::Limit(command) => command.run(&client(), json),
        Command::Hold(command) => command.run(&client(), json),
        Command::Release(command) => command.run(&client()),
        Command::Holds => holds::list(&client(), json),
        Command::Summary(summary) => summary.run(&client(), json),
        Command::Audit(audit) => audit.run(&client(), json),
        Command::Operation(command) => command.run(&client(), json),
        Command::Schedule(command) => command.run(&client(), json),
        Command::Node(command) => command.run(&client(), json),
        Command::Store(command) => command.run(&settings, json),
        Command::Bench(command) => command.run(&settings, line.global.host.is_some(), json),
        Command::Config { running: Some(_) } => settings::show_running(&client(), json),
        Command::Config { running: None } => settings::show(&raw, json),
        // Handled above.
        Command::New(_) | Command::Bindings(_) | Command::Pack(_) | Command::Token(_) => Ok(ExitStatus::Done),
        Command::Completion { .. } | Command::CompileChild { .. } => Ok(ExitStatus::Done),
    }
}

fn read_settings(flags: &Flags, environment: &Environment) -> Result<(RawSettings, Settings), Problems> {
    let mut raw = RawSettings::read(flags, environment)?;
    let settings = Settings::check(&mut raw, environment)?;
    Ok((raw, settings))
}

/// Returns true for `wharf config --host`, which asks a host for its settings.
fn is_of_running_host(line: &CommandLine) -> bool {
    matches!(&line.command, Command::Config { running: Some(_) })
}

/// Collects the settings that flags override. `--set` comes first, because a named flag takes precedence over it.
fn flags(line: &CommandLine) -> anyhow::Result<Flags> {
    let global = &line.global;
    let mut values: Vec<(String, String, String)> = Vec::new();
    for set in &global.set {
        let (key, value) =
            set.split_once('=').ok_or_else(|| CliError::usage(format!("invalid --set `{set}`: expected KEY=VALUE")))?;
        if values.iter().any(|(_, set, _)| set == key) {
            return Err(CliError::usage(format!("--set {key} is given twice; remove one")).into());
        }
        values.push((format!("--set {key}"), key.to_owned(), value.to_owned()));
    }
    // Without an address it is that of the other settings.
    let host = global.host.clone().filter(|host| !host.is_empty());
    let mut named = vec![("--host", "host", &host), ("--bearer", "token", &global.bearer)];
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
    Ok(Flags { config: global.config.clone(), no_file: false, values })
}

#[cfg(test)]
pub(crate) mod error_samples;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
