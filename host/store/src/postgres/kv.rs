//! The values that plugins keep: changed in the transaction of the attempt that changed them, read without the writer.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio_postgres::types::Type;
use wharf_core::ids::PluginId;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::shared_bytes::SharedBytes;

use super::PostgresStore;
use super::session::{Session, SessionError, value};
use crate::columns::parse;
use crate::store::{KvStore, StoreError};

/// Changes of values that a transaction has not written yet: a value, or `None` to delete it.
#[derive(Debug, Default)]
pub(super) struct KvWrites(BTreeMap<(PluginId, KvKey), Option<SharedBytes>>);

impl KvWrites {
    /// Adds changes. A later change of a value replaces an earlier one.
    pub(super) fn add(&mut self, changes: &KvChanges) {
        let id = |key: &KvKey| (changes.plugin.clone(), key.clone());
        self.0.extend(changes.iter().map(|(key, value)| (id(key), value.cloned())));
    }

    /// Writes the changes. Must be called last: a transaction that changes a plugin's values locks its row of `kv_usage` until
    /// it ends, in the order of plugins, and must not wait for other locks then.
    pub(super) async fn write(&self, session: &Session) -> Result<(), SessionError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut plugins: Vec<&str> = self.0.keys().map(|(plugin, _)| plugin.as_str()).collect();
        let changed_plugins = plugins.clone();
        plugins.dedup();
        let keys: Vec<&[u8]> = self.0.keys().map(|(_, key)| key.as_str().as_bytes()).collect();
        let values: Vec<Option<&[u8]>> = self.0.values().map(Option::as_deref).collect();
        let lock = "INSERT INTO $schema.kv_usage (plugin, value_count, total_bytes)
                    SELECT plugin, 0, 0 FROM unnest($1::text[]) AS changed (plugin) ORDER BY plugin COLLATE \"C\"
                    ON CONFLICT (plugin) DO UPDATE SET value_count = kv_usage.value_count";
        // All parts of the statement see the values from before it; no other transaction changes values of these plugins now.
        let change = "WITH new AS MATERIALIZED (
                SELECT *, (SELECT octet_length(kv.value) FROM $schema.kv
                           WHERE kv.plugin = changed.plugin AND kv.key = changed.key) AS old_bytes
                FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS changed (plugin, key, value)
            ), gone AS (
                DELETE FROM $schema.kv USING new WHERE new.value IS NULL AND kv.plugin = new.plugin AND kv.key = new.key
            ), put AS (
                INSERT INTO $schema.kv (plugin, key, value) SELECT plugin, key, value FROM new WHERE value IS NOT NULL
                ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value
            ), grown AS (
                SELECT plugin, count(value) - count(old_bytes) AS value_count,
                    sum(CASE WHEN value IS NULL THEN 0 ELSE octet_length(key) + octet_length(value) END
                        - CASE WHEN old_bytes IS NULL THEN 0 ELSE octet_length(key) + old_bytes END)::bigint AS total_bytes
                FROM new GROUP BY plugin
            )
            UPDATE $schema.kv_usage SET value_count = kv_usage.value_count + grown.value_count,
                total_bytes = kv_usage.total_bytes + grown.total_bytes
            FROM grown WHERE kv_usage.plugin = grown.plugin";
        let lock_args = [(&plugins as _, Type::TEXT_ARRAY)];
        let args = [
            (&changed_plugins as _, Type::TEXT_ARRAY),
            (&keys as _, Type::BYTEA_ARRAY),
            (&values as _, Type::BYTEA_ARRAY),
        ];
        futures_util::try_join!(session.query(lock, &lock_args), session.query(change, &args))?;
        Ok(())
    }
}

/// Reads a value.
pub(super) async fn get(session: &Session, plugin: &PluginId, key: &KvKey) -> Result<Option<Vec<u8>>, SessionError> {
    let text = "SELECT value FROM $schema.kv WHERE plugin = $1 AND key = $2";
    let (plugin, key) = (plugin.as_str(), key.as_str().as_bytes());
    let found = session.query(text, &[(&plugin, Type::TEXT), (&key, Type::BYTEA)]).await?;
    found.first().map(|row| value(row, "kv", 0)).transpose()
}

/// Lists the keys of a plugin's values, in order.
pub(super) async fn keys(session: &Session, plugin: &PluginId, query: &KvKeyQuery) -> Result<Vec<KvKey>, SessionError> {
    let text =
        "SELECT key FROM $schema.kv WHERE plugin = $1 AND key > $2 AND key >= $3 AND key < $4 ORDER BY key LIMIT $5";
    let (from, until) = query.range();
    let (plugin, after) = (plugin.as_str(), query.after.as_deref().unwrap_or_default().as_bytes());
    // A range without an end ends here: all keys start with a lower byte.
    let (until, max) = (until.unwrap_or_else(|| vec![0xff]), i64::from(query.max));
    let args = [
        (&plugin as _, Type::TEXT),
        (&after as _, Type::BYTEA),
        (&from as _, Type::BYTEA),
        (&until as _, Type::BYTEA),
        (&max as _, Type::INT8),
    ];
    let found = session.query(text, &args).await?;
    found.iter().map(|row| Ok(parse("key of a value", &String::from_utf8_lossy(value(row, "kv", 0)?))?)).collect()
}

/// Reads the usage of a plugin, and the sizes of the values under these keys in bytes, in the order of `of`.
pub(super) async fn usage(
    session: &Session,
    plugin: &PluginId,
    of: &[KvKey],
) -> Result<(KvUsage, Vec<Option<u64>>), SessionError> {
    let text = "SELECT coalesce(value_count, 0), coalesce(total_bytes, 0), ARRAY(
                    SELECT octet_length(value)::bigint FROM unnest($2::bytea[]) WITH ORDINALITY AS wanted (key, position)
                    LEFT JOIN $schema.kv ON kv.plugin = $1 AND kv.key = wanted.key ORDER BY position)
                FROM (SELECT) AS one LEFT JOIN $schema.kv_usage ON kv_usage.plugin = $1";
    let (plugin, keys) = (plugin.as_str(), of.iter().map(|key| key.as_str().as_bytes()).collect::<Vec<_>>());
    let row = session.query_one(text, &[(&plugin, Type::TEXT), (&keys, Type::BYTEA_ARRAY)]).await?;
    let number = |column: usize| value::<i64>(&row, "kv_usage", column).map(|number| number as u64);
    let lengths: Vec<Option<i64>> = value(&row, "kv", 2)?;
    let lengths = lengths.into_iter().map(|length| length.map(|length| length as u64));
    Ok((KvUsage { values: number(0)?, bytes: number(1)? }, lengths.collect()))
}

#[async_trait]
impl KvStore for PostgresStore {
    async fn value(&self, plugin: PluginId, key: KvKey) -> Result<Option<Vec<u8>>, StoreError> {
        let session = self.reader().await?;
        let value = get(&session, &plugin, &key).await;
        self.finish(session, value)
    }

    async fn value_keys(&self, plugin: PluginId, query: KvKeyQuery) -> Result<Vec<KvKey>, StoreError> {
        let session = self.reader().await?;
        let keys = keys(&session, &plugin, &query).await;
        self.finish(session, keys)
    }

    async fn usage(&self, plugin: PluginId, of: Vec<KvKey>) -> Result<(KvUsage, Vec<Option<u64>>), StoreError> {
        let session = self.reader().await?;
        let usage = usage(&session, &plugin, &of).await;
        self.finish(session, usage)
    }
}
