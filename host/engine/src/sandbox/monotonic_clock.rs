//! The monotonic clock of guests. Its timers run on the host's own runtime, where no guest that computes can delay
//! them: the threads that run guests have no timers.

use std::time::{Duration, Instant};

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use crate::sandbox::store_data::Sandbox;

/// Replaces WASI's own clock in the linker by this one.
pub(crate) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<Sandbox, HasSelf<Sandbox>>(linker, |sandbox| sandbox)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl monotonic_clock::Host for Sandbox {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(nanos(self.started_at.elapsed()))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe_duration(when.saturating_sub(nanos(self.started_at.elapsed())))
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.refuse_if_ended()?;
        let deadline = match duration {
            0 => Deadline::Past { has_yielded: false },
            // As good as never, where the machine cannot count so far.
            nanos => Instant::now()
                .checked_add(Duration::from_nanos(nanos))
                .map_or(Deadline::Never, |at| Deadline::At { at, runtime: self.runtime().clone() }),
        };
        let deadline = self.table.push(deadline)?;
        subscribe(&mut self.table, deadline)
    }
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

enum Deadline {
    /// A guest that polls again and again without waiting yields once each time.
    Past {
        has_yielded: bool,
    },
    At {
        at: Instant,
        runtime: tokio::runtime::Handle,
    },
    Never,
}

#[async_trait::async_trait]
impl Pollable for Deadline {
    async fn ready(&mut self) {
        match self {
            Deadline::Past { has_yielded: true } => {}
            Deadline::Past { has_yielded } => {
                *has_yielded = true;
                tokio::task::yield_now().await;
            }
            Deadline::At { at, runtime } => {
                // A timer belongs to the runtime on which it is made, wherever it is polled.
                let sleep = {
                    let _runtime = runtime.enter();
                    tokio::time::sleep_until((*at).into())
                };
                sleep.await;
            }
            Deadline::Never => std::future::pending().await,
        }
    }
}
