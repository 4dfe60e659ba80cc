//! The tick at which computing guests yield: one thread that advances every engine's epoch once a millisecond, and
//! sleeps while all threads that run guests do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

use wasmtime::{Engine, EngineWeak};
use wharf_core::bounds;

/// Ticks without a working thread before the ticker sleeps: waking it for each of many short attempts would cost more.
const IDLE_TICKS_MAX: u32 = 100;

/// The ticker thread. Dropping this stops it.
pub(crate) struct Ticker {
    shared: Arc<Inner>,
    thread: Thread,
}

struct Inner {
    /// Number of threads that run guests and are not parked. Attempts are not counted: those that wait need no tick,
    /// and a count that every attempt changes on every thread costs each of them.
    awake_threads: AtomicUsize,
    asleep: AtomicBool,
    stopped: AtomicBool,
    /// Locked for a moment at each tick, and when an engine is made.
    engines: Mutex<Vec<EngineWeak>>,
}

impl Ticker {
    /// Starts the ticker thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start() -> std::io::Result<Ticker> {
        let shared = Arc::new(Inner {
            awake_threads: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            engines: Mutex::new(Vec::new()),
        });
        let its = Arc::clone(&shared);
        let handle = thread::Builder::new().name("wharf-ticker".into()).spawn(move || its.run())?;
        Ok(Ticker { shared, thread: handle.thread().clone() })
    }

    /// Advances the epoch of this engine, too, from now on.
    pub(crate) fn add(&self, engine: &Engine) {
        self.shared.engines.lock().unwrap_or_else(PoisonError::into_inner).push(engine.weak());
    }

    /// Returns what a thread that runs guests calls when it starts, and whenever it wakes.
    pub(crate) fn on_thread_awake(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let (shared, thread) = (Arc::clone(&self.shared), self.thread.clone());
        move || {
            shared.awake_threads.fetch_add(1, Ordering::SeqCst);
            if shared.asleep.load(Ordering::SeqCst) && shared.asleep.swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
    }

    /// Returns what a thread that runs guests calls before it parks, and when it stops.
    pub(crate) fn on_thread_asleep(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let shared = Arc::clone(&self.shared);
        move || _ = shared.awake_threads.fetch_sub(1, Ordering::SeqCst)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Inner {
    fn run(&self) {
        let mut idle = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            thread::sleep(bounds::TICK);
            for engine in self.engines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                if let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                }
            }
            idle = if self.awake_threads.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
            if idle > IDLE_TICKS_MAX {
                self.sleep();
                idle = 0;
            }
        }
    }

    /// Announces the sleep first and checks once more: a thread that wakes in between either sees the announcement and
    /// wakes the ticker, or is seen here.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.asleep.load(Ordering::SeqCst)
            && self.awake_threads.load(Ordering::SeqCst) == 0
            && !self.stopped.load(Ordering::SeqCst)
        {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}
