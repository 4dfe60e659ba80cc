//! The signals that somebody may send to this process, and those that the kernel sends for what it does itself.
//! None of them ends a host without a word.
//!
//! What is not here keeps its meaning: SIGKILL and SIGSTOP cannot be heard; SIGTSTP, SIGTTIN and SIGTTOU are the terminal's,
//! whose owner may stop the process and let it go on; SIGPIPE is ignored by Rust's own start; nobody sends the real-time signals
//! unasked; and the signals of a fault (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP) leave nothing that could go on.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// Lets a write past the largest size that a file may have here (`ulimit -f`, `LimitFSIZE=` of systemd) fail like one on
/// a full disk. Without it the kernel ends the process by SIGXFSZ; whoever writes may be a guest with a writable folder.
///
/// # Errors
/// When the signal cannot be taken.
pub(crate) fn survive_large_files() -> io::Result<()> {
    // That it is taken is enough: nobody reads the flag. It is not inherited, so that a child process does the same for itself.
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(Number::XFSZ.as_raw(), flag).map(drop)
}

/// What a signal asks of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// To end: the first time with patience for what runs, the next time at once.
    End,
    /// To end at once.
    EndAtOnce,
    /// To end with patience, however often it comes.
    Drain,
    Nothing,
}

/// Each with its name and, where that is not plain, why it does what it does.
const SIGNALS: [(Number, &str, Asks, &str); 13] = [
    (Number::TERM, "SIGTERM", Asks::End, ""),
    (Number::INT, "SIGINT", Asks::End, ""),
    (Number::QUIT, "SIGQUIT", Asks::EndAtOnce, ""),
    // A terminal that closes sends it once itself and often once more by way of its shell; systemd sends it right after SIGTERM.
    (Number::HUP, "SIGHUP", Asks::Drain, "this version does not reload settings"),
    // What a container of LXC, or a machine whose power fails, is stopped with.
    (Number::POWER, "SIGPWR", Asks::Drain, "the power fails, or the container is stopped"),
    // Once a second from here on, until the hard limit ends the process.
    (Number::XCPU, "SIGXCPU", Asks::Drain, "the processor time that this process may take is used up (RLIMIT_CPU)"),
    // Timers outlive `exec`: whoever started this process may have set one.
    (Number::ALARM, "SIGALRM", Asks::Drain, "a timer ran out that was set before the host began"),
    (Number::VTALARM, "SIGVTALRM", Asks::Drain, "a timer ran out that was set before the host began"),
    (Number::PROF, "SIGPROF", Asks::Drain, "a timer ran out that was set before the host began"),
    (Number::USR1, "SIGUSR1", Asks::Nothing, ""),
    (Number::USR2, "SIGUSR2", Asks::Nothing, ""),
    (Number::IO, "SIGIO", Asks::Nothing, ""),
    (Number::STKFLT, "SIGSTKFLT", Asks::Nothing, ""),
];

/// How a host is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    WithPatience,
    AtOnce,
}

/// The signals of a host, heard from the moment on at which this was made.
pub(crate) struct Signals {
    heard: Vec<(Signal, &'static str, Asks, &'static str)>,
}

impl Signals {
    /// # Errors
    /// When a signal cannot be taken.
    pub(crate) fn new() -> io::Result<Signals> {
        let ignored = ignored();
        let mut heard = Vec::new();
        for (number, name, asks, why) in SIGNALS {
            let number = number.as_raw();
            // What whoever started this process chose to ignore stays ignored, as `nohup` and the shells expect that start
            // something in the background. But a host can always be ended.
            if name == "SIGTERM" || ignored & (1 << (number - 1)) == 0 {
                heard.push((signal(SignalKind::from_raw(number))?, name, asks, why));
            }
        }
        Ok(Signals { heard })
    }

    /// Waits until somebody asks the host to end.
    pub(crate) async fn end(&mut self) -> End {
        loop {
            let (name, asks, why) = self.next().await;
            match asks {
                Asks::End => return End::WithPatience,
                Asks::EndAtOnce => return End::AtOnce,
                Asks::Drain => {
                    info!("{name}: {why}; the host drains");
                    return End::WithPatience;
                }
                Asks::Nothing => means_nothing(name),
            }
        }
    }

    /// Of a host that ends: waits until somebody asks it to be done at once.
    pub(crate) async fn hurry(&mut self) {
        loop {
            let (name, asks, why) = self.next().await;
            match asks {
                Asks::End | Asks::EndAtOnce => return,
                Asks::Drain => warn!("{name}: {why}; the host drains already"),
                Asks::Nothing => means_nothing(name),
            }
        }
    }

    async fn next(&mut self) -> (&'static str, Asks, &'static str) {
        poll_fn(|task| {
            for (signal, name, asks, why) in &mut self.heard {
                if let Poll::Ready(Some(())) = signal.poll_recv(task) {
                    return Poll::Ready((*name, *asks, *why));
                }
            }
            Poll::Pending
        })
        .await
    }
}

fn means_nothing(name: &str) {
    info!("{name} means nothing to this host, which goes on");
}

/// The signals that were ignored when this process began, as bits from 1 on; none where that cannot be read.
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
    fn what_is_ignored_is_read_bit_by_bit() {
        let hangup = 1 << (Number::HUP.as_raw() - 1);
        assert_eq!(ignored_in("Name:\twharf\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n") & hangup, hangup);
        assert_eq!(ignored_in("SigIgn:\t0000000000001000\n") & hangup, 0);
        assert_eq!(ignored_in("nothing of the kind"), 0);
    }
}
