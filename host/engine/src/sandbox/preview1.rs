//! WASI preview 1 for core modules: wasmtime-wasi's own, with functions of this host where a guest could wait on its threads for
//! ever, take memory that nobody counts, or write to the host's own log.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use wasmtime::{AsContextMut as _, Caller, Extern, Linker};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p1::types::{Errno, Fd, Filetype, Lookupflags};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as functions, WasiSnapshotPreview1 as _};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wharf_core::bounds;
use wiggle::{GuestMemory, GuestPtr};

use crate::sandbox::store_data::Sandbox;

/// The module that a program imports.
const MODULE: &str = "wasi_snapshot_preview1";
/// Reads and writes of at most so many bytes are not counted in the budget: an attempt's room covers them.
const UNCOUNTED_BYTES: u64 = 64 * bounds::KIB;
/// Bytes of a buffer's address and length.
const BUFFER_BYTES: usize = 8;

/// Makes the linker of everything that a program of preview 1 may import.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Sandbox>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, Sandbox::preview1)?;
    linker.allow_shadowing(true);
    add_exit(&mut linker)?;
    add_poll(&mut linker)?;
    add_open(&mut linker)?;
    add_transfers(&mut linker)?;
    add_sockets(&mut linker)?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// All statuses reach the host: wasmtime's own function traps from 126 on.
fn add_exit(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "proc_exit", |status: i32| -> wasmtime::Result<()> { Err(I32Exit(status).into()) })?;
    Ok(())
}

/// Timers run on the host's own runtime: the threads that run guests have none.
fn add_poll(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        MODULE,
        "poll_oneoff",
        |mut caller: Caller<'_, Sandbox>, (subscriptions, events, count, written): (i32, i32, i32, i32)| {
            Box::new(async move {
                let runtime = caller.data().runtime().clone();
                let (mut memory, context) = parts(&mut caller)?;
                let polled = functions::poll_oneoff(context, &mut memory, subscriptions, events, count, written);
                OnRuntime { runtime, inner: pin!(polled) }.await
            })
        },
    )?;
    Ok(())
}

/// An open of a FIFO waits for somebody at its other end, perhaps for good, and keeps a thread that all plugins share. So the file is
/// looked at before. A FIFO that is moved to its place after the look is not seen, and the guest may choose that moment: descriptors
/// of preview 1 are wasmtime's own, so that none can be opened here without waiting, as `open_file` does. Guests cannot make FIFOs,
/// and the docs say whom to grant no folder that has some.
fn add_open(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    type OpenArgs = (i32, i32, i32, i32, i32, i64, i64, i32, i32);
    linker.func_wrap_async(MODULE, "path_open", |mut caller: Caller<'_, Sandbox>, args: OpenArgs| {
        Box::new(async move {
            let (folder, lookup, path, path_bytes, open, rights, inheriting, flags, opened) = args;
            let (mut memory, context) = parts(&mut caller)?;
            let follows = Lookupflags::from_bits_truncate(lookup as u32);
            let name = GuestPtr::<str>::new((path as u32, path_bytes as u32));
            let found = context.path_filestat_get(&mut memory, Fd::from(folder), follows, name).await;
            // What cannot be looked at cannot be opened, or is not there yet: the open itself says which.
            if found.is_ok_and(|found| !is_file_or_folder(found.filetype)) {
                return Ok(Errno::Notsup as i32);
            }
            functions::path_open(
                context,
                &mut memory,
                folder,
                lookup,
                path,
                path_bytes,
                open,
                rights,
                inheriting,
                flags,
                opened,
            )
            .await
        })
    })?;
    Ok(())
}

fn is_file_or_folder(kind: Filetype) -> bool {
    matches!(kind, Filetype::RegularFile | Filetype::Directory | Filetype::SymbolicLink)
}

/// Counts what the host holds while a large part of a file, or of the input, is copied.
fn add_transfers(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    macro_rules! counted {
        ($name:ident, $($more:ident: $type:ty),*) => {
            linker.func_wrap_async(
                MODULE,
                stringify!($name),
                |mut caller: Caller<'_, Sandbox>, (fd, buffers, count, $($more),*): (i32, i32, i32, $($type),*)| {
                    Box::new(async move {
                        let held = buffer_bytes(&mut caller, buffers, count);
                        let held = if held > UNCOUNTED_BYTES { held } else { 0 };
                        if held > 0 {
                            caller.data_mut().keep_bytes(held).await?;
                        }
                        let (mut memory, context) = parts(&mut caller)?;
                        let done = functions::$name(context, &mut memory, fd, buffers, count, $($more),*).await;
                        caller.data_mut().drop_bytes(held);
                        done
                    })
                },
            )?;
        };
    }
    counted!(fd_read, read: i32);
    counted!(fd_pread, at: i64, read: i32);
    counted!(fd_write, written: i32);
    counted!(fd_pwrite, at: i64, written: i32);
    Ok(())
}

/// There are no sockets. Wasmtime's own functions say so as well, but to the host's log, once for each call.
fn add_sockets(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    const NONE: i32 = Errno::Notsock as i32;
    linker.func_wrap(MODULE, "sock_accept", |_: i32, _: i32, _: i32| NONE)?;
    linker.func_wrap(MODULE, "sock_recv", |_: i32, _: i32, _: i32, _: i32, _: i32, _: i32| NONE)?;
    linker.func_wrap(MODULE, "sock_send", |_: i32, _: i32, _: i32, _: i32, _: i32| NONE)?;
    linker.func_wrap(MODULE, "sock_shutdown", |_: i32, _: i32| NONE)?;
    Ok(())
}

/// Returns the guest's memory and what it sees of the host, with as much as may cross in one call.
fn parts<'a>(caller: &'a mut Caller<'_, Sandbox>) -> wasmtime::Result<(GuestMemory<'a>, &'a mut WasiP1Ctx)> {
    let fuel = caller.as_context_mut().hostcall_fuel();
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::Error::msg("the program does not export its memory as `memory`"));
    };
    let (bytes, sandbox) = memory.data_and_store_mut(caller);
    let context = sandbox.preview1();
    context.set_hostcall_fuel(fuel);
    Ok((GuestMemory::Unshared(bytes), context))
}

/// Returns the length of the first buffer that is not empty: one call reads into it, or writes it. A list that is not within the
/// memory, or too long to be read, has none: the call itself refuses it.
fn buffer_bytes(caller: &mut Caller<'_, Sandbox>, buffers: i32, count: i32) -> u64 {
    let (start, count) = (buffers as u32 as usize, count as u32 as usize);
    if count.saturating_mul(BUFFER_BYTES) as u64 > bounds::HOSTCALL_BYTES_MAX {
        return 0;
    }
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return 0 };
    let all = memory.data(&*caller).get(start..).unwrap_or_default();
    let lengths = all.chunks_exact(BUFFER_BYTES).take(count).filter_map(|buffer| buffer.last_chunk::<4>());
    let first = lengths.map(|length| u32::from_le_bytes(*length)).find(|length| *length > 0).map_or(0, u64::from);
    if first > bounds::HOSTCALL_BYTES_MAX { 0 } else { first }
}

/// A future whose timers are the runtime's, on whatever thread it is polled.
struct OnRuntime<'a, F> {
    runtime: Handle,
    inner: Pin<&'a mut F>,
}

impl<F: Future> Future for OnRuntime<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _entered = this.runtime.enter();
        this.inner.as_mut().poll(context)
    }
}
