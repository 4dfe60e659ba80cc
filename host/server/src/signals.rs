//! The signals that others may send to this process, and those that the kernel sends for what the process itself does. None of
//! them ends a host without a line in its log.
//!
//! Signals that are not here keep their meaning. SIGKILL and SIGSTOP cannot be caught. SIGTSTP, SIGTTIN and SIGTTOU belong to
//! the terminal, whose user may stop and continue the process. SIGPIPE is ignored by Rust's own start. The real-time signals
//! are not sent to a process that has not asked for them. After the signals of a fault (SIGSEGV, SIGBUS, SIGFPE, SIGILL,
//! SIGABRT, SIGSYS, SIGTRAP) nothing could go on.

use std::fs;
use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Duration;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

/// Makes a write past the largest permitted file size (`ulimit -f`, systemd's `LimitFSIZE=`) fail like a write to a full disk.
/// Otherwise the kernel ends the process with SIGXFSZ, and the writer may be a guest with a writable folder.
///
/// # Errors
/// If the signal handler cannot be registered.
pub(crate) fn survive_large_files() -> io::Result<()> {
    // A handler is enough: its flag is never read. A child process does not inherit the handler and registers its own.
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(Number::XFSZ.as_raw(), flag).map(drop)
}

/// Effect of a signal on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Ends the host: the first time after draining, the next time at once.
    End,
    /// Ends the host at once.
    EndAtOnce,
    /// Ends the host after draining, however often it is received.
    Drain,
    /// Reads the settings again; ends the host after draining if the terminal is gone that it was started on.
    Reload,
    /// Only writes a line to the log.
    Nothing,
}

/// The signals with their names and effects; if an effect needs an explanation in the log, with that.
const SIGNALS: [(Number, &str, Effect, &str); 13] = [
    (Number::TERM, "SIGTERM", Effect::End, ""),
    (Number::INT, "SIGINT", Effect::End, ""),
    (Number::QUIT, "SIGQUIT", Effect::EndAtOnce, ""),
    // A terminal that closes sends it once, and often once more through its shell; systemd sends it right after SIGTERM.
    (Number::HUP, "SIGHUP", Effect::Reload, "the terminal of this host closed"),
    // LXC stops a container with it; init sends it when the power fails.
    (Number::POWER, "SIGPWR", Effect::Drain, "the power fails, or the container is being stopped"),
    // It is sent once a second from here on, until the hard limit ends the process.
    (Number::XCPU, "SIGXCPU", Effect::Drain, "this process has used up its processor time (RLIMIT_CPU)"),
    // Timers survive `exec`: the program that started this process may have set one.
    (Number::ALARM, "SIGALRM", Effect::Drain, "a timer expired that was set before the host started"),
    (Number::VTALARM, "SIGVTALRM", Effect::Drain, "a timer expired that was set before the host started"),
    (Number::PROF, "SIGPROF", Effect::Drain, "a timer expired that was set before the host started"),
    (Number::USR1, "SIGUSR1", Effect::Nothing, ""),
    (Number::USR2, "SIGUSR2", Effect::Nothing, ""),
    (Number::IO, "SIGIO", Effect::Nothing, ""),
    (Number::STKFLT, "SIGSTKFLT", Effect::Nothing, ""),
];

/// The way in which a host is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// After draining: running attempts get time to end.
    AfterDraining,
    /// At once: running attempts are stopped.
    AtOnce,
}

/// The time after which a host looks once more whether its terminal is gone: a shell that ends may send SIGHUP first.
const TERMINAL_GRACE: Duration = Duration::from_secs(1);

/// The signals of a host, received from the moment at which this value is created.
pub(crate) struct Signals {
    received: Vec<(Signal, &'static str, Effect, &'static str)>,
    had_terminal: bool,
    reload: Arc<Notify>,
}

/// Returns true if this process has a controlling terminal that is open.
fn has_terminal() -> bool {
    fs::File::open("/dev/tty").is_ok()
}

impl Signals {
    /// Starts to receive signals.
    ///
    /// # Errors
    /// If a signal handler cannot be registered.
    pub(crate) fn new() -> io::Result<Signals> {
        let ignored = ignored();
        let mut received = Vec::new();
        for (number, name, effect, reason) in SIGNALS {
            let number = number.as_raw();
            // A signal that was ignored when this process started stays ignored, as `nohup` expects, and shells that start a
            // program in the background. But a host can always be ended.
            if name == "SIGTERM" || ignored & (1 << (number - 1)) == 0 {
                received.push((signal(SignalKind::from_raw(number))?, name, effect, reason));
            }
        }
        Ok(Signals { received, had_terminal: has_terminal(), reload: Arc::default() })
    }

    /// Returns what is notified when a signal asks to read the settings again.
    pub(crate) fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// Waits until a signal requests that the host ends.
    pub(crate) async fn end(&mut self) -> End {
        let mut hung_up: Option<(&str, &str)> = None;
        loop {
            let terminal_ended = async {
                match hung_up {
                    Some(signal) => {
                        tokio::time::sleep(TERMINAL_GRACE).await;
                        signal
                    }
                    None => pending().await,
                }
            };
            let (name, effect, reason) = tokio::select! {
                received = self.next() => received,
                (name, reason) = terminal_ended => {
                    hung_up = None;
                    if has_terminal() {
                        continue;
                    }
                    (name, Effect::Drain, reason)
                }
            };
            match effect {
                Effect::End => return End::AfterDraining,
                Effect::EndAtOnce => return End::AtOnce,
                Effect::Reload if !self.had_terminal || has_terminal() => {
                    hung_up = self.had_terminal.then_some((name, reason));
                    self.reload.notify_one();
                }
                Effect::Drain | Effect::Reload => {
                    info!("received {name}: {reason}; the host drains");
                    return End::AfterDraining;
                }
                Effect::Nothing => log_without_effect(name),
            }
        }
    }

    /// Waits, while the host drains, until a signal requests that it ends at once.
    pub(crate) async fn end_at_once(&mut self) {
        loop {
            let (name, effect, reason) = self.next().await;
            match effect {
                Effect::End | Effect::EndAtOnce => return,
                Effect::Drain => warn!("received {name}: {reason}; the host already drains"),
                Effect::Reload => info!("ignored {name}; the host already drains"),
                Effect::Nothing => log_without_effect(name),
            }
        }
    }

    async fn next(&mut self) -> (&'static str, Effect, &'static str) {
        poll_fn(|task| {
            for (signal, name, effect, reason) in &mut self.received {
                if let Poll::Ready(Some(())) = signal.poll_recv(task) {
                    return Poll::Ready((*name, *effect, *reason));
                }
            }
            Poll::Pending
        })
        .await
    }
}

fn log_without_effect(name: &str) {
    info!("ignored {name}; the host goes on");
}

/// Returns the signals that were ignored when this process started, as a bit mask: bit 0 is signal 1. Returns 0 if that cannot
/// be read.
fn ignored() -> u64 {
    fs::read_to_string("/proc/self/status").map_or(0, |status| ignored_in(&status))
}

fn ignored_in(status: &str) -> u64 {
    let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_process_status() {
        let hangup = 1 << (Number::HUP.as_raw() - 1);
        assert_eq!(ignored_in("Name:\twharf\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n") & hangup, hangup);
        assert_eq!(ignored_in("SigIgn:\t0000000000001000\n") & hangup, 0);
        assert_eq!(ignored_in("nothing of the kind"), 0);
    }
}
