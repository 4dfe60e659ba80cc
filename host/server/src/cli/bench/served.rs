//! A host of the bench's own as a process beside this one, so that what it costs can be told from what the client costs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::Method;
use rustix::process::{Pid, Signal, kill_process};

use super::super::cli_error::{Ending, Exit};
use super::cost::Whose;
use super::ground::Ground;
use super::wire::Place;
use crate::config::Settings;

/// Loading may mean compiling a hundred plugins.
const READY_PATIENCE: Duration = Duration::from_secs(600);
const END_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Ends with this.
#[derive(Debug)]
pub(super) struct Served {
    child: Child,
    pub(super) place: Place,
    /// Stays as long as the host.
    _ground: Arc<Ground>,
    /// From the start of the process until it said that it was ready.
    pub(super) ready_after: Duration,
}

impl Served {
    /// Starts it with the settings of this process, and waits until it is ready.
    pub(super) async fn start(ground: Arc<Ground>, settings: &Settings, cache: &Path) -> anyhow::Result<Served> {
        let program = std::env::current_exe().context("could not find the file of this program")?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHARF__")) {
            command.env_remove(name);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", &ground.store()]);
        command.arg("--plugins-dir").arg(ground.plugins()).arg("--cache-dir").arg(cache);
        for (key, value) in [
            ("attempts.at-once", settings.attempts_at_once),
            ("attempts.guest-threads", settings.guest_threads),
            ("broadcasts.at-once", settings.broadcasts_at_once),
            ("broadcasts.calls", settings.broadcast_calls),
        ] {
            command.args(["--set", &format!("{key}={value}")]);
        }
        // Not beside somebody's wharf.toml.
        command.current_dir(ground.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().context("could not start a host")?;
        let said = heard(&mut child);
        let address = tokio::task::block_in_place(|| listening(&said));
        let mut served = match address {
            Ok(address) => {
                let place = Place::new(&address, None)?;
                Served { child, place, _ground: ground, ready_after: Duration::ZERO }
            }
            Err(lines) => {
                // It has closed its end: it is gone, or about to be.
                let _ = child.kill();
                let _ = child.wait();
                let text = format!("the host of the bench did not start:\n{}", lines.join("\n"));
                return Err(Ending::new(Exit::CannotStart, text).into());
            }
        };
        let mut connection = served.place.connect().await?;
        while !connection.ask(Method::GET, "/ready", "text/plain", Bytes::new()).await?.0.is_success() {
            if began.elapsed() > READY_PATIENCE {
                let text = format!("the host of the bench was not ready after {READY_PATIENCE:?}");
                return Err(Ending::new(Exit::CannotStart, text).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        served.ready_after = began.elapsed();
        Ok(served)
    }

    pub(super) fn whose(&self) -> Whose {
        Whose::Other(self.child.id())
    }

    fn terminate(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // One that is gone already needs no signal.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let began = Instant::now();
        while began.elapsed() < END_PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// The lines of its log. They are read as long as it lives: else it would wait for a reader some day.
fn heard(child: &mut Child) -> mpsc::Receiver<String> {
    let (tell, said) = mpsc::channel();
    if let Some(log) = child.stderr.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                // Nobody listens any more once it runs.
                let _ = tell.send(line);
            }
        });
    }
    said
}

/// Where it listens; else all that it said.
fn listening(said: &mpsc::Receiver<String>) -> Result<String, Vec<String>> {
    let mut lines = Vec::new();
    while let Ok(line) = said.recv() {
        if let Some((_, rest)) = line.split_once("listens on http://") {
            let authority: String = rest.chars().take_while(|c| !c.is_whitespace() && *c != ',').collect();
            return Ok(format!("http://{authority}"));
        }
        lines.push(line);
    }
    Err(lines)
}
