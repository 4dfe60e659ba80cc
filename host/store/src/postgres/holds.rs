//! Holds: what sets, ends and deletes them, and what a claim has to know of them.
//!
//! A claim closes the held lanes that it meets, until the last hold on them ends. Then the next claim opens them, by the row of
//! the lane alone. Setting and releasing a hold opens its lanes, too. Both lock the limit groups of their jobs, so that no claim
//! runs beside them.

use futures_util::try_join;
use tokio_postgres::types::Type;
use wharf_core::bounds;
use wharf_core::hold::{Hold, HoldScope, HoldTable, NewHold};
use wharf_core::time::Timestamp;

use super::hold_rows::{COLUMNS, read_hold};
use super::ledger::PostgresLedger;
use super::session::{SessionError, value};
use crate::columns::{timestamp, timestamp_us};
use crate::store::Claim;

/// The holds that concern a claim, without those of lanes.
#[derive(Debug, Default)]
pub(super) struct ClaimHolds {
    /// The holds in force of all, and of the plugins, tasks and limit groups of the claim.
    pub(super) of_tasks: HoldTable,
    /// When the next hold ends by itself.
    pub(super) next_end: Option<Timestamp>,
}

impl PostgresLedger<'_> {
    /// Sets a hold. Returns `None` if there are too many.
    pub(super) async fn set_hold(&mut self, new: &NewHold) -> Result<Option<Hold>, SessionError> {
        let hold = new.set_at(self.now);
        let (scope, max) = (hold.scope.to_string(), i64::from(bounds::HOLDS_MAX));
        let count = "SELECT count(*) FROM (SELECT FROM $schema.holds WHERE scope <> $1 LIMIT $2) AS others";
        let others = self.session.query_one(count, &[(&scope, Type::TEXT), (&max, Type::INT8)]).await?;
        if value::<i64>(&others, "holds", 0)? >= max {
            return Ok(None);
        }
        let text = "INSERT INTO $schema.holds (scope, until_at, reason, held_by, held_at) VALUES ($1, $2, $3, $4, $5)
                    ON CONFLICT (scope) DO UPDATE SET until_at = excluded.until_at, reason = excluded.reason,
                        held_by = excluded.held_by, held_at = excluded.held_at";
        let (until, since, reason) = (hold.until.map(timestamp_us), timestamp_us(hold.since), hold.reason.as_str());
        let args = [
            (&scope as _, Type::TEXT),
            (&until as _, Type::INT8),
            (&reason as _, Type::TEXT),
            (&hold.by as _, Type::TEXT),
            (&since as _, Type::INT8),
        ];
        self.session.query(text, &args).await?;
        self.has_holds = true;
        // An earlier hold may have closed its lanes for longer.
        self.open_held(&hold.scope).await?;
        Ok(Some(hold))
    }

    /// Removes a hold. Returns it if it was in force.
    pub(super) async fn release_hold(&mut self, scope: &HoldScope) -> Result<Option<Hold>, SessionError> {
        let delete = format!("DELETE FROM $schema.holds WHERE scope = $1 RETURNING {COLUMNS}");
        let deleted = self.session.query(&delete, &[(&scope.to_string(), Type::TEXT)]).await?;
        let Some(row) = deleted.first() else { return Ok(None) };
        self.open_held(scope).await?;
        Ok(Some(read_hold(row)?).filter(|hold| hold.is_in_force(self.now)))
    }

    /// Deletes at most `max` holds that have ended, and returns how many. It also opens every lane that no hold is on: one whose
    /// limit group was added while its hold was released may have been closed after that.
    pub(super) async fn delete_ended_holds(&mut self, max: u32) -> Result<u32, SessionError> {
        let delete = "DELETE FROM $schema.holds WHERE scope = ANY(ARRAY(
                          SELECT scope FROM $schema.holds WHERE until_at <= $1 ORDER BY until_at LIMIT $2))
                      RETURNING scope";
        let open = "UPDATE $schema.lines SET held_until_at = NULL
                    WHERE held_until_at IS NOT NULL AND limit_group + 0 = ANY($1) AND NOT EXISTS (
                        SELECT FROM $schema.names JOIN $schema.holds
                            ON scope IN ('group:' || names.text, 'key:' || key, 'group:' || names.text || ' key:' || key)
                        WHERE names.id = limit_group AND (until_at IS NULL OR until_at > $2))";
        // New lines of this transaction must be in the table before they can be opened.
        self.flush().await?;
        let (now, max) = (timestamp_us(self.now), i64::from(max));
        let (delete_args, open_args) = (
            [(&now as _, Type::INT8), (&max as _, Type::INT8)],
            [(&self.locked as _, Type::INT4_ARRAY), (&now as _, Type::INT8)],
        );
        let (deleted, _) =
            try_join!(self.session.query(delete, &delete_args), self.session.query(open, &open_args))?;
        self.lanes.clear();
        Ok(deleted.len() as u32)
    }

    /// Opens the lanes that a hold of this scope has closed. The next claim closes those again that another hold is on. Holds of
    /// all, of plugins and of tasks close no lanes: claims leave out their tasks.
    async fn open_held(&mut self, scope: &HoldScope) -> Result<(), SessionError> {
        let key = match scope {
            HoldScope::All | HoldScope::Plugin(_) | HoldScope::Task(_) => return Ok(()),
            HoldScope::Group(_) => None,
            HoldScope::Key { key, .. } => Some(key.as_str()),
        };
        let groups = match scope {
            HoldScope::Group(group) | HoldScope::Key { group: Some(group), .. } => {
                vec![self.names.number(group.as_str())?]
            }
            _ => self.locked.clone(),
        };
        // New lines of this transaction must be in the table before they can be opened.
        self.flush().await?;
        let open = "UPDATE $schema.lines SET held_until_at = NULL WHERE held_until_at + 0 IS NOT NULL AND limit_group = ANY($1)";
        let groups_arg = (&groups as _, Type::INT4_ARRAY);
        match key {
            None => self.session.query(open, &[groups_arg]).await?,
            Some(key) => {
                self.session.query(&format!("{open} AND key = $2"), &[groups_arg, (&key as _, Type::TEXT)]).await?
            }
        };
        self.lanes.clear();
        Ok(())
    }

    /// Reads what a claim has to know of holds, and opens the lanes of the locked limit groups whose holds have ended.
    pub(super) async fn read_holds(&mut self, claim: &Claim) -> Result<ClaimHolds, SessionError> {
        if !self.has_holds {
            return Ok(ClaimHolds::default());
        }
        let of_tasks = format!("SELECT {COLUMNS} FROM $schema.holds WHERE scope = ANY($1)");
        let next_end = "SELECT min(until_at) FROM $schema.holds WHERE until_at > $1";
        let open = "UPDATE $schema.lines SET held_until_at = NULL WHERE held_until_at <= $1 AND limit_group + 0 = ANY($2)";
        let (scopes, now) = (HoldScope::of_tasks(&claim.tasks), timestamp_us(self.now));
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        // New lines of this transaction must be in the table before they can be opened.
        let read = self.flush_and(async |this| {
            let (scopes_arg, now_arg) = ((&scopes as _, Type::TEXT_ARRAY), (&now as _, Type::INT8));
            let open_args = [now_arg.clone(), (&this.locked as _, Type::INT4_ARRAY)];
            try_join!(
                this.session.query(&of_tasks, std::slice::from_ref(&scopes_arg)),
                this.session.query_one(next_end, std::slice::from_ref(&now_arg)),
                this.session.query(open, &open_args),
            )
        });
        let (of_tasks, next_end, _) = read.await?;
        self.lanes.clear();
        Ok(ClaimHolds {
            of_tasks: of_tasks.iter().map(read_hold).collect::<Result<_, _>>()?,
            next_end: value::<Option<i64>>(&next_end, "holds", 0)?.map(timestamp),
        })
    }
}
