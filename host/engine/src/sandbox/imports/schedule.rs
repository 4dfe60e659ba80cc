//! The tick of a schedule that the job was enqueued for.

use crate::sandbox::bindings::wharf::plugin::schedule;
use crate::sandbox::store_data::Sandbox;

impl schedule::Host for Sandbox {
    fn tick(&mut self) -> wasmtime::Result<Option<u64>> {
        Ok(self.tick.map(|tick| tick.tick.as_micros() / 1000))
    }

    fn previous(&mut self) -> wasmtime::Result<Option<u64>> {
        Ok(self.tick.and_then(|tick| tick.previous).map(|previous| previous.as_micros() / 1000))
    }

    fn missed(&mut self) -> wasmtime::Result<u64> {
        Ok(self.tick.map_or(0, |tick| tick.missed))
    }
}
