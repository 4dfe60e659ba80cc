//! What a plugin keeps from one attempt to the next: values under keys, its own and no other's.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::bounds;
use crate::ids::{ParseIdError, PluginId};

/// Under which a value stands: 1 to `bounds::KV_KEY_BYTES_MAX` bytes, any text. Ordered by its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvKey(Arc<str>);

impl KvKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KvKey {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let reason = match text.len() {
            0 => "is no key of a value: it is empty",
            n if n > bounds::KV_KEY_BYTES_MAX => "is no key of a value: it is longer than 512 bytes",
            _ => return Ok(KvKey(text.into())),
        };
        Err(ParseIdError { text: text.chars().take(40).collect(), reason })
    }
}

impl fmt::Display for KvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for KvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Which keys are asked for: those that begin with `prefix` and come after `after`, in their order, at most so many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvKeyQuery {
    /// May be empty: then all keys.
    pub prefix: String,
    pub after: Option<String>,
    pub max: u32,
}

impl KvKeyQuery {
    /// Whether a key is one of them, were there no bound on their number.
    pub fn has(&self, key: &KvKey) -> bool {
        key.0.starts_with(&self.prefix) && self.after.as_deref().is_none_or(|after| key.as_str() > after)
    }

    /// The bytes before which no key of the prefix stands, and from which on none does; without the latter there is no end.
    pub fn range(&self) -> (&[u8], Option<Vec<u8>>) {
        let mut end = self.prefix.as_bytes().to_vec();
        // No byte of a text is the highest one.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        (self.prefix.as_bytes(), (!end.is_empty()).then_some(end))
    }
}

/// How much a plugin keeps. The bytes are those of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvUsage {
    pub values: u64,
    pub bytes: u64,
}

/// What one attempt changes of its plugin's values: all of it with the attempt's success, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvChanges {
    pub plugin: PluginId,
    /// `None` takes the value away.
    values: BTreeMap<KvKey, Option<Arc<[u8]>>>,
    bytes: u64,
}

/// Why a change is not taken: fits "{what}".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaExceeded {
    Writes,
    Bytes,
}

impl fmt::Display for QuotaExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaExceeded::Writes => write!(f, "an attempt may change {} values", bounds::KV_WRITES_MAX),
            QuotaExceeded::Bytes => {
                write!(f, "what an attempt changes may have {} MiB in all", bounds::KV_WRITES_BYTES_MAX / bounds::MIB)
            }
        }
    }
}

impl KvChanges {
    pub fn new(plugin: PluginId) -> KvChanges {
        KvChanges { plugin, values: BTreeMap::new(), bytes: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Of keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// In the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&KvKey, Option<&Arc<[u8]>>)> {
        self.values.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// What stands under a key after these changes; `None` where they say nothing of it.
    pub fn get(&self, key: &KvKey) -> Option<Option<&Arc<[u8]>>> {
        self.values.get(key).map(Option::as_ref)
    }

    /// Takes one more change; of two that name the same key the later one stands.
    ///
    /// # Errors
    /// When there would be more than an attempt may change; then nothing is different.
    pub fn put(&mut self, key: KvKey, value: Option<Arc<[u8]>>) -> Result<(), QuotaExceeded> {
        let weight = |value: &Option<Arc<[u8]>>| (key.0.len() + value.as_ref().map_or(0, |value| value.len())) as u64;
        let before = self.values.get(&key);
        if before.is_none() && self.values.len() == bounds::KV_WRITES_MAX {
            return Err(QuotaExceeded::Writes);
        }
        let bytes = self.bytes - before.map_or(0, weight) + weight(&value);
        if bytes > bounds::KV_WRITES_BYTES_MAX {
            return Err(QuotaExceeded::Bytes);
        }
        self.bytes = bytes;
        self.values.insert(key, value);
        Ok(())
    }

    /// Puts back what `put` changed: what `get` answered before it.
    pub fn undo(&mut self, key: KvKey, before: Option<Option<Arc<[u8]>>>) {
        let weight = |value: &Option<Arc<[u8]>>| (key.0.len() + value.as_ref().map_or(0, |value| value.len())) as u64;
        let put = before.as_ref().map_or(0, weight);
        let gone = match before {
            Some(before) => self.values.insert(key.clone(), before),
            None => self.values.remove(&key),
        };
        self.bytes = self.bytes + put - gone.as_ref().map_or(0, weight);
    }

    /// How many committed keys have to be looked at for a page of so many.
    pub fn look(&self, max: u32) -> u32 {
        let gone = self.values.values().filter(|value| value.is_none()).count();
        max.saturating_add(u32::try_from(gone).unwrap_or(u32::MAX))
    }

    /// A page of keys: the committed ones, of which `look` were asked for, with these changes on top.
    pub fn over(&self, committed: Vec<KvKey>, wanted: &KvKeyQuery) -> Vec<KvKey> {
        let kept = committed.into_iter().filter(|key| !self.values.contains_key(key));
        let own =
            self.values.iter().filter(|(key, value)| value.is_some() && wanted.has(key)).map(|(key, _)| key.clone());
        let mut keys: Vec<KvKey> = kept.chain(own).collect();
        keys.sort_unstable();
        keys.truncate(wanted.max as usize);
        keys
    }

    /// What the plugin would keep after these changes, where `usage` is what it keeps now. `length` says how long the value
    /// is that now stands under a key: `Some(None)` for none, `None` where that is not known, and then as if it were none.
    pub fn after(&self, usage: KvUsage, length: impl Fn(&KvKey) -> Option<Option<u64>>) -> KvUsage {
        let mut after = usage;
        for (key, value) in &self.values {
            let own = key.0.len() as u64;
            if let Some(old) = length(key).flatten() {
                after.values = after.values.saturating_sub(1);
                after.bytes = after.bytes.saturating_sub(own + old);
            }
            if let Some(value) = value {
                after.values += 1;
                after.bytes += own + value.len() as u64;
            }
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> KvKey {
        text.parse().unwrap()
    }

    fn changes(of: &[(&str, Option<&str>)]) -> KvChanges {
        let mut changes = KvChanges::new("words".parse().unwrap());
        for (name, value) in of {
            changes.put(key(name), value.map(|value| value.as_bytes().into())).unwrap();
        }
        changes
    }

    #[test]
    fn the_later_change_of_a_key_stands_and_bytes_follow() {
        let mut some = changes(&[("a", Some("12345")), ("a", Some("1")), ("b", None)]);
        assert_eq!((some.iter().len(), some.bytes()), (2, 3));
        assert_eq!(some.get(&key("a")), Some(Some(&b"1".as_slice().into())));
        assert_eq!((some.get(&key("b")), some.get(&key("c"))), (Some(None), None));
        let max = bounds::KV_WRITES_BYTES_MAX as usize;
        assert_eq!(some.put(key("a"), Some(vec![0; max].into())), Err(QuotaExceeded::Bytes));
        assert_eq!(some.put(key("a"), Some(vec![0; max - 2].into())), Ok(()));
        assert_eq!(some.put(key("c"), None), Err(QuotaExceeded::Bytes));
        assert_eq!(some.bytes(), bounds::KV_WRITES_BYTES_MAX);
        some.undo(key("a"), Some(Some(b"1".as_slice().into())));
        some.undo(key("b"), None);
        assert_eq!((&some, some.bytes()), (&changes(&[("a", Some("1"))]), 2));
    }

    #[test]
    fn an_attempt_changes_so_many_values_and_may_change_these_again() {
        let mut many = changes(&[]);
        for number in 0..bounds::KV_WRITES_MAX {
            many.put(key(&number.to_string()), None).unwrap();
        }
        assert_eq!(many.put(key("more"), None), Err(QuotaExceeded::Writes));
        assert_eq!(many.put(key("0"), Some(b"x".as_slice().into())), Ok(()));
    }

    #[test]
    fn a_page_of_keys_is_what_is_committed_with_the_changes_on_top() {
        let some = changes(&[("a/2", None), ("a/3", Some("")), ("a/9", Some("")), ("b", Some(""))]);
        let committed = ["a/1", "a/2", "a/4"].map(key).to_vec();
        let wanted = |after: Option<&str>, max| KvKeyQuery { prefix: "a/".into(), after: after.map(Into::into), max };
        assert_eq!(some.over(committed.clone(), &wanted(None, 9)), ["a/1", "a/3", "a/4", "a/9"].map(key));
        assert_eq!(some.over(committed.clone(), &wanted(None, 2)), ["a/1", "a/3"].map(key));
        assert_eq!(some.over(committed[2..].to_vec(), &wanted(Some("a/3"), 9)), ["a/4", "a/9"].map(key));
        assert_eq!(some.look(2), 3);
    }

    #[test]
    fn a_prefix_is_a_range_of_bytes() {
        let range = |prefix: &str| {
            let wanted = KvKeyQuery { prefix: prefix.into(), after: None, max: 1 };
            let (from, until) = wanted.range();
            (from.to_vec(), until)
        };
        assert_eq!(range("a/"), (b"a/".to_vec(), Some(b"a0".to_vec())));
        assert_eq!(range("é"), ("é".into(), Some(vec![0xc3, 0xaa])));
        assert_eq!(range(""), (Vec::new(), None));
    }

    #[test]
    fn usage_after_changes_counts_what_they_replace() {
        let some = changes(&[("a", Some("123")), ("bb", None), ("c", Some("1")), ("d", None)]);
        let usage = KvUsage { values: 5, bytes: 100 };
        let length = |key: &KvKey| match key.as_str() {
            "a" => Some(Some(10)),
            "bb" => Some(Some(4)),
            "d" => Some(None),
            _ => None,
        };
        // "a" becomes 7 shorter, "bb" goes, "c" comes, "d" was not there.
        assert_eq!(some.after(usage, length), KvUsage { values: 5, bytes: 100 - 7 - 6 + 2 });
        assert_eq!(some.after(usage, |_| None), KvUsage { values: 7, bytes: 106 });
    }
}
