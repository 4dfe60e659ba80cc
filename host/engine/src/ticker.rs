//! The tick at which computing guests give way: one thread that advances every engine's epoch once a millisecond,
//! and sleeps while no attempt runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

use wasmtime::{Engine, EngineWeak};
use wharf_core::bounds;

/// Ticks without an attempt before the thread goes to sleep: waking it for each of many short attempts would cost more.
const IDLE_TICKS_MAX: u32 = 100;

pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

struct Shared {
    running: AtomicUsize,
    asleep: AtomicBool,
    over: AtomicBool,
    /// Locked for a moment at each tick, and when an engine is made.
    engines: Mutex<Vec<EngineWeak>>,
}

impl Ticker {
    pub(crate) fn start() -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            over: AtomicBool::new(false),
            engines: Mutex::new(Vec::new()),
        });
        let its = Arc::clone(&shared);
        let handle = thread::Builder::new().name("wharf-ticker".into()).spawn(move || its.run())?;
        Ok(Ticker { shared, thread: handle.thread().clone() })
    }

    pub(crate) fn add(&self, engine: &Engine) {
        self.shared.engines.lock().unwrap_or_else(PoisonError::into_inner).push(engine.weak());
    }

    /// Ticks while the answer lives.
    pub(crate) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        // Looked at first: to write what all threads look at costs each of them.
        if self.shared.asleep.load(Ordering::SeqCst) && self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// See [`Ticker::running`].
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self) {
        let mut idle = 0;
        while !self.over.load(Ordering::SeqCst) {
            thread::sleep(bounds::TICK);
            for engine in self.engines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                if let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                }
            }
            idle = if self.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
            if idle > IDLE_TICKS_MAX {
                self.sleep();
                idle = 0;
            }
        }
    }

    /// Announces the sleep first and looks once more: an attempt that begins in between either sees the
    /// announcement and wakes this thread, or is seen here.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.asleep.load(Ordering::SeqCst)
            && self.running.load(Ordering::SeqCst) == 0
            && !self.over.load(Ordering::SeqCst)
        {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}
