//! The engine: loads plugins and calls them.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use wasmtime::component::Linker;
use wharf_core::bounds;
use wharf_core::outcome::{Bill, Interruption, Outcome};

use crate::cache::Cache;
use crate::call::{Attending, Call, Ended};
use crate::compile::Compile;
use crate::control::{Control, Ending};
use crate::imports;
use crate::plugin::Plugin;
use crate::pool::{self, Kind, Pool};
use crate::run::Run;
use crate::sandbox::Sandbox;
use crate::ticker::Ticker;

/// What an engine is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Attempts at once; the engine takes fewer where it cannot have so many.
    pub attempts: u32,
    /// Threads that run guests.
    pub guest_threads: usize,
    /// Where compiled plugins are kept.
    pub cache_dir: PathBuf,
    pub compile: Compile,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[error("the engine cannot be started: {0}")]
pub struct EngineError(String);

/// Runs guests on threads of its own. The clocks that end them, and their HTTP requests, are on the runtime on which
/// the engine was made: a guest that computes never delays those. A guest's own sleep ends on the guests' threads.
pub struct Engine {
    pub(crate) cache: Cache,
    pub(crate) compile: Compile,
    /// Held while a component is compiled.
    pub(crate) compiling: Semaphore,
    /// Held while a plugin describes itself.
    pub(crate) describing: Semaphore,
    pub(crate) home: Handle,
    sync: Side,
    /// Made when the first plugin needs it.
    concurrent: OnceLock<Result<Side, String>>,
    ticker: Ticker,
    permits: Arc<Semaphore>,
    capacity: u32,
    /// Told whenever an attempt left its sandbox.
    room: Notify,
    /// Taken out when dropped, and only then.
    guests: Option<Runtime>,
}

/// One of the two wasmtime engines, with what plugins may import.
pub(crate) struct Side {
    pub(crate) pool: Pool,
    pub(crate) linker: Linker<Sandbox>,
}

/// How often an attempt looks again for room in the pool, when none was told.
const ROOM_EVERY: Duration = Duration::from_millis(5);
/// After so many looks something else is wrong.
pub(crate) const ROOM_LOOKS_MAX: u32 = 6000;
/// Files that guests read and write are read and written on threads of these.
const FILE_THREADS_MAX: usize = 32;

impl Side {
    fn make(kind: Kind, attempts: u32, ticker: &Ticker) -> wasmtime::Result<Side> {
        let pool = pool::pool(kind, attempts)?;
        ticker.add(&pool.engine);
        let linker = imports::linker(&pool.engine)?;
        Ok(Side { pool, linker })
    }
}

impl Engine {
    /// Made on the runtime that is to be its home.
    ///
    /// # Errors
    /// When the cache folder, the threads or wasmtime itself cannot be had.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(settings: Settings) -> Result<Arc<Engine>, EngineError> {
        let wanted = settings.attempts.clamp(1, bounds::ATTEMPTS_MAX);
        let cache = Cache::open(&settings.cache_dir).map_err(EngineError)?;
        let ticker =
            Ticker::start().map_err(|error| EngineError(format!("its ticking thread cannot be had: {error}")))?;
        let sync = Side::make(Kind::Sync, wanted, &ticker).map_err(|error| EngineError(format!("{error:#}")))?;
        let capacity = sync.pool.attempts;
        if capacity < wanted {
            tracing::warn!(
                wanted,
                capacity,
                pooled = sync.pool.pooled,
                "fewer attempts at once than wanted: this machine does not give the address space"
            );
        }
        let guests = Builder::new_multi_thread()
            .worker_threads(settings.guest_threads.max(1))
            .max_blocking_threads(FILE_THREADS_MAX)
            .thread_name("wharf-guest")
            // A guest's turn may last a whole tick: after a few of them its fellows' timers and arrivals are looked at.
            .event_interval(4)
            .global_queue_interval(2)
            .enable_all()
            .build()
            .map_err(|error| EngineError(format!("threads for guests cannot be had: {error}")))?;
        Ok(Arc::new(Engine {
            cache,
            compile: settings.compile,
            compiling: Semaphore::new(bounds::COMPILES_AT_ONCE),
            describing: Semaphore::new(pool::DESCRIBING_MAX as usize),
            home: Handle::current(),
            sync,
            concurrent: OnceLock::new(),
            ticker,
            permits: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
            room: Notify::new(),
            guests: Some(guests),
        }))
    }

    /// Attempts at once.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// # Errors
    /// When the engine for concurrent components cannot be had.
    pub(crate) fn side(&self, kind: Kind) -> Result<&Side, String> {
        match kind {
            Kind::Sync => Ok(&self.sync),
            Kind::Async => {
                let make =
                    || Side::make(Kind::Async, self.capacity, &self.ticker).map_err(|error| format!("{error:#}"));
                self.concurrent.get_or_init(make).as_ref().map_err(Clone::clone)
            }
        }
    }

    /// Runs `future` where guests run, with the tick on.
    pub(crate) fn spawn_guest<F>(self: &Arc<Self>, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let engine = Arc::clone(self);
        let guests = self.guests.as_ref().expect("taken only when dropped");
        guests.spawn(async move {
            let ticking = engine.ticker.running();
            let output = future.await;
            drop(ticking);
            output
        })
    }

    /// Runs one attempt. Dropping the answer ends it.
    ///
    /// Permits are taken before the sandbox is made, as many as it is ordinary ones in size, and the attempt's clocks
    /// begin when it is made: waiting for room is no attempt's fault and costs none.
    pub fn call(
        self: &Arc<Self>,
        plugin: Arc<Plugin>,
        call: Call,
        attending: Arc<dyn Attending>,
        control: Control,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let engine = Arc::clone(self);
        async move {
            if let Some(deadline) = call.allowance.deadline {
                control.trust_at_first(deadline);
            }
            let asked = Instant::now();
            let permit = tokio::select! {
                biased;
                permit = Arc::clone(&engine.permits).acquire_many_owned(plugin.weight.min(engine.capacity)) => permit.expect("never closed"),
                () = control.given_up() => return never_began(&control, asked),
            };
            let began = Instant::now();
            let allowance = call.allowance.clone();
            let abandoned = EndWhenDropped(Some(control.clone()));
            let run = Run { plugin, call, attending, control: control.clone(), home: engine.home.clone(), began };
            let mut guest = engine.spawn_guest(Arc::clone(&engine).attempt(run, permit));
            let joined = tokio::select! {
                biased;
                joined = &mut guest => joined,
                () = control.watch(&allowance) => guest.await,
            };
            abandoned.not();
            joined.unwrap_or_else(|error| {
                let why = format!("the host failed under the attempt, which is a bug of the host: {error}");
                Ended {
                    outcome: Outcome::Interrupted(Interruption::Host, why),
                    bill: billed(began),
                    sandbox: Duration::ZERO,
                }
            })
        }
    }

    /// Waits until there may be room in the pool.
    pub(crate) async fn wait_for_room(&self) {
        let _ = tokio::time::timeout(ROOM_EVERY, self.room.notified()).await;
    }

    /// Someone left the pool.
    pub(crate) fn tell_room(&self) {
        self.room.notify_waiters();
    }

    async fn attempt(self: Arc<Self>, mut run: Run, permit: OwnedSemaphorePermit) -> Ended {
        for _ in 0..ROOM_LOOKS_MAX {
            run.began = run.control.begin();
            if let Ok(ended) = run.once().await {
                drop(permit);
                self.tell_room();
                return ended;
            }
            run.control.wait_for_room();
            self.wait_for_room().await;
            match run.control.ending() {
                None => {}
                Some(Ending::Cancelled) => return run.ended(Outcome::Cancelled, Bill::default()),
                Some(Ending::Stopped(why, report)) => {
                    return run.ended(Outcome::Interrupted(*why, report.clone()), Bill::default());
                }
                // A clock that ran out while nothing ran is not the attempt's fault.
                Some(_) => break,
            }
        }
        let why =
            "no sandbox could be had in time: other attempts hold all memories and tables; set fewer attempts at once"
                .to_owned();
        run.ended(Outcome::Interrupted(Interruption::Host, why), Bill::default())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(guests) = self.guests.take() {
            guests.shutdown_background();
        }
    }
}

fn billed(began: Instant) -> Bill {
    Bill { wall: began.elapsed(), ..Bill::default() }
}

fn never_began(control: &Control, asked: Instant) -> Ended {
    let outcome = match control.ending() {
        Some(Ending::Stopped(why, report)) => Outcome::Interrupted(*why, report.clone()),
        _ => Outcome::Cancelled,
    };
    Ended { outcome, bill: billed(asked), sandbox: Duration::ZERO }
}

/// Ends an attempt that nobody waits for any more.
struct EndWhenDropped(Option<Control>);

impl EndWhenDropped {
    fn not(mut self) {
        self.0 = None;
    }
}

impl Drop for EndWhenDropped {
    fn drop(&mut self) {
        if let Some(control) = &self.0 {
            control.stop(Interruption::Host, "nobody waits for this attempt any more".to_owned());
        }
    }
}
