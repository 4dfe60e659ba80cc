//! What a plugin keeps, asked for by its guest: keys and values of a size that can be kept, and what is written counted.

use wharf_core::bounds;
use wharf_core::kv::{KvKey, KvKeyQuery};

use super::wharf::plugin::kv;
use crate::call::KvAccess;
use crate::sandbox::state::Sandbox;

/// `describe` has no attempt; whoever runs a plugin without a store may have none.
const NOTHING_KEPT: &str = "nothing can be kept here: only where a job or a broadcast is handled";

impl Sandbox {
    fn keeping(&self) -> Result<&dyn KvAccess, String> {
        self.attending.keeping().ok_or_else(|| NOTHING_KEPT.to_owned())
    }

    async fn change(&mut self, key: String, value: Option<Vec<u8>>) -> wasmtime::Result<Result<(), String>> {
        self.refuse_if_ended()?;
        let bytes = value.as_ref().map_or(0, |value| value.len() as u64);
        if bytes > bounds::KV_VALUE_BYTES_MAX {
            let max = bounds::KV_VALUE_BYTES_MAX;
            return Ok(Err(format!("the value has {bytes} bytes; {max} is the most: keep it in parts")));
        }
        let (keeping, key) = match (self.keeping(), valid(&key)) {
            (Ok(keeping), Ok(key)) => (keeping, key),
            (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
        };
        let excused = self.control.excuse();
        let taken = keeping.change(key, value).await;
        drop(excused);
        if taken.is_ok() {
            self.sent.kept_bytes += bytes;
        }
        Ok(taken)
    }
}

fn valid(key: &str) -> Result<KvKey, String> {
    key.parse().map_err(|bad: wharf_core::ids::ParseIdError| bad.to_string())
}

impl kv::Host for Sandbox {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, String>> {
        self.refuse_if_ended()?;
        let (keeping, key) = match (self.keeping(), valid(&key)) {
            (Ok(keeping), Ok(key)) => (keeping, key),
            (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
        };
        let excused = self.control.excuse();
        let found = keeping.value(key).await;
        drop(excused);
        if let Ok(Some(value)) = &found {
            self.control.meter().receive(value.len() as u64);
        }
        Ok(found)
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        self.change(key, Some(value)).await
    }

    async fn remove(&mut self, key: String) -> wasmtime::Result<Result<(), String>> {
        self.change(key, None).await
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
            return Ok(Err(format!("what keys begin with, or come after, has {longest} bytes; {max} is the most")));
        }
        let keeping = match self.keeping() {
            Ok(keeping) => keeping,
            Err(why) => return Ok(Err(why)),
        };
        let wanted = KvKeyQuery { prefix, after, max: max.min(bounds::KV_PAGE_MAX) };
        let excused = self.control.excuse();
        let found = keeping.keys(wanted).await;
        drop(excused);
        Ok(found.map(|keys| {
            self.control.meter().receive(keys.iter().map(|key| key.as_str().len() as u64).sum());
            keys.iter().map(ToString::to_string).collect()
        }))
    }
}
