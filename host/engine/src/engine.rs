//! The engine: its settings, its parts, and how it runs attempts. `load.rs` adds how it loads plugins.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use wasmtime::component::Linker;
use wharf_core::bounds;
use wharf_core::outcome::{Interruption, Outcome, Usage};

use crate::attempt::end::AttemptEnd;
use crate::attempt::run::{self, Run, SandboxMemory};
use crate::call::{Call, CallInput, HostCalls};
use crate::compile::cache::Cache;
use crate::compile::cache_folder::CacheSettings;
use crate::compile::child_process::Compile;
use crate::compile::dedup::LinkedCache;
use crate::plugin::Plugin;
use crate::sandbox::imports;
use crate::sandbox::plugin_env::HostEnv;
use crate::sandbox::secrets::mask::SharedMasks;
use crate::sandbox::store_data::Sandbox;
use crate::sandbox::trusted_roots;
use crate::schedule::attempt_handle::{AttemptHandle, EndReason};
use crate::schedule::budget::Budget;
use crate::schedule::completion_batch;
use crate::schedule::epoch_ticker::Ticker;
use crate::schedule::guest_threads::{GuestThreads, OrdinaryAttempt};
use crate::schedule::permits::{Permit, PermitPool, PermitPools, PoolSizes, SandboxCost};
use crate::schedule::watchdog::Watchdog;
use crate::spec::problem::Problem;
use crate::wasmtime_config::{self, EngineKind, Pool};

/// The settings of an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of attempts that may run at once. The engine takes fewer where the machine does not have the address
    /// space.
    pub attempts: u32,
    /// Number of subscribers that broadcasts may call at once at depth 1, in sandboxes besides those of attempts. Each
    /// further depth has half as many. They are reduced together with `attempts`.
    pub broadcast_calls: u32,
    /// Number of threads that run guests.
    pub guest_threads: usize,
    /// The cache of compiled plugins.
    pub cache: CacheSettings,
    /// The process in which components are read and compiled.
    pub compile: Compile,
    /// The budget of memory in bytes: all that guests make the host hold, and the processes that compile components.
    pub memory_budget: u64,
    /// A PEM file of certificate authorities that plugins' HTTPS requests trust besides those that browsers trust.
    pub extra_ca: Option<PathBuf>,
}

/// Why an engine could not be started.
#[derive(Debug, thiserror::Error)]
#[error("could not start the engine: {0}")]
pub struct EngineError(String);

/// Loads plugins and runs their code, on threads of its own.
///
/// Timeouts and guests' HTTP requests run on the tokio runtime on which the engine was made, where a guest that
/// computes cannot delay them. A guest's own sleep ends on the threads that run guests.
///
/// Its methods are in two files: `load.rs` has [`Engine::load`] and [`Engine::check`]; `engine.rs` has the rest.
pub struct Engine {
    pub(crate) cache: Cache,
    pub(crate) compile: Compile,
    /// Permits for compiling a component.
    pub(crate) compiling: Semaphore,
    /// Permits for calling the `describe` of a plugin.
    pub(crate) describing: Semaphore,
    pub(crate) runtime: Handle,
    /// The parts that all plugins of this host share.
    pub(crate) env: HostEnv,
    pub(crate) linked_cache: LinkedCache,
    sync: EngineVariant,
    /// Made when the first plugin needs it.
    concurrent: OnceLock<EngineVariant>,
    /// Locked while `concurrent` is made.
    making_concurrent: Mutex<()>,
    ticker: Arc<Ticker>,
    permits: PermitPools,
    /// The sizes of all permit pools.
    sizes: PoolSizes,
    /// Notified whenever an attempt has left its sandbox while others wait for one.
    pool_freed: Notify,
    pool_waiters: AtomicUsize,
    guests: GuestThreads,
}

/// One of the two wasmtime engines, with the linker of what plugins may import.
pub(crate) struct EngineVariant {
    pub(crate) pool: Pool,
    pub(crate) linker: Linker<Sandbox>,
}

/// Time after which an attempt tries the pool again if nobody has freed a slot.
const POOL_RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// After so many tries something other than load is wrong.
pub(crate) const POOL_RETRIES_MAX: u32 = 6000;

impl EngineVariant {
    fn make(
        kind: EngineKind,
        permits: &PoolSizes,
        budget: &Budget,
        ticker: &Ticker,
    ) -> wasmtime::Result<EngineVariant> {
        let pool = wasmtime_config::pool(kind, permits, budget.total())?;
        ticker.add(&pool.engine);
        let linker = imports::linker(&pool.engine)?;
        Ok(EngineVariant { pool, linker })
    }
}

impl Engine {
    /// Starts an engine. Timeouts and HTTP requests run on the calling tokio runtime.
    ///
    /// # Errors
    /// [`EngineError`] if the cache folder or the file of authorities cannot be used, a thread cannot be started, or wasmtime cannot run here.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(settings: Settings) -> Result<Arc<Engine>, EngineError> {
        let cache = Cache::open(settings.cache).map_err(EngineError)?;
        let tls = trusted_roots::client_config(settings.extra_ca.as_deref()).map_err(EngineError)?;
        let ticker = Ticker::start()
            .map(Arc::new)
            .map_err(|error| EngineError(format!("could not start the ticker thread: {error}")))?;
        let budget = Budget::new(settings.memory_budget);
        let wanted = PoolSizes::wanted(settings.attempts, settings.broadcast_calls);
        let sync = EngineVariant::make(EngineKind::Sync, &wanted, &budget, &ticker)
            .map_err(|error| EngineError(format!("{error:#}")))?;
        let sandboxes = sync.pool.sandboxes;
        let sizes = wanted.within(sandboxes);
        let permits = PermitPools::new(&sizes);
        if sandboxes < wanted.sum() {
            tracing::warn!(
                wanted = wanted.sum(),
                sandboxes,
                attempts = permits.size(PermitPool::Jobs),
                pooled = sync.pool.pooled,
                "fewer attempts and broadcasts at once than configured: the machine does not have the address space"
            );
        }
        let guests = GuestThreads::start(settings.guest_threads.max(1), &ticker)
            .map_err(|error| EngineError(format!("could not start the threads for guests: {error}")))?;
        let runtime = Handle::current();
        let engine = Arc::new(Engine {
            cache,
            compile: settings.compile.within(budget.total()),
            compiling: Semaphore::new(bounds::COMPILES_AT_ONCE),
            describing: Semaphore::new(wasmtime_config::DESCRIBES_AT_ONCE as usize),
            runtime: runtime.clone(),
            env: HostEnv { runtime, masks: SharedMasks::new(budget.clone()), budget, tls },
            linked_cache: LinkedCache::default(),
            sync,
            concurrent: OnceLock::new(),
            making_concurrent: Mutex::new(()),
            ticker,
            permits,
            sizes,
            pool_freed: Notify::new(),
            pool_waiters: AtomicUsize::new(0),
            guests,
        });
        let measured = Arc::downgrade(&engine);
        engine.budget().measure_kept(move || {
            let engine = measured.upgrade();
            let variants = engine.iter().flat_map(|engine| [Some(&engine.sync), engine.concurrent.get()]).flatten();
            variants.map(|variant| wasmtime_config::kept_bytes(&variant.pool.engine)).sum()
        });
        Ok(engine)
    }

    /// Returns the number of threads that run guests.
    pub fn guest_threads(&self) -> usize {
        self.guests.count()
    }

    /// Returns the number of attempts that can run at once.
    pub fn capacity(&self) -> u32 {
        self.capacity_of(PermitPool::Jobs)
    }

    /// Returns the number of ordinary sandboxes that a pool of permits has.
    pub fn capacity_of(&self, pool: PermitPool) -> u32 {
        self.permits.size(pool)
    }

    /// Returns the wasmtime engine of a kind; the one for concurrent components is made at its first use.
    ///
    /// # Errors
    /// A reason, if the engine for concurrent components cannot be made.
    pub(crate) fn variant(&self, kind: EngineKind) -> Result<&EngineVariant, String> {
        match kind {
            EngineKind::Sync => Ok(&self.sync),
            EngineKind::Async => {
                if let Some(made) = self.concurrent.get() {
                    return Ok(made);
                }
                // A failure is not kept: what it lacked may be there later.
                let _making = self.making_concurrent.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(made) = self.concurrent.get() {
                    return Ok(made);
                }
                let made = EngineVariant::make(EngineKind::Async, &self.sizes, self.budget(), &self.ticker)
                    .map_err(|error| format!("{error:#}"))?;
                Ok(self.concurrent.get_or_init(|| made))
            }
        }
    }

    /// Returns the wasmtime engine of a kind, with a problem for the plugin's author as the error. Takes a moment at
    /// the first concurrent component, whose engine is made then.
    ///
    /// # Errors
    /// A [`Problem`], if the engine for concurrent components cannot be made.
    pub(crate) fn variant_for(&self, kind: EngineKind) -> Result<&EngineVariant, Problem> {
        self.variant(kind)
            .map_err(|why| Problem::new(why).within("could not start the engine for concurrent components"))
    }

    /// The wasmtime engine whose settings name the cached descriptions: what is compatible with it is so with the other
    /// one.
    pub(crate) fn compiler(&self) -> &wasmtime::Engine {
        &self.sync.pool.engine
    }

    /// Runs `future` on the threads that run guests.
    pub(crate) fn spawn_guest<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.guests.spawn(future)
    }

    /// Returns the host's budget of memory.
    pub fn budget(&self) -> &Budget {
        &self.env.budget
    }

    /// Returns how many ordinary sandboxes of a pool of permits are free.
    pub fn free_of(&self, pool: PermitPool) -> u32 {
        self.permits.free(pool)
    }

    /// Returns a permit for one sandbox of the plugin, if there is room for it now.
    pub fn try_admit(&self, pool: PermitPool, plugin: &Plugin) -> Option<Permit> {
        self.permits.try_admit(pool, plugin.sandboxes)
    }

    /// Waits for a permit for one sandbox: as many units of its pool as the sandbox is ordinary ones in size, and the bytes
    /// that it takes at its start. The wait is not an attempt's fault and does not count for it: its clocks start when it
    /// starts.
    pub fn admit(self: &Arc<Self>, pool: PermitPool, plugin: &Plugin) -> impl Future<Output = Permit> + Send + use<> {
        let cost = SandboxCost { weight: plugin.sandboxes, bytes: plugin.start_bytes + plugin.first_pages };
        self.permits.admit(self.budget(), pool, cost)
    }

    /// Runs one attempt, on the threads that run guests.
    ///
    /// `on_end` is called there exactly once, also if the host fails under the attempt; it must not block. `handle` is
    /// the only way to end the attempt from outside.
    pub fn start(
        self: &Arc<Self>,
        admission: Permit,
        plugin: Arc<Plugin>,
        call: Call,
        host_calls: Arc<dyn HostCalls>,
        handle: AttemptHandle,
        on_end: impl FnOnce(AttemptEnd) + Send + 'static,
    ) {
        if let Some(lease_end) = call.limits.first_lease_end {
            handle.set_first_lease_end(lease_end);
        }
        let engine = Arc::clone(self);
        drop(self.guests.spawn(async move {
            let started_at = Instant::now();
            let Call { input, limits } = call;
            let memory =
                SandboxMemory { of: admission.of, reserved: admission.reserved, first_pages: admission.first_pages };
            let run = Run { plugin, input, limits, host_calls, handle: handle.clone(), memory };
            let its = Arc::clone(&engine);
            // A box of its own, which the thread that runs the attempt allocates and frees: what is handed over stays
            // small.
            let attempt = Box::pin(async move {
                let attempt = AssertUnwindSafe(its.attempt(&run, admission)).catch_unwind();
                let end = attempt.await.unwrap_or_else(|panic| failed(started_at, &*panic));
                // Dropped first, so that nothing of the attempt is left when its end is reported.
                drop(run);
                completion_batch::push(move || on_end(end));
            });
            OrdinaryAttempt { threads: &engine.guests, attempt: Some(attempt), handle }.await;
        }));
    }

    /// Runs one attempt of a job, or of a broadcast at depth 1, and waits for its end. Dropping the future stops the
    /// attempt.
    pub fn call(
        self: &Arc<Self>,
        plugin: Arc<Plugin>,
        call: Call,
        host_calls: Arc<dyn HostCalls>,
        handle: AttemptHandle,
    ) -> impl Future<Output = AttemptEnd> + Send + use<> {
        let engine = Arc::clone(self);
        async move {
            if let Some(lease_end) = call.limits.first_lease_end {
                handle.set_first_lease_end(lease_end);
            }
            let waiting_since = Instant::now();
            let pool = match call.input {
                CallInput::Job { .. } => PermitPool::Jobs,
                CallInput::Message { .. } => PermitPool::Broadcasts { depth: 1 },
            };
            let admission = tokio::select! {
                biased;
                admission = engine.admit(pool, &plugin) => admission,
                () = handle.end_or_cancel_requested() => return not_started(&handle, waiting_since),
            };
            let abandoned = StopOnDrop(Some(handle.clone()));
            let (sender, receiver) = oneshot::channel();
            engine
                .start(admission, plugin, call, host_calls, handle, move |attempt_end| drop(sender.send(attempt_end)));
            let attempt_end = receiver.await.expect("`start` reports the end exactly once");
            abandoned.not();
            attempt_end
        }
    }

    /// Waits until the pool may have a free slot.
    pub(crate) async fn wait_for_pool(&self) {
        let look_again = {
            let _runtime = self.runtime.enter();
            tokio::time::sleep(POOL_RETRY_INTERVAL)
        };
        let _counted = PoolWaiter::pool_freed(&self.pool_waiters);
        // An attempt that left before this one was counted did not notify; the timer covers that.
        tokio::select! {
            () = self.pool_freed.notified() => {}
            () = look_again => {}
        }
    }

    /// Notifies waiting attempts that a slot of the pool is free.
    pub(crate) fn notify_pool_freed(&self) {
        if self.pool_waiters.load(Ordering::SeqCst) > 0 {
            self.pool_freed.notify_waiters();
        }
    }

    async fn attempt(&self, run: &Run, admission: Permit) -> AttemptEnd {
        let Run { handle, limits, .. } = run;
        let watchdog = Watchdog::new(&self.runtime, handle, limits);
        let mut started_at = handle.start_clocks();
        for _ in 0..POOL_RETRIES_MAX {
            if let Ok(attempt_end) = run.try_run(started_at, &watchdog).await {
                drop(admission);
                self.notify_pool_freed();
                return attempt_end;
            }
            handle.stop_clocks();
            watchdog.start();
            self.wait_for_pool().await;
            match handle.end_reason() {
                None => {}
                Some(EndReason::Cancelled) => {
                    return run::attempt_end(started_at, Outcome::Cancelled, Usage::default());
                }
                Some(EndReason::Stopped(why, report)) => {
                    let outcome = Outcome::Interrupted(*why, report.clone());
                    return run::attempt_end(started_at, outcome, Usage::default());
                }
                // A timeout that ran out while the guest did not run is not the attempt's fault.
                Some(_) => break,
            }
            started_at = handle.start_clocks();
        }
        let why = "no sandbox was free in time: other attempts use all memories and tables; lower `attempts.at-once`"
            .to_owned();
        run::attempt_end(started_at, Outcome::Interrupted(Interruption::Host, why), Usage::default())
    }
}

fn failed(started_at: Instant, panic: &(dyn Any + Send)) -> AttemptEnd {
    let why = format!("the host panicked during the attempt: {}; this is a bug of the host", panic_message(panic));
    AttemptEnd {
        outcome: Outcome::Interrupted(Interruption::Host, why),
        usage: Usage { wall: started_at.elapsed(), ..Usage::default() },
        sandbox: Duration::ZERO,
        held_bytes: 0,
        left: None,
    }
}

/// Extracts the message of a panic payload.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}

fn not_started(handle: &AttemptHandle, waiting_since: Instant) -> AttemptEnd {
    let outcome = match handle.end_reason() {
        Some(EndReason::Stopped(why, report)) => Outcome::Interrupted(*why, report.clone()),
        _ => Outcome::Cancelled,
    };
    let usage = Usage { wall: waiting_since.elapsed(), ..Usage::default() };
    AttemptEnd { outcome, usage, sandbox: Duration::ZERO, held_bytes: 0, left: None }
}

/// Counts one attempt that waits for the pool, as long as this lives.
struct PoolWaiter<'a>(&'a AtomicUsize);

impl PoolWaiter<'_> {
    fn pool_freed(waiting: &AtomicUsize) -> PoolWaiter<'_> {
        waiting.fetch_add(1, Ordering::SeqCst);
        PoolWaiter(waiting)
    }
}

impl Drop for PoolWaiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Stops an attempt when the future that waits for it is dropped.
struct StopOnDrop(Option<AttemptHandle>);

impl StopOnDrop {
    fn not(mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.stop(Interruption::Host, "the caller of this attempt is gone".to_owned());
        }
    }
}
