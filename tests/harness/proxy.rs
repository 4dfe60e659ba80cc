//! A way to a PostgreSQL on which things go wrong: an answer is lost, or nothing is said any more and nobody hears of it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

const SOCKET: &str = ".s.PGSQL.5432";

pub(crate) struct Proxy {
    address: String,
    faults: Arc<Faults>,
    _folder: tempfile::TempDir,
}

#[derive(Default)]
struct Faults {
    /// The next commit reaches the server and its answer reaches nobody.
    lose: AtomicBool,
    /// Nothing goes on from the moment when the next lock is asked for.
    hold_at_lock: AtomicBool,
    /// Nothing goes on, in either direction.
    held: Mutex<bool>,
    changed: Condvar,
}

impl Faults {
    fn hold(&self, held: bool) {
        *self.held.lock().expect("no panic while it is held") = held;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let held = self.held.lock().expect("no panic while it is held");
        drop(self.changed.wait_while(held, |held| *held).expect("no panic while it is held"));
    }
}

impl Proxy {
    /// Before the server whose sockets are in `dir`, in place of which `address` then names this one.
    pub(crate) fn before(dir: &Path, address: &str) -> Proxy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = |path: &Path| path.display().to_string().replace('/', "%2F");
        let address = address.replacen(&text(dir), &text(folder.path()), 1);
        let listener = UnixListener::bind(folder.path().join(SOCKET)).expect("a socket");
        let (faults, real) = (Arc::<Faults>::default(), dir.join(SOCKET));
        let kept = Arc::clone(&faults);
        std::thread::spawn(move || accept(&listener, &real, &kept));
        Proxy { address, faults, _folder: folder }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn lose_next_commit(&self) {
        self.faults.lose.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_lost(&self) -> bool {
        !self.faults.lose.load(Ordering::SeqCst)
    }

    pub(crate) fn hold(&self, held: bool) {
        self.faults.hold(held);
    }

    /// From the moment when the server is next asked for a lock, nobody hears more of whoever asked.
    pub(crate) fn hold_at_lock(&self) {
        self.faults.hold_at_lock.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_held(&self) -> bool {
        *self.faults.held.lock().expect("no panic while it is held")
    }
}

fn accept(listener: &UnixListener, real: &PathBuf, faults: &Arc<Faults>) {
    while let Ok((client, _)) = listener.accept() {
        // A server that is not there is one that hangs up.
        let Ok(server) = UnixStream::connect(real) else { continue };
        let losing = Arc::new(AtomicBool::new(false));
        let other_way = (server.try_clone(), client.try_clone());
        let (Ok(from_server), Ok(to_client)) = other_way else { continue };
        let (asked, answered) = (Arc::clone(faults), Arc::clone(faults));
        let lost = Arc::clone(&losing);
        std::thread::spawn(move || carry(client, server, &asked, |said| ask(&asked, &losing, said)));
        std::thread::spawn(move || carry(from_server, to_client, &answered, |said| answer(&answered, &lost, said)));
    }
}

/// What becomes of what was said.
enum Fate {
    Goes,
    GoesAndHolds,
    IsLost,
    Ends,
}

fn carry(mut from: UnixStream, mut to: UnixStream, faults: &Faults, fate: impl Fn(&[u8]) -> Fate) {
    let mut room = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut room) {
        faults.wait();
        let said = &room[..read];
        let goes_on = match fate(said) {
            Fate::Goes => to.write_all(said).is_ok(),
            Fate::GoesAndHolds => {
                let sent = to.write_all(said).is_ok();
                faults.hold(true);
                sent
            }
            Fate::IsLost => true,
            Fate::Ends => false,
        };
        if !goes_on {
            break;
        }
    }
    // Who is gone is gone for both.
    _ = from.shutdown(Shutdown::Both);
    _ = to.shutdown(Shutdown::Both);
}

fn says(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn ask(faults: &Faults, losing: &AtomicBool, said: &[u8]) -> Fate {
    if faults.lose.load(Ordering::SeqCst) && says(said, b"COMMIT\0") {
        losing.store(true, Ordering::SeqCst);
    }
    if says(said, b"pg_advisory_xact_lock") && faults.hold_at_lock.swap(false, Ordering::SeqCst) {
        return Fate::GoesAndHolds;
    }
    Fate::Goes
}

fn answer(faults: &Faults, losing: &AtomicBool, said: &[u8]) -> Fate {
    if !losing.load(Ordering::SeqCst) {
        return Fate::Goes;
    }
    if says(said, b"COMMIT\0") {
        faults.lose.store(false, Ordering::SeqCst);
        return Fate::Ends;
    }
    Fate::IsLost
}
