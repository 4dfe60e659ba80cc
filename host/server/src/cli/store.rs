//! `wharf store`: backs a store up, restores it and checks it, without a host.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::Subcommand;
use serde_json::{Value, json};
use wharf_store::{CheckReport, MaintenanceError, OpenError, StoreContents};

use crate::cli_error::{CliError, ExitStatus};
use crate::config::Settings;
use crate::output::{Table, print_json};
use crate::stderr::note;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Copy the store into a new file, as it is at one moment, while its host goes on
    ///
    /// The store is the one of the settings. Nobody waits for a backup; what the host writes meanwhile stays in the store's log (`-wal`),
    /// which is copied into its file once the backup ends. A store in PostgreSQL is backed up by `pg_dump`: the command is printed.
    Backup {
        /// New file
        file: PathBuf,
    },
    /// Copy a backup into the store of the settings, which must be empty or missing and in use by no host
    Restore {
        /// Backup
        file: PathBuf,
    },
    /// Check the contents of the store: its structure, and the rules that hold between its rows
    ///
    /// Reads everything, as it is at one moment, while hosts go on. The exit code is 1 if a rule does not hold.
    Check {
        /// Backup to check [default: the store of the settings]
        file: Option<PathBuf>,
    },
}

impl StoreCommand {
    pub(crate) fn run(self, settings: &Settings, json: bool) -> anyhow::Result<ExitStatus> {
        match self {
            StoreCommand::Backup { file } => backup(&settings.store, &file, json),
            StoreCommand::Restore { file } => restore(&settings.store, &file, json),
            StoreCommand::Check { file } => check(&settings.store, file.as_deref(), json),
        }
    }
}

fn backup(store: &str, file: &Path, json: bool) -> anyhow::Result<ExitStatus> {
    let report = wharf_store::backup(store, file, &mut |_, _| {}).map_err(refused)?;
    let mut document = json!({
        "file": file.display().to_string(),
        "bytes": report.bytes,
        "log_growth_bytes": report.log_growth,
        "took_ms": report.took.as_millis() as u64,
    });
    document["contents"] = contents(&report.contents);
    if json {
        print_json(&document)?;
    } else {
        print_contents(&report.contents)?;
        let size = |bytes| ByteSize(bytes).display().iec().to_string();
        note(format!(
            "backed up {} to {} in {:.1?}; the log of the store grew by {} meanwhile",
            size(report.bytes),
            file.display(),
            report.took,
            size(report.log_growth)
        ));
    }
    Ok(ExitStatus::Done)
}

fn restore(store: &str, file: &Path, json: bool) -> anyhow::Result<ExitStatus> {
    let held = wharf_store::restore(store, file).map_err(refused)?;
    if json {
        print_json(&json!({ "contents": contents(&held) }))?;
    } else {
        print_contents(&held)?;
        note("restored. Jobs that came after the backup are lost; jobs that ran when it was made run again");
    }
    Ok(ExitStatus::Done)
}

fn check(store: &str, file: Option<&Path>, json: bool) -> anyhow::Result<ExitStatus> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("could not start a runtime")?;
    let checked = runtime.block_on(async {
        match file {
            Some(file) => wharf_store::check_file(file).await,
            None => wharf_store::check(store).await,
        }
    });
    let report = checked.map_err(refused)?;
    if json {
        let faults: Vec<Value> = report
            .faults
            .iter()
            .map(|fault| json!({ "rule": fault.rule, "count": fault.count, "samples": fault.samples }))
            .collect();
        print_json(&json!({ "contents": contents(&report.contents), "faults": faults }))?;
    } else {
        print_report(&report)?;
    }
    Ok(if report.faults.is_empty() { ExitStatus::Done } else { ExitStatus::NotDone })
}

fn print_report(report: &CheckReport) -> anyhow::Result<()> {
    print_contents(&report.contents)?;
    for fault in &report.faults {
        note(format!("a rule does not hold: {}; broken by {}: {}", fault.rule, fault.count, fault.samples.join(", ")));
    }
    if report.faults.is_empty() {
        note("every rule holds");
    }
    Ok(())
}

fn print_contents(held: &StoreContents) -> anyhow::Result<()> {
    let mut table = Table::new(&["WHAT", "NUMBER"]);
    for (kind, count) in held {
        table.row([(*kind).to_owned(), count.to_string()]);
    }
    Ok(table.print()?)
}

/// Returns what a store holds as a document: the kinds in snake case.
fn contents(held: &StoreContents) -> Value {
    held.iter().map(|(kind, count)| (kind.replace(' ', "_"), Value::from(*count))).collect()
}

fn refused(error: MaintenanceError) -> CliError {
    let exit = match &error {
        MaintenanceError::Open(OpenError::MendAddress { .. }) | MaintenanceError::OtherMeans(_) => ExitStatus::Usage,
        MaintenanceError::Open(_) => ExitStatus::CannotStart,
        MaintenanceError::File { .. } => ExitStatus::Machine,
    };
    CliError::new(exit, error.to_string())
}
