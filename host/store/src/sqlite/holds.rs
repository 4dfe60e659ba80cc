//! Holds: what sets, ends and deletes them, and which lanes are closed because of them.
//!
//! The writer remembers all holds. A claim closes the held lanes that it meets. They are opened when a hold on them is set,
//! released or deleted, and by the first claim after it ended.

use rusqlite::params;
use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::hold::{Hold, HoldScope, HoldTable, NewHold};
use wharf_core::time::Timestamp;

use super::hold_rows::read_hold;
use super::ledger::SqliteLedger;
use crate::columns::timestamp_us;

impl SqliteLedger<'_> {
    /// Returns all holds, in force or not.
    pub(super) fn holds(&mut self) -> rusqlite::Result<&mut HoldTable> {
        if self.holds.is_none() {
            let mut all = self.conn.prepare_cached("SELECT scope, until_at, reason, held_by, held_at FROM holds")?;
            self.holds = Some(all.query_map([], read_hold)?.collect::<rusqlite::Result<_>>()?);
        }
        Ok(self.holds.get_or_insert_default())
    }

    /// Sets a hold. Returns `None` if there are too many.
    pub(super) fn set_hold(&mut self, new: &NewHold) -> rusqlite::Result<Option<Hold>> {
        let now = self.now();
        let holds = self.holds()?;
        let earlier = holds.get(&new.scope);
        let Some(hold) = new.set_over(earlier, now) else { return Ok(earlier.cloned()) };
        if holds.get(&hold.scope).is_none() && holds.len() >= new.others_max() as usize {
            return Ok(None);
        }
        holds.set(hold.clone());
        self.keep_hold(&hold.scope)?;
        let mut write = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO holds (scope, until_at, reason, held_by, held_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let (until, since) = (hold.until.map(timestamp_us), timestamp_us(hold.since));
        write.execute(params![hold.scope.to_string(), until, hold.reason.as_str(), hold.by, since])?;
        drop(write);
        // An earlier hold may have closed its lanes for longer.
        self.open_held(&hold.scope);
        if let Some(act) = NewAct::of_hold(new.by.clone(), &hold) {
            self.write_act(&act)?;
        }
        Ok(Some(hold))
    }

    /// Removes a hold. Returns it if it was in force.
    pub(super) fn release_hold(&mut self, scope: &HoldScope, by: &Author) -> rusqlite::Result<Option<Hold>> {
        let now = self.now();
        let released = self.remove_hold(scope)?.filter(|hold| hold.is_in_force(now));
        if released.is_some() {
            self.write_act(&NewAct::of_release(by.clone(), scope))?;
        }
        Ok(released)
    }

    /// Deletes at most `max` holds that have ended, and returns how many.
    pub(super) fn delete_ended_holds(&mut self, max: u32) -> rusqlite::Result<u32> {
        let now = self.now();
        let ended = self.holds()?.ended(now, max as usize);
        for scope in &ended {
            self.remove_hold(scope)?;
        }
        Ok(ended.len() as u32)
    }

    fn remove_hold(&mut self, scope: &HoldScope) -> rusqlite::Result<Option<Hold>> {
        let Some(hold) = self.holds()?.remove(scope) else { return Ok(None) };
        self.keep_hold(scope)?;
        self.conn.prepare_cached("DELETE FROM holds WHERE scope = ?1")?.execute([scope.to_string()])?;
        self.open_held(scope);
        Ok(Some(hold))
    }

    /// Opens the lanes of the holds that ended since the last claim. Only the store's clock decides; if it was set back, holds
    /// are in force again, and end again.
    pub(super) fn open_ended_holds(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        if self.holds()?.is_empty() {
            return Ok(());
        }
        let since = self.holds_ended_by;
        for scope in self.holds()?.ended_since(since, now) {
            self.open_held(&scope);
        }
        self.holds_ended_by = now;
        Ok(())
    }

    /// Opens the lanes that a hold of this scope has closed. The next claim closes those again that are full, or that another
    /// hold is on. Holds of all, of plugins and of tasks close no lanes: claims leave out their tasks.
    fn open_held(&mut self, scope: &HoldScope) {
        match scope {
            HoldScope::All | HoldScope::Plugin(_) | HoldScope::Task(_) => {}
            HoldScope::Group(group) => self.lanes.open_group(group),
            HoldScope::Key { group, key } => self.lanes.open_key(group.as_ref(), key),
        }
    }
}
