//! What plugins keep: changed with the attempt that says so, read beside the writer.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_postgres::types::Type;
use wharf_core::ids::PluginId;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};

use super::rows::parse;
use super::session::{Session, SessionError};

/// What a transaction has decided of values and not yet written.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<(PluginId, KvKey), Option<Arc<[u8]>>>);

impl Values {
    /// Of two changes of one value the later one stands.
    pub(super) fn change(&mut self, changes: &KvChanges) {
        let of = |key: &KvKey| (changes.plugin.clone(), key.clone());
        self.0.extend(changes.iter().map(|(key, value)| (of(key), value.cloned())));
    }

    /// To be written last: who changes a plugin's values holds their row of `kv_usage` until the end of the transaction, taken
    /// in the order of plugins, and waits for nothing else then.
    pub(super) async fn write(&self, session: &Session) -> Result<(), SessionError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut plugins: Vec<&str> = self.0.keys().map(|(plugin, _)| plugin.as_str()).collect();
        let of = plugins.clone();
        plugins.dedup();
        let keys: Vec<&[u8]> = self.0.keys().map(|(_, key)| key.as_str().as_bytes()).collect();
        let values: Vec<Option<&[u8]>> = self.0.values().map(Option::as_deref).collect();
        let hold = "INSERT INTO wharf.kv_usage (plugin, count, bytes)
                    SELECT plugin, 0, 0 FROM unnest($1::text[]) AS changed (plugin) ORDER BY plugin COLLATE \"C\"
                    ON CONFLICT (plugin) DO UPDATE SET count = kv_usage.count";
        // All parts see what was there before them; none but this transaction changes values of these plugins now.
        let change = "WITH new AS MATERIALIZED (
                SELECT *, (SELECT octet_length(kv.value) FROM wharf.kv
                           WHERE kv.plugin = asked.plugin AND kv.key = asked.key) AS old
                FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS asked (plugin, key, value)
            ), gone AS (
                DELETE FROM wharf.kv USING new WHERE new.value IS NULL AND kv.plugin = new.plugin AND kv.key = new.key
            ), put AS (
                INSERT INTO wharf.kv (plugin, key, value) SELECT plugin, key, value FROM new WHERE value IS NOT NULL
                ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value
            ), grown AS (
                SELECT plugin, count(value) - count(old) AS count,
                    sum(CASE WHEN value IS NULL THEN 0 ELSE octet_length(key) + octet_length(value) END
                        - CASE WHEN old IS NULL THEN 0 ELSE octet_length(key) + old END)::bigint AS bytes
                FROM new GROUP BY plugin
            )
            UPDATE wharf.kv_usage SET count = kv_usage.count + grown.count, bytes = kv_usage.bytes + grown.bytes
            FROM grown WHERE kv_usage.plugin = grown.plugin";
        let hold_args = [(&plugins as _, Type::TEXT_ARRAY)];
        let args = [(&of as _, Type::TEXT_ARRAY), (&keys as _, Type::BYTEA_ARRAY), (&values as _, Type::BYTEA_ARRAY)];
        futures_util::try_join!(session.ask(hold, &hold_args), session.ask(change, &args))?;
        Ok(())
    }
}

pub(super) async fn value(session: &Session, plugin: &PluginId, key: &KvKey) -> Result<Option<Vec<u8>>, SessionError> {
    let text = "SELECT value FROM wharf.kv WHERE plugin = $1 AND key = $2";
    let (plugin, key) = (plugin.as_str(), key.as_str().as_bytes());
    let found = session.ask(text, &[(&plugin, Type::TEXT), (&key, Type::BYTEA)]).await?;
    Ok(found.first().map(|row| row.get(0)))
}

pub(super) async fn keys(
    session: &Session,
    plugin: &PluginId,
    wanted: &KvKeyQuery,
) -> Result<Vec<KvKey>, SessionError> {
    let text =
        "SELECT key FROM wharf.kv WHERE plugin = $1 AND key > $2 AND key >= $3 AND key < $4 ORDER BY key LIMIT $5";
    let (from, until) = wanted.range();
    let (plugin, after) = (plugin.as_str(), wanted.after.as_deref().unwrap_or_default().as_bytes());
    // Without an end all that begins with a byte comes before this.
    let (until, max) = (until.unwrap_or_else(|| vec![0xff]), i64::from(wanted.max));
    let args = [
        (&plugin as _, Type::TEXT),
        (&after as _, Type::BYTEA),
        (&from as _, Type::BYTEA),
        (&until as _, Type::BYTEA),
        (&max as _, Type::INT8),
    ];
    let found = session.ask(text, &args).await?;
    found.iter().map(|row| parse("a key of a value", &String::from_utf8_lossy(row.get(0)))).collect()
}

pub(super) async fn usage(
    session: &Session,
    plugin: &PluginId,
    of: &[KvKey],
) -> Result<(KvUsage, Vec<Option<u64>>), SessionError> {
    let text = "SELECT coalesce(count, 0), coalesce(bytes, 0), ARRAY(
                    SELECT octet_length(value)::bigint FROM unnest($2::bytea[]) WITH ORDINALITY AS asked (key, place)
                    LEFT JOIN wharf.kv ON kv.plugin = $1 AND kv.key = asked.key ORDER BY place)
                FROM (SELECT) AS one LEFT JOIN wharf.kv_usage ON kv_usage.plugin = $1";
    let (plugin, keys) = (plugin.as_str(), of.iter().map(|key| key.as_str().as_bytes()).collect::<Vec<_>>());
    let row = session.ask_one(text, &[(&plugin, Type::TEXT), (&keys, Type::BYTEA_ARRAY)]).await?;
    let number = |place: usize| row.get::<_, i64>(place) as u64;
    let lengths = row.get::<_, Vec<Option<i64>>>(2).into_iter().map(|length| length.map(|length| length as u64));
    Ok((KvUsage { values: number(0), bytes: number(1) }, lengths.collect()))
}
