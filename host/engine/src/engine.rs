//! The engine: loads plugins and calls them.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use wasmtime::component::Linker;
use wharf_core::bounds;
use wharf_core::outcome::{Bill, Interruption, Outcome};

use crate::attempt::run::{self, Run};
use crate::call::{AttemptEnd, Call, CallInput, HostCalls};
use crate::compile::cache::Cache;
use crate::compile::child::Compile;
use crate::compile::dedup::Alike;
use crate::plugin::Plugin;
use crate::sandbox::imports;
use crate::sandbox::state::Sandbox;
use crate::schedule::attempt_handle::{AttemptHandle, Ending};
use crate::schedule::completion_batch;
use crate::schedule::epoch_ticker::Ticker;
use crate::schedule::guest_threads::{AmongOthers, Threads};
use crate::schedule::permits::{Permit, PermitPool, PermitPools, Sizes};
use crate::schedule::watchdog::Watch;
use crate::spec::problem::Problem;
use crate::wasmtime_config::{self, Kind, Pool};

/// What an engine is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Attempts at once; the engine takes fewer where it cannot have so many.
    pub attempts: u32,
    /// Subscribers that broadcasts call at once, in sandboxes besides those of attempts: as many at depth 1, half as many
    /// at each further depth. They become fewer as attempts do.
    pub broadcast_calls: u32,
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
    pub(crate) alike: Alike,
    sync: Side,
    /// Made when the first plugin needs it.
    concurrent: OnceLock<Result<Side, String>>,
    ticker: Arc<Ticker>,
    shares: PermitPools,
    /// Sandboxes of all shares.
    sandboxes: u32,
    /// Told whenever an attempt left its sandbox and others wait for that.
    room: Notify,
    want_room: AtomicUsize,
    guests: Threads,
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

impl Side {
    fn make(kind: Kind, sandboxes: u32, ticker: &Ticker) -> wasmtime::Result<Side> {
        let pool = wasmtime_config::pool(kind, sandboxes)?;
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
        let cache = Cache::open(&settings.cache_dir).map_err(EngineError)?;
        let ticker = Ticker::start()
            .map(Arc::new)
            .map_err(|error| EngineError(format!("its ticking thread cannot be had: {error}")))?;
        let wanted = Sizes::wanted(settings.attempts, settings.broadcast_calls);
        let sync = Side::make(Kind::Sync, wanted.sum(), &ticker).map_err(|error| EngineError(format!("{error:#}")))?;
        let sandboxes = sync.pool.sandboxes;
        let shares = PermitPools::new(&wanted.within(sandboxes));
        if sandboxes < wanted.sum() {
            tracing::warn!(
                wanted = wanted.sum(),
                sandboxes,
                attempts = shares.size(PermitPool::Jobs),
                pooled = sync.pool.pooled,
                "fewer attempts and broadcasts at once than wanted: this machine does not give the address space"
            );
        }
        let guests = Threads::start(settings.guest_threads.max(1), &ticker)
            .map_err(|error| EngineError(format!("threads for guests cannot be had: {error}")))?;
        Ok(Arc::new(Engine {
            cache,
            compile: settings.compile,
            compiling: Semaphore::new(bounds::COMPILES_AT_ONCE),
            describing: Semaphore::new(wasmtime_config::DESCRIBING_MAX as usize),
            home: Handle::current(),
            alike: Alike::default(),
            sync,
            concurrent: OnceLock::new(),
            ticker,
            shares,
            sandboxes,
            room: Notify::new(),
            want_room: AtomicUsize::new(0),
            guests,
        }))
    }

    /// Threads that run guests.
    pub fn guest_threads(&self) -> usize {
        self.guests.count()
    }

    /// Attempts at once.
    pub fn capacity(&self) -> u32 {
        self.capacity_of(PermitPool::Jobs)
    }

    /// Ordinary sandboxes of a share at once.
    pub fn capacity_of(&self, share: PermitPool) -> u32 {
        self.shares.size(share)
    }

    /// # Errors
    /// When the engine for concurrent components cannot be had.
    pub(crate) fn side(&self, kind: Kind) -> Result<&Side, String> {
        match kind {
            Kind::Sync => Ok(&self.sync),
            Kind::Async => {
                let make =
                    || Side::make(Kind::Async, self.sandboxes, &self.ticker).map_err(|error| format!("{error:#}"));
                self.concurrent.get_or_init(make).as_ref().map_err(Clone::clone)
            }
        }
    }

    /// The same, for its plugin's author. Made for the first plugin that needs it, which takes a moment.
    ///
    /// # Errors
    /// As [`Engine::side`].
    pub(crate) fn side_for(&self, kind: Kind) -> Result<&Side, Problem> {
        self.side(kind).map_err(|why| Problem::new(why).within("the engine for concurrent components cannot be had"))
    }

    /// The engine for which components are compiled: what it fits, the other fits too.
    pub(crate) fn compiler(&self) -> &wasmtime::Engine {
        &self.sync.pool.engine
    }

    /// Runs `future` where guests run.
    pub(crate) fn spawn_guest<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.guests.spawn(future)
    }

    /// Waits for room for one sandbox: as many permits of its share as it is ordinary ones in size.
    /// Waiting is no attempt's fault and costs none: its clocks begin when it has started.
    pub fn admit(self: &Arc<Self>, share: PermitPool, plugin: &Plugin) -> impl Future<Output = Permit> + Send + use<> {
        self.shares.admit(share, plugin.weight)
    }

    /// Runs one attempt, on the threads that run guests. `ended` is called there, exactly once, also if the host fails
    /// under the attempt; it must not wait. `control` is the only way to end it from outside.
    pub fn start(
        self: &Arc<Self>,
        admission: Permit,
        plugin: Arc<Plugin>,
        call: Call,
        attending: Arc<dyn HostCalls>,
        control: AttemptHandle,
        ended: impl FnOnce(AttemptEnd) + Send + 'static,
    ) {
        if let Some(deadline) = call.limits.deadline {
            control.trust_at_first(deadline);
        }
        let engine = Arc::clone(self);
        drop(self.guests.spawn(async move {
            let began = Instant::now();
            let Call { asked, limits } = call;
            let run = Run { plugin, given: asked.into(), limits, attending, control: control.clone() };
            let its = Arc::clone(&engine);
            // In a box of its own, which the thread that runs it makes and takes back: what is handed over stays small.
            let attempt = Box::pin(async move {
                let attempt = AssertUnwindSafe(its.attempt(&run, admission)).catch_unwind();
                let end = attempt.await.unwrap_or_else(|panic| failed(began, &*panic));
                // Whoever hears of the end finds nothing of the attempt left.
                drop(run);
                completion_batch::hold(move || ended(end));
            });
            AmongOthers { threads: &engine.guests, attempt: Some(attempt), control }.await;
        }));
    }

    /// Runs one attempt of a job or of a broadcast at depth 1, and waits for it. Dropping the answer ends it.
    pub fn call(
        self: &Arc<Self>,
        plugin: Arc<Plugin>,
        call: Call,
        attending: Arc<dyn HostCalls>,
        control: AttemptHandle,
    ) -> impl Future<Output = AttemptEnd> + Send + use<> {
        let engine = Arc::clone(self);
        async move {
            if let Some(deadline) = call.limits.deadline {
                control.trust_at_first(deadline);
            }
            let asked = Instant::now();
            let share = match call.asked {
                CallInput::Job { .. } => PermitPool::Jobs,
                CallInput::Message { .. } => PermitPool::Broadcasts { depth: 1 },
            };
            let admission = tokio::select! {
                biased;
                admission = engine.admit(share, &plugin) => admission,
                () = control.given_up() => return never_began(&control, asked),
            };
            let abandoned = EndWhenDropped(Some(control.clone()));
            let (tell, told) = oneshot::channel();
            engine.start(admission, plugin, call, attending, control, move |ended| drop(tell.send(ended)));
            let ended = told.await.expect("`start` tells exactly once");
            abandoned.not();
            ended
        }
    }

    /// Waits until there may be room in the pool.
    pub(crate) async fn wait_for_room(&self) {
        let look_again = {
            let _home = self.home.enter();
            tokio::time::sleep(ROOM_EVERY)
        };
        let _counted = Wants::room(&self.want_room);
        // Who left before this was counted did not tell; for that there is the other look.
        tokio::select! {
            () = self.room.notified() => {}
            () = look_again => {}
        }
    }

    /// Someone left the pool.
    pub(crate) fn tell_room(&self) {
        if self.want_room.load(Ordering::SeqCst) > 0 {
            self.room.notify_waiters();
        }
    }

    async fn attempt(&self, run: &Run, admission: Permit) -> AttemptEnd {
        let Run { control, limits, .. } = run;
        let watch = Watch::new(&self.home, control, limits);
        let mut began = control.begin();
        for _ in 0..ROOM_LOOKS_MAX {
            if let Ok(ended) = run.once(began, &watch).await {
                drop(admission);
                self.tell_room();
                return ended;
            }
            control.wait_for_room();
            watch.begin();
            self.wait_for_room().await;
            match control.ending() {
                None => {}
                Some(Ending::Cancelled) => return run::ended(began, Outcome::Cancelled, Bill::default()),
                Some(Ending::Stopped(why, report)) => {
                    let outcome = Outcome::Interrupted(*why, report.clone());
                    return run::ended(began, outcome, Bill::default());
                }
                // A clock that ran out while nothing ran is not the attempt's fault.
                Some(_) => break,
            }
            began = control.begin();
        }
        let why =
            "no sandbox could be had in time: other attempts hold all memories and tables; set fewer attempts at once"
                .to_owned();
        run::ended(began, Outcome::Interrupted(Interruption::Host, why), Bill::default())
    }
}

fn failed(began: Instant, panic: &(dyn Any + Send)) -> AttemptEnd {
    let why = format!("the host failed under the attempt, which is a bug of the host: {}", said(panic));
    AttemptEnd {
        outcome: Outcome::Interrupted(Interruption::Host, why),
        bill: Bill { wall: began.elapsed(), ..Bill::default() },
        sandbox: Duration::ZERO,
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it said nothing")
}

fn never_began(control: &AttemptHandle, asked: Instant) -> AttemptEnd {
    let outcome = match control.ending() {
        Some(Ending::Stopped(why, report)) => Outcome::Interrupted(*why, report.clone()),
        _ => Outcome::Cancelled,
    };
    AttemptEnd { outcome, bill: Bill { wall: asked.elapsed(), ..Bill::default() }, sandbox: Duration::ZERO }
}

/// One that waits for room, while this lives.
struct Wants<'a>(&'a AtomicUsize);

impl Wants<'_> {
    fn room(waiting: &AtomicUsize) -> Wants<'_> {
        waiting.fetch_add(1, Ordering::SeqCst);
        Wants(waiting)
    }
}

impl Drop for Wants<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ends an attempt that nobody waits for any more.
struct EndWhenDropped(Option<AttemptHandle>);

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
