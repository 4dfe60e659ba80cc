//! Lines on their way to somebody who may be slow, or gone. Who adds one never waits: what finds no room is dropped and counted.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

/// So much may wait: seconds of a log at its loudest.
const BYTES_MAX: usize = 1024 * 1024;
/// The other end is a terminal or a pipe that does not block, and has no room now.
const LATER: Duration = Duration::from_millis(5);

/// Where lines go in the end, on a thread that nobody waits for.
pub(super) trait Sink: Send + 'static {
    /// Writes as much as fits, as `io::Write` does.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// What is under way now, for people who look on; empty where nothing is any more.
    fn under_way(&mut self, what: &str);
    /// All went out, and so many lines before were dropped.
    fn dropped(&mut self, lines: u64);
    /// There will be no more.
    fn done(&mut self);
}

/// The end at which lines are added. Copies are the same queue.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Locked to add and to take, never while something is written.
    queue: Mutex<Queue>,
    added: Condvar,
    written: Condvar,
    /// All that were ever dropped.
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// The latest; those before it need not be seen. Empty where nothing is under way any more.
    under_way: Option<String>,
    complete: bool,
    /// Lines that were dropped and not told of yet.
    dropped: u64,
    /// There was no room. What comes until all that waits is written is dropped too, so that there is one gap and not many.
    full: bool,
    /// The last write failed: that lines were dropped can be told once one succeeds.
    broken: bool,
    writing: bool,
    /// There will be no more.
    closed: bool,
    /// All that there was is written or dropped.
    ended: bool,
}

impl Lines {
    /// # Errors
    /// When no thread can be started.
    pub(super) fn to(sink: impl Sink, dropped: Counter) -> io::Result<Lines> {
        let (queue, added, written) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { queue, added, written, dropped });
        let own = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || own.carry(sink))?;
        Ok(Lines(shared))
    }

    /// Adds text that ends with a newline, or drops it.
    pub(super) fn add(&self, text: &[u8]) {
        let mut queue = self.0.queue();
        if queue.full || queue.bytes.len() + text.len() > BYTES_MAX {
            queue.full = true;
            queue.dropped += lines(text);
            self.0.dropped.inc_by(lines(text));
        } else {
            queue.bytes.extend_from_slice(text);
        }
        drop(queue);
        self.0.added.notify_one();
    }

    /// Shows what is under way, if somebody looks on.
    pub(super) fn under_way(&self, what: String) {
        let mut queue = self.0.queue();
        if !queue.complete {
            queue.under_way = Some(what);
        }
        drop(queue);
        self.0.added.notify_one();
    }

    /// Nothing will be under way any more: from here on there are lines alone.
    pub(super) fn complete(&self) {
        let mut queue = self.0.queue();
        (queue.complete, queue.under_way) = (true, Some(String::new()));
        drop(queue);
        self.0.added.notify_one();
    }

    /// Waits until all is written, but no longer than `patience`: whoever should read it may have stopped.
    pub(super) fn close(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut queue = self.0.queue();
        queue.closed = true;
        self.0.added.notify_one();
        while !queue.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.0.written.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What the carrier does next.
enum Next {
    Write(Vec<u8>),
    Show(String),
    Tell(u64),
    End,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread does: writes whatever there is, all of it at once.
    fn carry(&self, mut sink: impl Sink) {
        // The last line ended in its middle.
        let mut torn = false;
        loop {
            match self.next() {
                Next::Write(bytes) => self.write(&bytes, &mut torn, &mut sink),
                Next::Show(what) => sink.under_way(&what),
                // By way of the log itself, so that it looks like any other line: it is added here.
                Next::Tell(lines) => sink.dropped(lines),
                Next::End => {
                    sink.done();
                    self.queue().ended = true;
                    self.written.notify_all();
                    return;
                }
            }
        }
    }

    fn next(&self) -> Next {
        let mut queue = self.queue();
        queue.writing = false;
        loop {
            if !queue.bytes.is_empty() {
                queue.writing = true;
                return Next::Write(std::mem::take(&mut queue.bytes));
            }
            queue.full = false;
            if queue.dropped > 0 && !queue.broken {
                return Next::Tell(std::mem::take(&mut queue.dropped));
            }
            if let Some(what) = queue.under_way.take() {
                return Next::Show(what);
            }
            if queue.closed {
                return Next::End;
            }
            self.written.notify_all();
            queue = self.added.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&self, bytes: &[u8], torn: &mut bool, sink: &mut impl Sink) {
        let mut left = bytes;
        let mut result = if *torn { all(&mut &b"\n"[..], sink) } else { Ok(()) };
        if result.is_ok() {
            result = all(&mut left, sink);
            *torn = left.len() < bytes.len() && bytes[bytes.len() - left.len() - 1] != b'\n';
        }
        let mut queue = self.queue();
        queue.broken = result.is_err();
        queue.dropped += lines(left);
        self.dropped.inc_by(lines(left));
    }
}

/// Writes until nothing is left, or says why not.
fn all(left: &mut &[u8], sink: &mut impl Sink) -> io::Result<()> {
    while !left.is_empty() {
        match sink.write(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => *left = &left[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LATER),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn lines(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, SyncSender};

    use super::*;

    /// Somebody who takes what comes only as often as the test lets it, and says so.
    struct Reader {
        may: Receiver<io::Result<usize>>,
        heard: SyncSender<String>,
        lines: Arc<Mutex<Option<Lines>>>,
    }

    impl Sink for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.may.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.heard.send(String::from_utf8_lossy(&bytes[..written]).into_owned()).unwrap();
            Ok(written)
        }

        fn under_way(&mut self, what: &str) {
            self.heard.send(format!("({what})")).unwrap();
        }

        fn dropped(&mut self, count: u64) {
            self.lines.lock().unwrap().as_ref().unwrap().add(format!("{count} dropped\n").as_bytes());
        }

        fn done(&mut self) {
            self.heard.send("(done)".to_owned()).unwrap();
        }
    }

    fn reader() -> (Lines, Counter, mpsc::Sender<io::Result<usize>>, Receiver<String>) {
        let (let_it, may) = mpsc::channel();
        let (heard, hears) = mpsc::sync_channel(1000);
        let (own, dropped) = (Arc::default(), Counter::default());
        let lines = Lines::to(Reader { may, heard, lines: Arc::clone(&own) }, dropped.clone()).unwrap();
        *own.lock().unwrap() = Some(lines.clone());
        (lines, dropped, let_it, hears)
    }

    #[test]
    fn who_adds_never_waits_and_the_gap_is_told_where_it_is() {
        let (lines, dropped, let_it, hears) = reader();
        lines.add(b"first\n");
        // It is in the middle of the first by now, or will be: nobody reads.
        let line = [vec![b'x'; BYTES_MAX / 4 - 1], vec![b'\n']].concat();
        while dropped.get() == 0 {
            lines.add(&line);
        }
        lines.add(b"short, and too late all the same\n");
        let lost = dropped.get();
        drop(let_it);
        let mut all = String::new();
        let end = format!("{lost} dropped\n");
        while !all.ends_with(&end) {
            all.push_str(&hears.recv().unwrap());
        }
        lines.add(b"later\n");
        assert_eq!(hears.recv().unwrap(), "later\n");
        assert!(all.starts_with("first\nxxx") && !all.contains("too late"), "{}", &all[..20]);
        assert_eq!(dropped.get(), lost);
    }

    #[test]
    fn who_is_gone_is_told_how_much_was_lost_once_somebody_hears_again() {
        let (lines, dropped, let_it, hears) = reader();
        for _ in 0..3 {
            lines.add(b"lost\n");
            let_it.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
            // Each is tried for itself: the lines of a queue that was taken whole would be lost together.
            lines.close_for_now();
        }
        assert_eq!(dropped.get(), 3);
        // Half of a line, and then nothing more of it.
        let_it.send(Ok(2)).unwrap();
        let_it.send(Err(ErrorKind::StorageFull.into())).unwrap();
        lines.add(b"half\n");
        assert_eq!(hears.recv().unwrap(), "ha");
        lines.close_for_now();
        drop(let_it);
        lines.add(b"heard\n");
        let next: Vec<String> = (0..3).map(|_| hears.recv().unwrap()).collect();
        assert_eq!(next, ["\n", "heard\n", "4 dropped\n"]);
    }

    #[test]
    fn what_has_no_room_now_is_tried_again() {
        let (lines, dropped, let_it, hears) = reader();
        for answer in [Err(ErrorKind::WouldBlock.into()), Err(ErrorKind::Interrupted.into()), Ok(3)] {
            let_it.send(answer).unwrap();
        }
        drop(let_it);
        lines.add(b"whole\n");
        assert_eq!([hears.recv().unwrap(), hears.recv().unwrap()], ["who", "le\n"]);
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn the_end_waits_for_the_last_line_but_not_for_ever() {
        let (lines, _, let_it, hears) = reader();
        lines.add(b"last\n");
        lines.close(Duration::from_millis(20));
        assert!(hears.try_recv().is_err(), "nobody reads, and the end came all the same");
        drop(let_it);
        lines.close(Duration::from_secs(60));
        assert_eq!(hears.try_iter().collect::<Vec<_>>(), ["last\n", "(done)"]);
    }

    impl Lines {
        /// Waits until what was added is written or lost.
        fn close_for_now(&self) {
            let mut queue = self.0.queue();
            while queue.writing || !queue.bytes.is_empty() {
                queue = self.0.written.wait(queue).unwrap();
            }
        }
    }
}
