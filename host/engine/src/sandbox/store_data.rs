//! The data of one attempt's wasmtime store: everything that its guest sees of the host.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use tokio::runtime::Handle;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wharf_core::bounds;
use wharf_core::job::Stream;
use wharf_core::schedule::tick_text;
use wharf_core::tick::{self, JobTick};

use crate::call::{AttemptLimits, HostCalls};
use crate::sandbox::limiter::SandboxLimiter;
use crate::sandbox::log::Log;
use crate::sandbox::outbound_http::Outbound;
use crate::sandbox::plugin_env::PluginEnv;
use crate::sandbox::preview1_context::Preview1;
use crate::sandbox::program_output::ProgramIo;
use crate::sandbox::secrets::placeholders::Placeholders;
use crate::schedule::attempt_handle::{AttemptHandle, EndReason};
use crate::schedule::budget::Account;
use crate::schedule::metered::Stopped;

/// Takes the place of a plugin's values of `wasi:config` once the attempt was ended.
static NO_CONFIG: LazyLock<WasiConfigVariables> = LazyLock::new(WasiConfigVariables::default);

/// The data of one attempt's store. `imports` implements the interfaces of the contract for it, `monotonic_clock` that of
/// the clock.
pub(crate) struct Sandbox {
    pub(crate) host_calls: Arc<dyn HostCalls>,
    pub(crate) handle: AttemptHandle,
    pub(crate) limits: AttemptLimits,
    pub(crate) started_at: Instant,
    pub(crate) limiter: SandboxLimiter,
    pub(crate) sent: Sent,
    pub(crate) table: ResourceTable,
    /// Takes the place of `table` once the attempt was ended: without a resource the guest reaches nothing.
    empty_table: ResourceTable,
    wasi: Wasi,
    http: WasiHttpCtx,
    pub(crate) outbound: Outbound,
    /// The tick that a schedule enqueued the job for.
    pub(crate) tick: Option<JobTick>,
}

/// The standard interfaces, in the version that the plugin speaks.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each attempt of a component")]
enum Wasi {
    /// WASI 0.2, for components.
    Components(WasiCtx),
    /// WASI preview 1, for core modules.
    Module(Box<Preview1>),
}

/// Amounts that the attempt has sent so far.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) chunks: u64,
    pub(crate) chunk_bytes: u64,
    /// A chunk was refused because of the limit of all chunks: the output is incomplete.
    pub(crate) refused: bool,
    pub(crate) broadcast_bytes: u64,
    pub(crate) jobs: usize,
    /// Bytes of jobs that were enqueued or are being made.
    pub(crate) job_bytes: u64,
    /// Bytes of values that were set.
    pub(crate) kv_bytes: u64,
    /// Bytes of replies that count as kept.
    pub(crate) replies_kept: u64,
}

/// Everything that a sandbox is made from.
pub(crate) struct SandboxParts {
    pub(crate) env: Arc<PluginEnv>,
    pub(crate) host_calls: Arc<dyn HostCalls>,
    pub(crate) handle: AttemptHandle,
    pub(crate) limits: AttemptLimits,
    pub(crate) log: Log,
    /// Its account in the host's budget of memory.
    pub(crate) account: Account,
    /// Input and output of a program.
    pub(crate) program: Option<ProgramIo>,
    /// The tick that a schedule enqueued the job for.
    pub(crate) tick: Option<JobTick>,
}

impl Sandbox {
    /// Makes a sandbox whose clock starts at `started_at`.
    ///
    /// # Errors
    /// A reason, if a granted folder cannot be opened, or if no placeholder can be made.
    pub(crate) fn new(with: SandboxParts, started_at: Instant) -> Result<Sandbox, String> {
        let mut wasi = WasiCtx::builder();
        wasi.max_random_size(bounds::RANDOM_BYTES_MAX);
        wasi.stderr(with.log.writer(Stream::Stderr));
        let is_module = with.program.as_ref().is_some_and(|program| program.is_module);
        match with.program {
            None => {
                wasi.stdout(with.log.writer(Stream::Stdout));
            }
            Some(ProgramIo { args, stdin, output, .. }) => {
                wasi.stdin(MemoryInputPipe::new(stdin)).stdout(output).arg(&with.env.plugin).args(&args);
                for (name, value) in with.tick.iter().flat_map(tick_variables) {
                    wasi.env(name, &value);
                }
            }
        }
        for (name, value) in &with.env.settings.env {
            wasi.env(name, value);
        }
        let random = with.env.tls.crypto_provider().secure_random;
        let placeholders = Placeholders::new(&with.env.settings.secrets, random)?;
        for (name, text) in placeholders.iter().flat_map(|all| all.variables()) {
            wasi.env(&name, text);
        }
        for dir in &with.env.settings.dirs {
            let perms = if dir.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            wasi.preopened_dir(&dir.host, &dir.guest, perms).map_err(|error| {
                format!(
                    "could not open the folder {} that is granted to `{}`: {error}",
                    dir.host.display(),
                    with.env.plugin
                )
            })?;
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(bounds::HOST_RESOURCES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(bounds::HTTP_HEADERS_BYTES_MAX);
        let outbound = Outbound {
            env: with.env,
            handle: with.handle.clone(),
            log: with.log,
            timeout_max: with.limits.timeout,
            requests: 0,
            host_calls: Arc::clone(&with.host_calls),
            placeholders,
        };
        Ok(Sandbox {
            limiter: SandboxLimiter::new(with.limits.memory_bytes, with.account),
            host_calls: with.host_calls,
            handle: with.handle,
            limits: with.limits,
            started_at,
            sent: Sent::default(),
            table,
            empty_table: ResourceTable::new(),
            wasi: if is_module {
                Wasi::Module(Box::new(Preview1::new(&mut wasi)))
            } else {
                Wasi::Components(wasi.build())
            },
            http,
            outbound,
            tick: with.tick,
        })
    }

    /// Returns what the plugin reads through `wasi:config`: nothing, once the attempt was ended.
    pub(crate) fn config(&self) -> &WasiConfigVariables {
        if self.is_ended() { &NO_CONFIG } else { &self.outbound.env.config }
    }

    /// Returns what a core module sees of the host.
    ///
    /// # Panics
    /// If the sandbox is that of a component, to which nothing of WASI preview 1 is linked.
    pub(crate) fn preview1(&mut self) -> &mut WasiP1Ctx {
        let is_ended = self.is_ended();
        match &mut self.wasi {
            Wasi::Module(preview1) => preview1.of(is_ended),
            Wasi::Components(_) => unreachable!("only modules are linked with WASI preview 1"),
        }
    }

    /// Returns the host's own runtime.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.outbound.env.runtime
    }

    /// Returns true if the attempt was ended. The loss of a grant of its plugin ends it here.
    pub(crate) fn is_ended(&self) -> bool {
        self.outbound.is_ended()
    }

    /// Refuses the host call of an attempt that was ended.
    pub(crate) fn refuse_if_ended(&self) -> wasmtime::Result<()> {
        if self.is_ended() { Err(Stopped.into()) } else { Ok(()) }
    }

    /// Ends the attempt because it went on after an output limit was reached.
    pub(crate) fn end_at_output_bound(&self, what: String) -> wasmtime::Error {
        self.handle.end(EndReason::OutputBound(what));
        Stopped.into()
    }
}

/// Returns the variables by which a program knows the tick of its job.
fn tick_variables(tick: &JobTick) -> Vec<(&'static str, String)> {
    let [at, before, missed] = tick::VARIABLES;
    let mut variables = vec![(at, tick_text(tick.tick)), (missed, tick.missed.to_string())];
    variables.extend(tick.previous.map(|previous| (before, tick_text(previous))));
    variables
}

impl WasiView for Sandbox {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let is_ended = self.outbound.is_ended();
        let table = if is_ended { &mut self.empty_table } else { &mut self.table };
        match &mut self.wasi {
            Wasi::Components(ctx) => WasiCtxView { ctx, table },
            Wasi::Module(preview1) => preview1.of(is_ended).ctx(),
        }
    }
}

impl WasiHttpView for Sandbox {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let table = if self.outbound.is_ended() { &mut self.empty_table } else { &mut self.table };
        WasiHttpCtxView { hooks: &mut self.outbound, table, ctx: &mut self.http }
    }
}
