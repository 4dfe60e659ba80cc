//! What plugins keep: changed with the attempt that says so, read beside the writer.

use rusqlite::{Connection, OptionalExtension, params};
use wharf_core::ids::PluginId;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};

use super::ledger::Ledger;
use super::rows::damaged;

impl Ledger<'_> {
    /// Changes a plugin's values, and what is written of their number and bytes.
    pub(super) fn change_values(&self, changes: &KvChanges) -> rusqlite::Result<()> {
        let plugin = changes.plugin.as_str();
        let (mut count, mut bytes) = (0i64, 0i64);
        for (key, value) in changes.iter() {
            let key = key.as_str().as_bytes();
            let mut look = self.conn.prepare_cached("SELECT length(value) FROM kv WHERE plugin = ?1 AND key = ?2")?;
            let old: Option<i64> = look.query_row(params![plugin, key], |row| row.get(0)).optional()?;
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
                    let mut take = self.conn.prepare_cached("DELETE FROM kv WHERE plugin = ?1 AND key = ?2")?;
                    take.execute(params![plugin, key])?;
                }
                None => {}
            }
        }
        let mut add = self.conn.prepare_cached(
            "INSERT INTO kv_usage (plugin, count, bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT (plugin) DO UPDATE SET count = count + excluded.count, bytes = bytes + excluded.bytes",
        )?;
        add.execute(params![plugin, count, bytes])?;
        Ok(())
    }
}

pub(super) fn value(conn: &Connection, plugin: &PluginId, key: &KvKey) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut find = conn.prepare_cached("SELECT value FROM kv WHERE plugin = ?1 AND key = ?2")?;
    find.query_row(params![plugin.as_str(), key.as_str().as_bytes()], |row| row.get(0)).optional()
}

pub(super) fn keys(conn: &Connection, plugin: &PluginId, wanted: &KvKeyQuery) -> rusqlite::Result<Vec<KvKey>> {
    let (from, until) = wanted.range();
    let after = wanted.after.as_deref().unwrap_or_default().as_bytes();
    // Without an end all that begins with a byte comes before this.
    let until = until.unwrap_or_else(|| vec![0xff]);
    let mut find = conn.prepare_cached(
        "SELECT key FROM kv WHERE plugin = ?1 AND key > ?2 AND key >= ?3 AND key < ?4 ORDER BY key LIMIT ?5",
    )?;
    let found = find.query_map(params![plugin.as_str(), after, from, until, wanted.max], |row| {
        let bytes: Vec<u8> = row.get(0)?;
        let key = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
        key.ok_or_else(|| damaged("a key of a value", &String::from_utf8_lossy(&bytes)))
    })?;
    found.collect()
}

pub(super) fn usage(
    conn: &Connection,
    plugin: &PluginId,
    of: &[KvKey],
) -> rusqlite::Result<(KvUsage, Vec<Option<u64>>)> {
    let moment = conn.unchecked_transaction()?;
    let mut find = moment.prepare_cached("SELECT count, bytes FROM kv_usage WHERE plugin = ?1")?;
    let number = |row: &rusqlite::Row<'_>, place: usize| row.get::<_, i64>(place).map(|number| number as u64);
    let usage = find
        .query_row([plugin.as_str()], |row| Ok(KvUsage { values: number(row, 0)?, bytes: number(row, 1)? }))
        .optional()?;
    let mut look = moment.prepare_cached("SELECT length(value) FROM kv WHERE plugin = ?1 AND key = ?2")?;
    let mut length = |key: &KvKey| {
        look.query_row(params![plugin.as_str(), key.as_str().as_bytes()], |row| number(row, 0)).optional()
    };
    let lengths = of.iter().map(&mut length).collect::<rusqlite::Result<_>>()?;
    Ok((usage.unwrap_or_default(), lengths))
}
