//! What one attempt sees of the host: the data of its store. Made for one attempt, gone with it.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wharf_core::bounds;
use wharf_core::job::Stream;

use crate::call::{AttemptLimits, HostCalls};
use crate::sandbox::limiter::Space;
use crate::sandbox::log::Log;
use crate::sandbox::outbound_http::Outbound;
use crate::sandbox::plugin_env::Premises;
use crate::schedule::attempt_handle::AttemptHandle;
use crate::schedule::metered::Stopped;

pub(crate) struct Sandbox {
    pub(crate) attending: Arc<dyn HostCalls>,
    pub(crate) control: AttemptHandle,
    pub(crate) limits: AttemptLimits,
    pub(crate) began: Instant,
    pub(crate) space: Space,
    pub(crate) sent: Sent,
    pub(crate) table: ResourceTable,
    /// In place of `table` once the attempt was ended: without a handle nothing can be reached.
    void: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
}

/// What the attempt has handed out so far.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) chunks: u64,
    pub(crate) chunk_bytes: u64,
    /// A chunk was refused for the bound of all chunks: the output is not whole.
    pub(crate) refused: bool,
    pub(crate) broadcast_bytes: u64,
    pub(crate) jobs: usize,
    /// Of jobs enqueued and of jobs in the making.
    pub(crate) job_bytes: u64,
    /// Of values that were put under a key.
    pub(crate) kept_bytes: u64,
}

/// All that a sandbox is made from.
pub(crate) struct Furnishing {
    pub(crate) premises: Arc<Premises>,
    pub(crate) attending: Arc<dyn HostCalls>,
    pub(crate) control: AttemptHandle,
    pub(crate) limits: AttemptLimits,
    pub(crate) log: Log,
}

impl Sandbox {
    /// # Errors
    /// When a granted folder cannot be opened.
    pub(crate) fn new(with: Furnishing, began: Instant) -> Result<Sandbox, String> {
        let mut wasi = WasiCtx::builder();
        wasi.max_random_size(bounds::RANDOM_BYTES_MAX);
        wasi.stdout(with.log.writer(Stream::Stdout)).stderr(with.log.writer(Stream::Stderr));
        for (name, value) in &with.premises.settings.env {
            wasi.env(name, value);
        }
        for dir in &with.premises.settings.dirs {
            let perms = if dir.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            wasi.preopened_dir(&dir.host, &dir.guest, perms).map_err(|error| {
                format!(
                    "the folder {} that is granted to `{}` cannot be opened: {error}",
                    dir.host.display(),
                    with.premises.plugin
                )
            })?;
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(bounds::HOST_RESOURCES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(bounds::HTTP_HEADERS_BYTES_MAX);
        let outbound = Outbound {
            premises: with.premises,
            control: with.control.clone(),
            log: with.log,
            patience: with.limits.timeout,
            requests: 0,
        };
        Ok(Sandbox {
            space: Space::new(with.limits.memory_bytes),
            attending: with.attending,
            control: with.control,
            limits: with.limits,
            began,
            sent: Sent::default(),
            table,
            void: ResourceTable::new(),
            wasi: wasi.build(),
            http,
            outbound,
        })
    }

    pub(crate) fn config(&self) -> &WasiConfigVariables {
        &self.outbound.premises.config
    }

    /// The host's own runtime.
    pub(crate) fn home(&self) -> &Handle {
        &self.outbound.premises.home
    }

    /// Every host call of an attempt that was ended is refused.
    pub(crate) fn refuse_if_ended(&self) -> wasmtime::Result<()> {
        if self.control.ending().is_some() { Err(Stopped.into()) } else { Ok(()) }
    }
}

impl WasiView for Sandbox {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let table = if self.control.ending().is_some() { &mut self.void } else { &mut self.table };
        WasiCtxView { ctx: &mut self.wasi, table }
    }
}

impl WasiHttpView for Sandbox {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let table = if self.control.ending().is_some() { &mut self.void } else { &mut self.table };
        WasiHttpCtxView { hooks: &mut self.outbound, table, ctx: &mut self.http }
    }
}
