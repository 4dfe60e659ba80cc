//! Telling a service manager how far the host is, with a real socket in the place of systemd's.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Host, Setup, eventually};

/// The host proves that its loop turns three times in this time.
const WATCHDOG: Duration = Duration::from_millis(900);
/// Time without a message after which no further one is awaited.
const SILENCE: Duration = Duration::from_secs(3);

/// A socket in the place of the service manager's.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
        Manager { socket, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("notify")
    }

    fn setup(&self) -> Setup {
        Setup::default().plugin("words").variable("NOTIFY_SOCKET", self.path())
    }

    /// The next message; `None` if there is none for a time.
    fn next(&self) -> Option<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).expect("text"))
    }

    /// The next message that is not about the watchdog.
    fn state(&self) -> String {
        eventually("the host tells of another state", || self.next().filter(|message| message != "WATCHDOG=1\n"))
    }

    fn beats(&self) {
        eventually("the host tells that its loop turns", || self.next().filter(|message| message == "WATCHDOG=1\n"));
    }
}

fn is_reload(message: &str) -> bool {
    let moment = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    moment.is_some_and(|moment| moment.trim_end().parse::<u64>().is_ok())
}

fn change(settings: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(settings).expect("settings");
    assert!(text.contains(from), "{text}");
    let new = settings.with_extension("new");
    std::fs::write(&new, text.replace(from, to)).expect("settings can be written");
    std::fs::rename(new, settings).expect("settings can be replaced");
}

fn settings_of(host: &Host) -> PathBuf {
    host.dir().join("wharf.toml")
}

#[test]
fn a_host_tells_that_it_is_ready_reads_its_settings_again_and_stops() {
    let manager = Manager::new();
    let setup = manager.setup().settings("[upkeep]\nkeep-failed = \"2h\"\n");
    let mut host = setup.start();
    assert_eq!(manager.state(), "READY=1\n");

    // Without a watchdog nothing more is told, also of a drain that stops nothing.
    let drained = host.cli(&["node", "drain"]).output().expect("the CLI runs");
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    assert_eq!(manager.next(), None);

    host.signal("-HUP");
    let reload = manager.state();
    assert!(is_reload(&reload), "{reload}");
    assert_eq!(manager.state(), "READY=1\n");
    // Without a signal, and refused: a reload all the same, which ends.
    for (from, to) in [("2h", "3h"), ("3h", "three")] {
        change(&settings_of(&host), from, to);
        let reload = manager.state();
        assert!(is_reload(&reload), "{reload}");
        assert_eq!(manager.state(), "READY=1\n");
    }
    eventually("the mistake is told", || host.said().contains("everything stays as it was").then_some(()));

    assert_eq!(host.terminate(), Some(0));
    assert_eq!(manager.state(), "STOPPING=1\n");
    assert_eq!(manager.next(), None);
}

#[test]
fn the_watchdog_is_told_of_each_turn_and_of_none_of_a_host_that_hangs() {
    let manager = Manager::new();
    let setup = manager.setup().variable("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let mut host = setup.start();
    assert_eq!(manager.state(), "READY=1\n");
    manager.beats();
    host.signal("-STOP");
    // What was sent before is read first.
    eventually("nothing more is told", || manager.next().is_none().then_some(()));
    assert_eq!(manager.next(), None, "it hangs, and says nothing");
    host.signal("-CONT");
    manager.beats();
    assert_eq!(host.terminate(), Some(0));
    assert_eq!(manager.state(), "STOPPING=1\n");
}

#[test]
fn a_watchdog_of_another_process_and_a_socket_that_is_gone_change_nothing() {
    let manager = Manager::new();
    let setup = manager.setup().variable("WATCHDOG_USEC", "900000").variable("WATCHDOG_PID", "1");
    let host = setup.start();
    assert_eq!(manager.state(), "READY=1\n");
    assert_eq!(manager.next(), None, "process 1 is meant");
    std::fs::remove_file(manager.path()).expect("the socket");
    host.signal("-HUP");
    eventually("it is told in the log", || host.said().contains("could not tell the service manager").then_some(()));
    assert_eq!(host.said().matches("could not tell the service manager").count(), 1, "{}", host.said());
    assert!(host.is_ready());
}
