//! When each digest of a plugin was loaded first by any host.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::time::Timestamp;

use super::rows::timestamp;
use super::session::{Session, SessionError, value};
use super::time::{NOW, Time};
use crate::announced_plugins::PluginDigest;
use crate::columns::{parse, timestamp_us};

/// The moment behind the last resolve of a plugin's groups, for a row of `seen`; see `digest_first_seen` of the core.
const AFTER_RESOLVED: &str = "(SELECT max(changed_at) + 1 FROM $schema.failure_groups
    WHERE state = 'resolved' AND split_part(task, '/', 1) = seen.plugin)";
/// The condition that a row of `seen` is not in the table.
const IS_NEW: &str = "NOT EXISTS (SELECT FROM $schema.plugin_digests AS known
    WHERE known.plugin = seen.plugin AND known.digest = seen.digest)";

/// The columns of digests, in the order in which all transactions lock them.
struct Columns<'d> {
    plugins: Vec<&'d str>,
    digests: Vec<&'d str>,
    versions: Vec<&'d str>,
}

impl<'d> Columns<'d> {
    /// `seen` is sorted.
    fn new(seen: &'d [PluginDigest]) -> Columns<'d> {
        Columns {
            plugins: seen.iter().map(|one| one.plugin.as_str()).collect(),
            digests: seen.iter().map(|one| one.digest.as_str()).collect(),
            versions: seen.iter().map(|one| one.version.as_str()).collect(),
        }
    }
}

/// Notes that these are loaded now, as far as it is not noted, and deletes the oldest of plugins that have too many.
pub(super) async fn see(session: &Session, time: &Time, seen: &[PluginDigest]) -> Result<(), SessionError> {
    let (columns, now) = (Columns::new(seen), time.manual_micros());
    let add = format!(
        "INSERT INTO $schema.plugin_digests (plugin, digest, version, first_seen_at)
         SELECT plugin, digest, version, greatest(coalesce($4::bigint, {NOW}), {AFTER_RESOLVED})
         FROM unnest($1::text[], $2::text[], $3::text[]) AS seen (plugin, digest, version) WHERE {IS_NEW}
         ORDER BY plugin COLLATE \"C\", digest COLLATE \"C\" ON CONFLICT DO NOTHING"
    );
    let args = [
        (&columns.plugins as _, Type::TEXT_ARRAY),
        (&columns.digests as _, Type::TEXT_ARRAY),
        (&columns.versions as _, Type::TEXT_ARRAY),
        (&now as _, Type::INT8),
    ];
    session.query(&add, &args).await?;
    let trim = "DELETE FROM $schema.plugin_digests WHERE (plugin, digest) IN (
                    SELECT plugin, digest FROM (
                        SELECT plugin, digest,
                            row_number() OVER (PARTITION BY plugin ORDER BY first_seen_at DESC, digest DESC) AS place
                        FROM $schema.plugin_digests WHERE plugin = ANY($1)) AS placed
                    WHERE place > $2)";
    let max = i64::from(bounds::PLUGIN_DIGESTS_MAX);
    session.query(trim, &[(&columns.plugins, Type::TEXT_ARRAY), (&max, Type::INT8)]).await.map(drop)
}

/// Returns when these were seen first, in a transaction at `now`. One that is not known is noted.
pub(super) async fn first_seen(
    session: &Session,
    seen: &[PluginDigest],
    now: Timestamp,
) -> Result<HashMap<(PluginId, String), Timestamp>, SessionError> {
    let (columns, at) = (Columns::new(seen), timestamp_us(now));
    // What another transaction adds at this moment is in neither part: it is as new as what this one adds.
    let text = format!(
        "WITH seen AS MATERIALIZED (
                    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS seen (plugin, digest, version)
                ), added AS (
                    INSERT INTO $schema.plugin_digests (plugin, digest, version, first_seen_at)
                    SELECT plugin, digest, version, greatest($4, {AFTER_RESOLVED}) FROM seen WHERE {IS_NEW}
                    ORDER BY plugin COLLATE \"C\", digest COLLATE \"C\"
                    ON CONFLICT DO NOTHING RETURNING plugin, digest, first_seen_at
                )
                SELECT plugin, digest, first_seen_at FROM $schema.plugin_digests
                WHERE (plugin, digest) IN (SELECT plugin, digest FROM seen)
                UNION ALL SELECT plugin, digest, first_seen_at FROM added"
    );
    let args = [
        (&columns.plugins as _, Type::TEXT_ARRAY),
        (&columns.digests as _, Type::TEXT_ARRAY),
        (&columns.versions as _, Type::TEXT_ARRAY),
        (&at as _, Type::INT8),
    ];
    let mut first: HashMap<(PluginId, String), Timestamp> =
        seen.iter().map(|one| ((one.plugin.clone(), one.digest.clone()), now)).collect();
    for row in session.query(&text, &args).await? {
        let plugin = parse("plugin", value(&row, "plugin_digests", 0)?)?;
        first.insert((plugin, value(&row, "plugin_digests", 1)?), timestamp(&row, "plugin_digests", "first_seen_at")?);
    }
    Ok(first)
}
