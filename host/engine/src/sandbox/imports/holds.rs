//! A guest that holds the key of its own job for a time, as far as the operator grants it.

use std::time::Duration;

use crate::sandbox::bindings::wharf::plugin::holds;
use crate::sandbox::store_data::Sandbox;

impl holds::Host for Sandbox {
    async fn hold_key(&mut self, milliseconds: u64, reason: String) -> wasmtime::Result<Result<u64, String>> {
        self.refuse_if_ended()?;
        let env = &self.outbound.env;
        let Some(max) = env.settings.hold_key_max() else {
            return Ok(Err(format!(
                "holding keys is not granted; to grant it, set hold-key = \"1h\" under [plugins.{}] in wharf.toml",
                env.plugin
            )));
        };
        let length = Duration::from_millis(milliseconds).min(max);
        if length.is_zero() {
            return Ok(Err("a key is held for at least one millisecond".to_owned()));
        }
        let stall_pause = self.handle.pause_stall();
        let held = self.host_calls.hold_key(length, reason).await;
        drop(stall_pause);
        Ok(held.map(|()| length.as_millis() as u64))
    }
}
