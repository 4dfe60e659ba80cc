//! A plugin's values in the store, read and changed by its guest: checks the sizes and counts the bytes written.

use wharf_core::bounds;
use wharf_core::kv::{KvKey, KvKeyQuery};

use crate::call::KvAccess;
use crate::sandbox::bindings::wharf::plugin::kv;
use crate::sandbox::store_data::Sandbox;

/// `describe` has no attempt, and a host without a store has no values.
const NO_KV: &str = "no values are available here, only while a job or a broadcast is handled";

/// Returns access to the plugin's values, or the error for the guest.
fn access(sandbox: &Sandbox) -> Result<&dyn KvAccess, String> {
    sandbox.host_calls.kv().ok_or_else(|| NO_KV.to_owned())
}

/// Sets or removes a value, and counts the bytes written.
async fn change(sandbox: &mut Sandbox, key: String, value: Option<Vec<u8>>) -> wasmtime::Result<Result<(), String>> {
    sandbox.refuse_if_ended()?;
    let bytes = value.as_ref().map_or(0, |value| value.len() as u64);
    if bytes > bounds::KV_VALUE_BYTES_MAX {
        let max = bounds::KV_VALUE_BYTES_MAX;
        return Ok(Err(format!("the value is {bytes} bytes; the limit is {max}; keep it in parts")));
    }
    let key = match (access(sandbox), parse_key(&key)) {
        (Ok(_), Ok(key)) => key,
        (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
    };
    sandbox.keep_bytes(bytes).await?;
    let kv = match access(sandbox) {
        Ok(kv) => kv,
        Err(why) => return Ok(Err(why)),
    };
    let stall_pause = sandbox.handle.pause_stall();
    let result = kv.change(key, value).await;
    drop(stall_pause);
    if result.is_ok() {
        sandbox.sent.kv_bytes += bytes;
    }
    Ok(result)
}

fn parse_key(key: &str) -> Result<KvKey, String> {
    key.parse().map_err(|bad: wharf_core::ids::ParseIdError| bad.to_string())
}

impl kv::Host for Sandbox {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, String>> {
        self.refuse_if_ended()?;
        let (kv, key) = match (access(self), parse_key(&key)) {
            (Ok(kv), Ok(key)) => (kv, key),
            (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
        };
        let stall_pause = self.handle.pause_stall();
        let found = kv.value(key).await;
        drop(stall_pause);
        if let Ok(Some(value)) = &found {
            self.handle.meter().receive(value.len() as u64);
        }
        Ok(found)
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        change(self, key, Some(value)).await
    }

    async fn remove(&mut self, key: String) -> wasmtime::Result<Result<(), String>> {
        change(self, key, None).await
    }

    async fn keys(
        &mut self,
        prefix: String,
        after: Option<String>,
        max: u32,
    ) -> wasmtime::Result<Result<Vec<String>, String>> {
        self.refuse_if_ended()?;
        let longest = prefix.len().max(after.as_ref().map_or(0, String::len));
        if longest > bounds::KV_KEY_BYTES_MAX {
            let max = bounds::KV_KEY_BYTES_MAX;
            return Ok(Err(format!("`prefix` or `after` is {longest} bytes; the limit is {max}")));
        }
        let kv = match access(self) {
            Ok(kv) => kv,
            Err(why) => return Ok(Err(why)),
        };
        let wanted = KvKeyQuery { prefix, after, max: max.min(bounds::KV_PAGE_MAX) };
        let stall_pause = self.handle.pause_stall();
        let found = kv.keys(wanted).await;
        drop(stall_pause);
        Ok(found.map(|keys| {
            self.handle.meter().receive(keys.iter().map(|key| key.as_str().len() as u64).sum());
            keys.iter().map(ToString::to_string).collect()
        }))
    }
}
