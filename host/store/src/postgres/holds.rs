//! Holds: what sets, ends and deletes them, and what a claim has to know of them.
//!
//! A lane whose key is held is closed until its last hold ends: by who sets the hold, or by who adds the lane. So a claim does
//! not meet it. Who sets or releases a hold locks the limit groups of its jobs, so that no claim runs beside that. The first claim
//! after the end of a hold opens its lanes, by their own rows alone. Holds of all, of plugins, tasks and groups close no lanes:
//! claims leave out their tasks and groups.

use async_trait::async_trait;
use futures_util::try_join;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::hold::{Hold, HoldScope, HoldTable, NewHold};
use wharf_core::time::Timestamp;

use super::hold_rows::{self, COLUMNS, read_hold};
use super::lane_rows::{LaneRow, lane_columns};
use super::ledger::PostgresLedger;
use super::operation::{WriteRequest, WriteResult, group_of};
use super::session::{SessionError, computed, value};
use super::{PostgresStore, unexpected_reply};
use crate::columns::{timestamp, timestamp_us};
use crate::store::{Claim, HoldPage, HoldStore, Queue, StoreError};
use crate::wait_columns::{HELD, WHOLE};

/// The holds that concern a claim, without those of keys.
#[derive(Debug, Default)]
pub(super) struct ClaimHolds {
    /// The holds of all, and of the plugins, tasks and limit groups of the claim.
    pub(super) table: HoldTable,
    /// The locked limit groups that are not held.
    pub(super) open_groups: Vec<i32>,
    /// When the next hold ends by itself.
    pub(super) next_end: Option<Timestamp>,
}

/// Returns the part of a statement that keeps holds, which the statement is about to change, with the open operations at whose beginning
/// they were in force. `which` is a condition on their scopes.
fn keep(which: &str) -> String {
    format!(
        "kept AS (
             INSERT INTO $schema.operation_waits (operation, kind, name, key)
             SELECT operations.id, {HELD}, scope, '' FROM $schema.operations CROSS JOIN $schema.holds
             WHERE ended_at IS NULL AND {which} AND held_at <= created_at AND (until_at IS NULL OR until_at > created_at)
             AND EXISTS (SELECT FROM $schema.operation_waits WHERE operation = operations.id AND kind = {WHOLE})
             ON CONFLICT DO NOTHING)"
    )
}

impl PostgresLedger<'_> {
    /// Sets a hold. Returns `None` if there are too many.
    pub(super) async fn set_hold(&mut self, new: &NewHold) -> Result<Option<Hold>, SessionError> {
        let mut earlier = None;
        if new.by.is_plugin() {
            let name = new.scope.to_string();
            let text = format!("SELECT {COLUMNS} FROM $schema.holds WHERE scope = $1");
            let found = self.session.query(&text, &[(&name as _, Type::TEXT)]).await?;
            earlier = found.first().map(read_hold).transpose()?;
        }
        let Some(hold) = new.set_over(earlier.as_ref(), self.now) else { return Ok(earlier) };
        let (scope, held) = (hold.scope.to_string(), self.count_of_holds().await?);
        let room = i64::from(new.others_max()) - held;
        let text = format!(
            "WITH {} INSERT INTO $schema.holds (scope, until_at, reason, held_by, held_at) SELECT $1, $2, $3, $4, $5
             WHERE $6 > 0 OR EXISTS (SELECT FROM $schema.holds WHERE scope = $1)
             ON CONFLICT (scope) DO UPDATE SET until_at = excluded.until_at, reason = excluded.reason,
                 held_by = excluded.held_by, held_at = excluded.held_at RETURNING xmax = 0",
            keep("scope = $1")
        );
        let (until, since, reason) = (hold.until.map(timestamp_us), timestamp_us(hold.since), hold.reason.as_str());
        let args = [
            (&scope as _, Type::TEXT),
            (&until as _, Type::INT8),
            (&reason as _, Type::TEXT),
            (&hold.by as _, Type::TEXT),
            (&since as _, Type::INT8),
            (&room as _, Type::INT8),
        ];
        let lanes = self.lanes_of(&hold.scope).await?;
        // In one way there and back; if there are too many holds, the second statement changes nothing.
        let (set, ()) = try_join!(self.session.query(&text, &args), self.update_lanes(lanes))?;
        let Some(row) = set.first() else { return Ok(None) };
        // A row that was in the table has another transaction behind it.
        let is_new: bool = computed(row, 0)?;
        self.hold_count = Some(held + i64::from(is_new));
        self.has_holds = true;
        self.forget_lanes();
        if let Some(act) = NewAct::of_hold(new.by.clone(), &hold) {
            self.write_act(&act).await?;
        }
        Ok(Some(hold))
    }

    /// Returns how many holds there are, as far as any bound asks. They are counted once for a transaction: it may set many.
    async fn count_of_holds(&mut self) -> Result<i64, SessionError> {
        if let Some(count) = self.hold_count {
            return Ok(count);
        }
        let text = "SELECT count(*) FROM (SELECT FROM $schema.holds LIMIT $1) AS holds";
        let max = i64::from(bounds::HOLDS_WITH_WIDE_MAX);
        let count = computed(&self.session.query_one(text, &[(&max as _, Type::INT8)]).await?, 0)?;
        self.hold_count = Some(count);
        Ok(count)
    }

    /// Removes a hold. Returns it if it was in force.
    pub(super) async fn release_hold(&mut self, scope: &HoldScope, by: &Author) -> Result<Option<Hold>, SessionError> {
        let kept = keep("scope = $1");
        let delete = format!("WITH {kept} DELETE FROM $schema.holds WHERE scope = $1 RETURNING {COLUMNS}");
        let lanes = self.lanes_of(scope).await?;
        let (name, session) = (scope.to_string(), self.session);
        let args = [(&name as _, Type::TEXT)];
        let (deleted, ()) = try_join!(session.query(&delete, &args), self.update_lanes(lanes))?;
        self.hold_count = None;
        self.forget_lanes();
        let Some(row) = deleted.first() else { return Ok(None) };
        let released = Some(read_hold(row)?).filter(|hold| hold.is_in_force(self.now));
        if released.is_some() {
            self.write_act(&NewAct::of_release(by.clone(), scope)).await?;
        }
        Ok(released)
    }

    /// Deletes at most `max` holds that have ended, and returns how many. It also opens every lane that no hold is on: the limit
    /// group of a lane may have been added while its hold was released.
    pub(super) async fn delete_ended_holds(&mut self, max: u32) -> Result<u32, SessionError> {
        let delete = format!(
            "WITH ended AS MATERIALIZED (SELECT scope AS ended FROM $schema.holds WHERE until_at <= $1 ORDER BY until_at LIMIT $2), {}
             DELETE FROM $schema.holds WHERE scope = ANY(ARRAY(SELECT ended FROM ended)) RETURNING scope",
            keep("scope = ANY(ARRAY(SELECT ended FROM ended))")
        );
        let open = "UPDATE $schema.lines SET held_until_at = NULL
                    WHERE held_until_at IS NOT NULL AND limit_group + 0 = ANY($1) AND NOT EXISTS (
                        SELECT FROM $schema.names JOIN $schema.holds
                            ON scope IN ('key:' || key, 'group:' || names.text || ' key:' || key)
                        WHERE names.id = limit_group AND (until_at IS NULL OR until_at > $2))";
        // New lines of this transaction must be in the table before they can be opened.
        self.flush().await?;
        let (now, max) = (timestamp_us(self.now), i64::from(max));
        let (delete_args, open_args) = (
            [(&now as _, Type::INT8), (&max as _, Type::INT8)],
            [(&self.locked as _, Type::INT4_ARRAY), (&now as _, Type::INT8)],
        );
        let (deleted, _) = try_join!(self.session.query(&delete, &delete_args), self.session.query(open, &open_args))?;
        self.hold_count = None;
        self.forget_lanes();
        Ok(deleted.len() as u32)
    }

    /// Returns the limit groups and the key of the lanes that a hold with this scope is on; `None` if it is on no lanes of their own.
    /// New lines of this transaction are in the table afterwards, so that they can be changed there.
    async fn lanes_of<'s>(&mut self, scope: &'s HoldScope) -> Result<Option<(Vec<i32>, &'s str)>, SessionError> {
        let HoldScope::Key { key, .. } = scope else { return Ok(None) };
        let groups = match group_of(scope) {
            Some(group) => vec![self.names.number(group.as_str())?],
            None => self.locked.clone(),
        };
        self.flush().await?;
        Ok(Some((groups, key.as_str())))
    }

    /// Closes the lanes of a key that is held now, and opens those of one that is held no more.
    async fn update_lanes(&self, lanes: Option<(Vec<i32>, &str)>) -> Result<(), SessionError> {
        let Some((groups, key)) = lanes else { return Ok(()) };
        let text = "UPDATE $schema.lines SET held_until_at = (
                        SELECT max(coalesce(until_at, 9223372036854775807)) FROM $schema.names CROSS JOIN LATERAL (
                            SELECT until_at FROM $schema.holds WHERE scope = 'key:' || $2
                            UNION ALL SELECT until_at FROM $schema.holds WHERE scope = 'group:' || names.text || ' key:' || $2
                        ) AS held WHERE names.id = lines.limit_group AND (until_at IS NULL OR until_at > $3))
                    WHERE limit_group = ANY($1) AND key = $2";
        let now = timestamp_us(self.now);
        let args = [(&groups as _, Type::INT4_ARRAY), (&key as _, Type::TEXT), (&now as _, Type::INT8)];
        self.session.query(text, &args).await.map(drop)
    }

    fn forget_lanes(&mut self) {
        self.lanes.clear();
        self.lane_holds.clear();
    }

    /// Reads until when lanes are held that may be added.
    pub(super) async fn read_lane_holds<'l>(
        &mut self,
        lanes: impl IntoIterator<Item = &'l LaneRow>,
    ) -> Result<(), SessionError> {
        let (groups, keys) = lane_columns(lanes.into_iter().filter(|lane| !lane.key.is_empty()));
        // Each scope by itself: with both in one condition the server reads all holds for each lane.
        let text = "SELECT lanes.limit_group, lanes.key, max(coalesce(until_at, 9223372036854775807))
                    FROM unnest($1::int[], $2::text[]) AS lanes (limit_group, key) JOIN $schema.names ON names.id = lanes.limit_group
                    CROSS JOIN LATERAL (
                        SELECT until_at FROM $schema.holds WHERE scope = 'key:' || lanes.key
                        UNION ALL SELECT until_at FROM $schema.holds WHERE scope = 'group:' || names.text || ' key:' || lanes.key
                    ) AS held WHERE until_at IS NULL OR until_at > $3 GROUP BY lanes.limit_group, lanes.key";
        let now = timestamp_us(self.now);
        let args = [(&groups as _, Type::INT4_ARRAY), (&keys as _, Type::TEXT_ARRAY), (&now as _, Type::INT8)];
        for row in self.session.query_if(self.has_holds && !keys.is_empty(), text, &args).await? {
            let lane = LaneRow { group: value(&row, "holds", 0)?, key: value(&row, "holds", 1)? };
            self.lane_holds.insert(lane, value(&row, "holds", 2)?);
        }
        Ok(())
    }

    /// Opens the lanes of the locked limit groups whose holds have ended, and reads the holds that concern a claim, in one statement:
    /// while anything is held, every claim pays for it.
    pub(super) async fn claim_holds(&self, claim: &Claim) -> Result<ClaimHolds, SessionError> {
        if !self.has_holds {
            return Ok(ClaimHolds { open_groups: self.locked.clone(), ..ClaimHolds::default() });
        }
        let mut scopes = HoldScope::of_tasks(&claim.tasks);
        for number in &self.locked {
            scopes.insert(HoldScope::Group(self.names.group(*number)?));
        }
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let now = timestamp_us(self.now);
        let text = format!(
            "WITH opened AS (
                 UPDATE $schema.lines SET held_until_at = NULL WHERE held_until_at <= $1 AND limit_group + 0 = ANY($2)
             )
             SELECT {COLUMNS}, next_end FROM (SELECT min(until_at) AS next_end FROM $schema.holds WHERE until_at > $1) AS ends
             LEFT JOIN $schema.holds ON scope = ANY($3)"
        );
        let args = [(&now as _, Type::INT8), (&self.locked as _, Type::INT4_ARRAY), (&scopes as _, Type::TEXT_ARRAY)];
        let found = self.session.query(&text, &args).await?;
        let is_hold = |row: &&Row| value::<Option<&str>>(row, "holds", 0).is_ok_and(|scope| scope.is_some());
        let table: HoldTable = found.iter().filter(is_hold).map(read_hold).collect::<Result<_, _>>()?;
        let mut open_groups = Vec::new();
        for number in &self.locked {
            if !table.is_on_group(&self.names.group(*number)?, self.now) {
                open_groups.push(*number);
            }
        }
        let next_end = match found.first() {
            Some(row) => value::<Option<i64>>(row, "holds", 5)?.map(timestamp),
            None => None,
        };
        Ok(ClaimHolds { table, open_groups, next_end })
    }
}

#[async_trait]
impl HoldStore for PostgresStore {
    async fn set_hold(&self, hold: NewHold) -> Result<Option<Hold>, StoreError> {
        match self.write(WriteRequest::SetHold(hold)).await? {
            WriteResult::Hold(set) => Ok(set),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn release_hold(&self, scope: HoldScope, by: Author) -> Result<Option<Hold>, StoreError> {
        match self.write(WriteRequest::ReleaseHold(scope, by)).await? {
            WriteResult::Hold(released) => Ok(released),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn holds(&self, after: Option<HoldScope>, max: u32) -> Result<HoldPage, StoreError> {
        let session = self.reader().await?;
        let page = hold_rows::page(&session, after.as_ref(), max, self.now()).await;
        self.finish(session, page)
    }

    async fn holds_of(&self, scopes: Vec<HoldScope>) -> Result<Vec<Hold>, StoreError> {
        let session = self.reader().await?;
        let holds = hold_rows::of_scopes(&session, &scopes, self.now()).await;
        self.finish(session, holds)
    }

    async fn delete_ended_holds(&self, max: u32) -> Result<u32, StoreError> {
        let session = self.reader().await?;
        let traces = hold_rows::has_traces(&session, self.now()).await;
        if !self.finish(session, traces)? {
            return Ok(0);
        }
        match self.write(WriteRequest::DeleteEndedHolds(max)).await? {
            WriteResult::HoldsDeleted(deleted) => Ok(deleted),
            other => Err(unexpected_reply(&other)),
        }
    }
}
