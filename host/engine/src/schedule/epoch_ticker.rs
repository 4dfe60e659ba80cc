//! The tick at which computing guests give way: one thread that advances every engine's epoch once a millisecond,
//! and sleeps while all threads that run guests do.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

use wasmtime::{Engine, EngineWeak};
use wharf_core::bounds;

/// Ticks without a thread at work before the thread goes to sleep: waking it for each of many short attempts would cost more.
const IDLE_TICKS_MAX: u32 = 100;

pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

struct Shared {
    /// Threads that run guests and are not asleep. Attempts are not counted: those that wait need no tick, and a count
    /// that every attempt changes on every thread costs each of them.
    at_work: AtomicUsize,
    asleep: AtomicBool,
    over: AtomicBool,
    /// Locked for a moment at each tick, and when an engine is made.
    engines: Mutex<Vec<EngineWeak>>,
}

impl Ticker {
    pub(crate) fn start() -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared {
            at_work: AtomicUsize::new(0),
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

    /// What a thread that runs guests does when it starts, and whenever it wakes.
    pub(crate) fn when_awake(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let (shared, thread) = (Arc::clone(&self.shared), self.thread.clone());
        move || {
            shared.at_work.fetch_add(1, Ordering::SeqCst);
            if shared.asleep.load(Ordering::SeqCst) && shared.asleep.swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
    }

    /// What it does before it goes to sleep, and when it is over.
    pub(crate) fn when_asleep(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let shared = Arc::clone(&self.shared);
        move || _ = shared.at_work.fetch_sub(1, Ordering::SeqCst)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.thread.unpark();
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
            idle = if self.at_work.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
            if idle > IDLE_TICKS_MAX {
                self.sleep();
                idle = 0;
            }
        }
    }

    /// Announces the sleep first and looks once more: a thread that wakes in between either sees the
    /// announcement and wakes this one, or is seen here.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.asleep.load(Ordering::SeqCst)
            && self.at_work.load(Ordering::SeqCst) == 0
            && !self.over.load(Ordering::SeqCst)
        {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}
