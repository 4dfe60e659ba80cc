//! The kv values of a plugin: they outlast its attempts, and no other plugin can read or change them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::bounds;
use crate::ids::{ParseIdError, PluginId};
use crate::shared_bytes::SharedBytes;

/// The key of a kv value: any text of 1 to `bounds::KV_KEY_BYTES_MAX` bytes. Keys sort by their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvKey(Arc<str>);

impl KvKey {
    /// Returns the key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KvKey {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.is_empty() || text.len() > bounds::KV_KEY_BYTES_MAX {
            let reason = format!("expected 1 to {} bytes, got {}", bounds::KV_KEY_BYTES_MAX, text.len());
            return Err(ParseIdError::new("kv key", text, reason));
        }
        Ok(KvKey(text.into()))
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

/// A query for kv keys: in ascending order, those that start with `prefix` and sort after `after`, at most `max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvKeyQuery {
    /// The start of the keys; an empty prefix matches all keys.
    pub prefix: String,
    /// The last key of the previous page; `None` for the first page.
    pub after: Option<String>,
    /// The maximum number of keys.
    pub max: u32,
}

impl KvKeyQuery {
    /// Returns true if the query matches this key, regardless of `max`.
    pub fn has(&self, key: &KvKey) -> bool {
        key.0.starts_with(&self.prefix) && self.after.as_deref().is_none_or(|after| key.as_str() > after)
    }

    /// Returns the range of keys with the prefix: its inclusive start and exclusive end, in bytes.
    /// The end is `None` if the prefix is empty.
    pub fn range(&self) -> (&[u8], Option<Vec<u8>>) {
        let mut end = self.prefix.as_bytes().to_vec();
        // No byte of UTF-8 is 0xff, so this does not overflow.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        (self.prefix.as_bytes(), (!end.is_empty()).then_some(end))
    }
}

/// A plugin's storage in kv.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvUsage {
    /// The number of values.
    pub values: u64,
    /// The size of all keys and values in bytes.
    pub bytes: u64,
}

/// The changes that one attempt makes to its plugin's kv values. They are committed together when the attempt succeeds,
/// or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvChanges {
    /// The plugin that owns the values.
    pub plugin: PluginId,
    /// `None` deletes the value.
    values: BTreeMap<KvKey, Option<SharedBytes>>,
    bytes: u64,
}

/// The quota that one more change of an attempt would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaExceeded {
    /// The number of changed values, `bounds::KV_WRITES_MAX`.
    Writes,
    /// The size of the changed keys and values, `bounds::KV_WRITES_BYTES_MAX`.
    Bytes,
}

impl fmt::Display for QuotaExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaExceeded::Writes => write!(f, "an attempt may change at most {} values", bounds::KV_WRITES_MAX),
            QuotaExceeded::Bytes => {
                write!(
                    f,
                    "the values that an attempt changes may have at most {} MiB in all",
                    bounds::KV_WRITES_BYTES_MAX / bounds::MIB
                )
            }
        }
    }
}

impl KvChanges {
    /// Returns an empty set of changes.
    pub fn new(plugin: PluginId) -> KvChanges {
        KvChanges { plugin, values: BTreeMap::new(), bytes: 0 }
    }

    /// Returns true if nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns the size of the changed keys and values in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the changes in the order of their keys; `None` deletes the value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&KvKey, Option<&SharedBytes>)> {
        self.values.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// Returns the change of this key: a new value, `Some(None)` if it is deleted, or `None` if the key is not changed.
    pub fn get(&self, key: &KvKey) -> Option<Option<&SharedBytes>> {
        self.values.get(key).map(Option::as_ref)
    }

    /// Adds a change. It replaces an earlier change of the same key.
    ///
    /// # Errors
    /// If the change exceeds a quota of the attempt; it is then not added.
    pub fn put(&mut self, key: KvKey, value: Option<SharedBytes>) -> Result<(), QuotaExceeded> {
        let weight = |value: &Option<SharedBytes>| (key.0.len() + value.as_ref().map_or(0, |value| value.len())) as u64;
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

    /// Undoes a `put`. `before` is what `get` returned for the key before it.
    pub fn undo(&mut self, key: KvKey, before: Option<Option<SharedBytes>>) {
        let weight = |value: &Option<SharedBytes>| (key.0.len() + value.as_ref().map_or(0, |value| value.len())) as u64;
        let put = before.as_ref().map_or(0, weight);
        let gone = match before {
            Some(before) => self.values.insert(key.clone(), before),
            None => self.values.remove(&key),
        };
        self.bytes = self.bytes + put - gone.as_ref().map_or(0, weight);
    }

    /// Returns how many committed keys to read for a page of `max` keys: some of those may be deleted by these changes.
    pub fn keys_to_read(&self, max: u32) -> u32 {
        let gone = self.values.values().filter(|value| value.is_none()).count();
        max.saturating_add(u32::try_from(gone).unwrap_or(u32::MAX))
    }

    /// Returns a page of keys as the attempt sees it: the committed keys with these changes applied.
    /// `committed` must have been read with the `max` of `keys_to_read`.
    pub fn over(&self, committed: Vec<KvKey>, wanted: &KvKeyQuery) -> Vec<KvKey> {
        let kept = committed.into_iter().filter(|key| !self.values.contains_key(key));
        let own =
            self.values.iter().filter(|(key, value)| value.is_some() && wanted.has(key)).map(|(key, _)| key.clone());
        let mut keys: Vec<KvKey> = kept.chain(own).collect();
        keys.sort_unstable();
        keys.truncate(wanted.max as usize);
        keys
    }

    /// Returns the plugin's usage after these changes, given its present `usage`. `length` returns the length in bytes
    /// of a key's present value: `Some(None)` if there is none, and `None` if it is not known, which counts as none.
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
        assert_eq!(some.keys_to_read(2), 3);
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

    #[test]
    fn a_kv_key_is_any_text_within_the_bound_and_reads_as_it_was_written() {
        let longest = "x".repeat(bounds::KV_KEY_BYTES_MAX);
        for good in ["a", "users/7 \n", &longest] {
            let key = key(good);
            assert_eq!((key.as_str(), key.to_string().as_str()), (good, good));
        }
        for (bad, length) in [("", 0), (&*"x".repeat(513), 513)] {
            let reason = bad.parse::<KvKey>().unwrap_err().reason;
            assert_eq!(reason, format!("expected 1 to 512 bytes, got {length}"));
        }
    }

    #[test]
    fn a_deletion_is_a_change_like_any_other() {
        assert!(changes(&[]).is_empty());
        assert!(!changes(&[("a", None)]).is_empty());
        assert_eq!(changes(&[("abc", None)]).bytes(), 3, "its key is written");
    }

    #[test]
    fn a_change_that_is_undone_leaves_what_was_there_before() {
        let before = changes(&[("a", Some("12345")), ("b", None)]);
        for (name, value) in [("a", Some("1")), ("a", None), ("b", Some("123")), ("new", Some("12")), ("new", None)] {
            let mut changed = before.clone();
            let was = changed.get(&key(name)).map(|value| value.cloned());
            changed.put(key(name), value.map(|value| value.as_bytes().into())).unwrap();
            assert_ne!(changed, before);
            changed.undo(key(name), was);
            assert_eq!(changed, before, "{name} with {value:?}");
        }
    }

    #[test]
    fn a_page_of_keys_starts_behind_the_last_one_of_the_page_before() {
        let wanted = KvKeyQuery { prefix: "a".into(), after: Some("a/2".into()), max: 9 };
        let has = ["a/1", "a/2", "a/3", "b"].map(|name| wanted.has(&key(name)));
        assert_eq!(has, [false, false, true, false]);
    }
}
