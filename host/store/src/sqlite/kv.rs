//! The values of plugins: changed with the attempt that requests it, and read without waiting for the writer.

use rusqlite::{Connection, OptionalExtension, params};
use wharf_core::ids::PluginId;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};

use super::ledger::SqliteLedger;
use crate::columns::{DamagedData, unsigned};

impl SqliteLedger<'_> {
    /// Changes a plugin's values, and the counts of its values and bytes.
    pub(super) fn change_values(&self, changes: &KvChanges) -> rusqlite::Result<()> {
        let plugin = changes.plugin.as_str();
        let (mut count, mut bytes) = (0i64, 0i64);
        for (key, value) in changes.iter() {
            let key = key.as_str().as_bytes();
            let mut find = self.conn.prepare_cached("SELECT length(value) FROM kv WHERE plugin = ?1 AND key = ?2")?;
            let old: Option<i64> = find.query_row(params![plugin, key], |row| row.get(0)).optional()?;
            if let Some(old) = old {
                count -= 1;
                bytes -= old + key.len() as i64;
            }
            match value {
                Some(value) => {
                    let mut put = self.conn.prepare_cached(
                        "INSERT INTO kv (plugin, key, value) VALUES (?1, ?2, ?3)
                         ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value",
                    )?;
                    put.execute(params![plugin, key, &**value])?;
                    count += 1;
                    bytes += (key.len() + value.len()) as i64;
                }
                None if old.is_some() => {
                    let mut delete = self.conn.prepare_cached("DELETE FROM kv WHERE plugin = ?1 AND key = ?2")?;
                    delete.execute(params![plugin, key])?;
                }
                None => {}
            }
        }
        let mut add = self.conn.prepare_cached(
            "INSERT INTO kv_usage (plugin, value_count, total_bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT (plugin) DO UPDATE SET value_count = value_count + excluded.value_count,
                 total_bytes = total_bytes + excluded.total_bytes",
        )?;
        add.execute(params![plugin, count, bytes])?;
        Ok(())
    }
}

/// Returns the value of a plugin under a key.
pub(super) fn value(conn: &Connection, plugin: &PluginId, key: &KvKey) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut find = conn.prepare_cached("SELECT value FROM kv WHERE plugin = ?1 AND key = ?2")?;
    find.query_row(params![plugin.as_str(), key.as_str().as_bytes()], |row| row.get(0)).optional()
}

/// Returns the keys of a plugin that match the query, in order.
pub(super) fn keys(conn: &Connection, plugin: &PluginId, query: &KvKeyQuery) -> rusqlite::Result<Vec<KvKey>> {
    let (from, until) = query.range();
    let after = query.after.as_deref().unwrap_or_default().as_bytes();
    // A range without an end includes all keys: they are UTF-8, and so sort before this byte.
    let until = until.unwrap_or_else(|| vec![0xff]);
    let mut find = conn.prepare_cached(
        "SELECT key FROM kv WHERE plugin = ?1 AND key > ?2 AND key >= ?3 AND key < ?4 ORDER BY key LIMIT ?5",
    )?;
    let found = find.query_map(params![plugin.as_str(), after, from, until, query.max], |row| {
        let bytes: Vec<u8> = row.get(0)?;
        let key = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
        Ok(key.ok_or_else(|| DamagedData::invalid("key of a value", &String::from_utf8_lossy(&bytes)))?)
    })?;
    found.collect()
}

/// Returns how much a plugin has in all, and the size in bytes of the value under each of `keys`, as of one moment.
pub(super) fn usage(
    conn: &Connection,
    plugin: &PluginId,
    keys: &[KvKey],
) -> rusqlite::Result<(KvUsage, Vec<Option<u64>>)> {
    let snapshot = conn.unchecked_transaction()?;
    let mut find = snapshot.prepare_cached("SELECT value_count, total_bytes FROM kv_usage WHERE plugin = ?1")?;
    let number = |row: &rusqlite::Row<'_>, column: usize| row.get(column).map(unsigned);
    let usage = find
        .query_row([plugin.as_str()], |row| Ok(KvUsage { values: number(row, 0)?, bytes: number(row, 1)? }))
        .optional()?;
    let mut find = snapshot.prepare_cached("SELECT length(value) FROM kv WHERE plugin = ?1 AND key = ?2")?;
    let mut length = |key: &KvKey| {
        find.query_row(params![plugin.as_str(), key.as_str().as_bytes()], |row| number(row, 0)).optional()
    };
    let lengths = keys.iter().map(&mut length).collect::<rusqlite::Result<_>>()?;
    Ok((usage.unwrap_or_default(), lengths))
}
