//! A queue of lines for a reader that may be slow or gone. Adding a line never waits: lines that do not fit are dropped and
//! counted.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

/// The capacity of the queue, in bytes: seconds of a busy log.
const BYTES_MAX: usize = 1024 * 1024;
/// The pause before a terminal or pipe in non-blocking mode that is full is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// The destination of the lines. Its methods are called on a thread that no other thread waits for.
pub(super) trait Sink: Send + 'static {
    /// Writes as much as fits, as `io::Write` does.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Shows what is happening now; an empty message removes the display.
    fn show_progress(&mut self, message: &str);
    /// Reports that so many lines were dropped, now that writing works again.
    fn dropped(&mut self, lines: u64);
    /// Ends the output: nothing more will be written.
    fn done(&mut self);
}

/// The end of the queue at which lines are added. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct LineQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Locked to add and to take lines, never while something is written.
    queue: Mutex<Queue>,
    added: Condvar,
    written: Condvar,
    /// The number of lines that were dropped so far.
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// The latest progress message, if it was not shown yet; an empty one removes the display.
    progress: Option<String>,
    /// The progress display was removed for good.
    progress_ended: bool,
    /// The number of dropped lines that was not reported yet.
    dropped: u64,
    /// A line did not fit. Until the queue is empty, further lines are dropped as well, so that there is one gap and not many.
    full: bool,
    /// The last write failed: dropped lines can be reported once a write succeeds.
    broken: bool,
    writing: bool,
    /// No more lines will be added.
    closed: bool,
    /// Every line is written or dropped.
    ended: bool,
}

impl LineQueue {
    /// Starts the thread that writes to `sink`. Dropped lines are added to `dropped`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(sink: impl Sink, dropped: Counter) -> io::Result<LineQueue> {
        let (queue, added, written) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { queue, added, written, dropped });
        let own = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || own.write_all(sink))?;
        Ok(LineQueue(shared))
    }

    /// Adds text that ends with a newline, or drops it if it does not fit.
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

    /// Shows what is happening now, if the sink is a terminal.
    pub(super) fn show_progress(&self, message: String) {
        let mut queue = self.0.queue();
        if !queue.progress_ended {
            queue.progress = Some(message);
        }
        drop(queue);
        self.0.added.notify_one();
    }

    /// Removes the progress display for good.
    pub(super) fn end_progress(&self) {
        let mut queue = self.0.queue();
        (queue.progress_ended, queue.progress) = (true, Some(String::new()));
        drop(queue);
        self.0.added.notify_one();
    }

    /// Waits until everything is written, but no longer than `timeout`: the reader may have stopped.
    pub(super) fn close(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
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

/// The next step of the writing thread.
enum Next {
    Write(Vec<u8>),
    ShowProgress(String),
    ReportDropped(u64),
    End,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of the writing thread: writes everything that is queued, in one piece.
    fn write_all(&self, mut sink: impl Sink) {
        // The last write ended in the middle of a line.
        let mut torn = false;
        loop {
            match self.next() {
                Next::Write(bytes) => self.write(&bytes, &mut torn, &mut sink),
                Next::ShowProgress(message) => sink.show_progress(&message),
                // The sink logs it, so that it looks like any other line and comes back through this queue.
                Next::ReportDropped(lines) => sink.dropped(lines),
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
                return Next::ReportDropped(std::mem::take(&mut queue.dropped));
            }
            if let Some(message) = queue.progress.take() {
                return Next::ShowProgress(message);
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
        let mut result = if *torn { write_fully(&mut &b"\n"[..], sink) } else { Ok(()) };
        if result.is_ok() {
            result = write_fully(&mut left, sink);
            *torn = left.len() < bytes.len() && bytes[bytes.len() - left.len() - 1] != b'\n';
        }
        let mut queue = self.queue();
        queue.broken = result.is_err();
        queue.dropped += lines(left);
        self.dropped.inc_by(lines(left));
    }
}

/// Writes until nothing is left.
///
/// # Errors
/// When the sink fails; `left` is then what was not written.
fn write_fully(left: &mut &[u8], sink: &mut impl Sink) -> io::Result<()> {
    while !left.is_empty() {
        match sink.write(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => *left = &left[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
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

    /// A sink that takes lines only when the test lets it, and sends what it took to the test.
    struct Reader {
        may: Receiver<io::Result<usize>>,
        written: SyncSender<String>,
        lines: Arc<Mutex<Option<LineQueue>>>,
    }

    impl Sink for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.may.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.written.send(String::from_utf8_lossy(&bytes[..written]).into_owned()).unwrap();
            Ok(written)
        }

        fn show_progress(&mut self, message: &str) {
            self.written.send(format!("({message})")).unwrap();
        }

        fn dropped(&mut self, count: u64) {
            self.lines.lock().unwrap().as_ref().unwrap().add(format!("{count} dropped\n").as_bytes());
        }

        fn done(&mut self) {
            self.written.send("(done)".to_owned()).unwrap();
        }
    }

    fn reader() -> (LineQueue, Counter, mpsc::Sender<io::Result<usize>>, Receiver<String>) {
        let (allow, may) = mpsc::channel();
        let (written, received) = mpsc::sync_channel(1000);
        let (own, dropped) = (Arc::default(), Counter::default());
        let lines = LineQueue::start(Reader { may, written, lines: Arc::clone(&own) }, dropped.clone()).unwrap();
        *own.lock().unwrap() = Some(lines.clone());
        (lines, dropped, allow, received)
    }

    #[test]
    fn adding_never_waits_and_the_gap_is_reported_in_its_place() {
        let (lines, dropped, allow, received) = reader();
        lines.add(b"first\n");
        // The thread is writing the first line by now, or will be: nothing reads it.
        let line = [vec![b'x'; BYTES_MAX / 4 - 1], vec![b'\n']].concat();
        while dropped.get() == 0 {
            lines.add(&line);
        }
        lines.add(b"short, but too late\n");
        let lost = dropped.get();
        drop(allow);
        let mut all = String::new();
        let end = format!("{lost} dropped\n");
        while !all.ends_with(&end) {
            all.push_str(&received.recv().unwrap());
        }
        lines.add(b"later\n");
        assert_eq!(received.recv().unwrap(), "later\n");
        assert!(all.starts_with("first\nxxx") && !all.contains("too late"), "{}", &all[..20]);
        assert_eq!(dropped.get(), lost);
    }

    #[test]
    fn lost_lines_are_reported_once_writing_works_again() {
        let (lines, dropped, allow, received) = reader();
        for _ in 0..3 {
            lines.add(b"lost\n");
            allow.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
            // Each line is tried by itself: lines that were taken together would be lost together.
            lines.close_for_now();
        }
        assert_eq!(dropped.get(), 3);
        // Half of a line, and then nothing more of it.
        allow.send(Ok(2)).unwrap();
        allow.send(Err(ErrorKind::StorageFull.into())).unwrap();
        lines.add(b"half\n");
        assert_eq!(received.recv().unwrap(), "ha");
        lines.close_for_now();
        drop(allow);
        lines.add(b"heard\n");
        let next: Vec<String> = (0..3).map(|_| received.recv().unwrap()).collect();
        assert_eq!(next, ["\n", "heard\n", "4 dropped\n"]);
    }

    #[test]
    fn a_full_pipe_is_tried_again() {
        let (lines, dropped, allow, received) = reader();
        for answer in [Err(ErrorKind::WouldBlock.into()), Err(ErrorKind::Interrupted.into()), Ok(3)] {
            allow.send(answer).unwrap();
        }
        drop(allow);
        lines.add(b"whole\n");
        assert_eq!([received.recv().unwrap(), received.recv().unwrap()], ["who", "le\n"]);
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn the_end_waits_for_the_last_line_but_not_for_ever() {
        let (lines, _, allow, received) = reader();
        lines.add(b"last\n");
        lines.close(Duration::from_millis(20));
        assert!(received.try_recv().is_err(), "nothing reads, but the end came");
        drop(allow);
        lines.close(Duration::from_secs(60));
        assert_eq!(received.try_iter().collect::<Vec<_>>(), ["last\n", "(done)"]);
    }

    impl LineQueue {
        /// Waits until what was added is written or lost.
        fn close_for_now(&self) {
            let mut queue = self.0.queue();
            while queue.writing || !queue.bytes.is_empty() {
                queue = self.0.written.wait(queue).unwrap();
            }
        }
    }
}
