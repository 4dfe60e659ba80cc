//! Limits that an operator sets while hosts run.

use tokio_postgres::types::Type;
use wharf_core::limits::{Limits, Override};

use super::ledger::PostgresLedger;
use super::session::SessionError;
use crate::columns::key_text;

impl PostgresLedger<'_> {
    /// Puts an override in force, or ends it if it has no limits. Closed lanes of its group are opened; the next claim closes
    /// those again that are full.
    pub(super) async fn set_override(&mut self, change: &Override) -> Result<(), SessionError> {
        let (group, key) = (change.group.as_str(), key_text(change.key.as_ref()));
        let number = self.names.number(group)?;
        let target = [(&group as _, Type::TEXT), (&key as _, Type::TEXT)];
        if change.limits == Limits::default() {
            self.session.query("DELETE FROM $schema.overrides WHERE limit_group = $1 AND key = $2", &target).await?;
        } else {
            let (per_key, total) = (change.limits.per_key.map(i64::from), change.limits.total.map(i64::from));
            let text = "INSERT INTO $schema.overrides (limit_group, key, per_key, total) VALUES ($1, $2, $3, $4)
                        ON CONFLICT (limit_group, key) DO UPDATE SET per_key = excluded.per_key, total = excluded.total";
            let args = [target[0].clone(), target[1].clone(), (&per_key as _, Type::INT8), (&total as _, Type::INT8)];
            self.session.query(text, &args).await?;
        }
        self.overrides.retain(|set| set.group != change.group || set.key != change.key);
        if change.limits != Limits::default() {
            self.overrides.push(change.clone());
        }
        // New lines of this transaction must be in the table before they can be opened.
        self.flush().await?;
        let open =
            "UPDATE $schema.lines SET closed_by_limit = NULL WHERE closed_by_limit IS NOT NULL AND limit_group = $1";
        self.session.query(open, &[(&number, Type::INT4)]).await?;
        self.lanes.clear();
        Ok(())
    }
}
