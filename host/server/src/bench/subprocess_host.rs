//! A temporary host in a process of its own, so that its resource usage can be told apart from the client's.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::Method;
use rustix::process::{Pid, Signal, kill_process};

use super::process_stats::Process;
use super::raw_http::HostAddress;
use super::workspace::Workspace;
use crate::cli_error::{CliError, ExitStatus};
use crate::config::Settings;

/// The time for a host to get ready, which may include compiling a hundred plugins.
const READY_TIMEOUT: Duration = Duration::from_secs(600);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A host process, which is stopped on drop.
#[derive(Debug)]
pub(super) struct SubprocessHost {
    child: Child,
    pub(super) address: HostAddress,
    /// Keeps the folder until the host has stopped.
    _workspace: Arc<Workspace>,
    /// The time from the start of the process until it reported that it was ready.
    pub(super) ready_after: Duration,
}

impl SubprocessHost {
    /// Starts a host with the settings of this process, and waits until it is ready.
    pub(super) async fn start(
        workspace: Arc<Workspace>,
        settings: &Settings,
        cache: &Path,
    ) -> anyhow::Result<SubprocessHost> {
        let program = std::env::current_exe().context("could not find the file of this program")?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHARF__")) {
            command.env_remove(name);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", &workspace.store()]);
        command.arg("--plugins-dir").arg(workspace.plugins()).arg("--cache-dir").arg(cache);
        for (key, value) in [
            ("attempts.at-once", settings.attempts_at_once),
            ("attempts.guest-threads", settings.guest_threads),
            ("broadcasts.at-once", settings.broadcasts_at_once),
            ("broadcasts.calls", settings.broadcast_calls),
        ] {
            command.args(["--set", &format!("{key}={value}")]);
        }
        // In a folder without a wharf.toml.
        command.current_dir(workspace.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().context("could not start a host")?;
        let log = log_lines(&mut child);
        let address = tokio::task::block_in_place(|| listen_address(&log));
        let mut served = match address {
            Ok(address) => {
                let address = HostAddress::new(&address, None)?;
                SubprocessHost { child, address, _workspace: workspace, ready_after: Duration::ZERO }
            }
            Err(lines) => {
                // It has closed its log, so it has ended or is about to.
                let _ = child.kill();
                let _ = child.wait();
                let text = format!("the temporary host did not start:\n{}", lines.join("\n"));
                return Err(CliError::new(ExitStatus::CannotStart, text).into());
            }
        };
        let mut connection = served.address.connect().await?;
        while !connection.request(Method::GET, "/ready", "text/plain", Bytes::new()).await?.0.is_success() {
            if started.elapsed() > READY_TIMEOUT {
                let text = format!("the temporary host was not ready after {READY_TIMEOUT:?}");
                return Err(CliError::new(ExitStatus::CannotStart, text).into());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        served.ready_after = started.elapsed();
        Ok(served)
    }

    pub(super) fn process(&self) -> Process {
        Process::Other(self.child.id())
    }

    fn terminate(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // A process that has ended already needs no signal.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let started = Instant::now();
        while started.elapsed() < STOP_TIMEOUT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for SubprocessHost {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Returns the lines of the host's log. They are read as long as it runs: otherwise it would drop lines once the pipe is full.
fn log_lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    if let Some(log) = child.stderr.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                // Once the host runs, the lines are discarded.
                let _ = sender.send(line);
            }
        });
    }
    lines
}

/// Waits for the address that the host listens on; if the log ends first, returns all its lines as the error.
fn listen_address(log: &mpsc::Receiver<String>) -> Result<String, Vec<String>> {
    let mut lines = Vec::new();
    while let Ok(line) = log.recv() {
        if let Some((_, rest)) = line.split_once("listens on http://") {
            let authority: String = rest.chars().take_while(|c| !c.is_whitespace() && *c != ',').collect();
            return Ok(format!("http://{authority}"));
        }
        lines.push(line);
    }
    Err(lines)
}
