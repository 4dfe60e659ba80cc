//! Limits that an operator sets while hosts run.

use tokio_postgres::types::Type;
use wharf_core::limits::{Limits, Override};

use super::ledger::Ledger;
use super::session::SessionError;

impl Ledger<'_> {
    /// Puts an override in force or ends it. Lanes of its group that are closed are open again; those that are full will be
    /// closed anew.
    pub(super) async fn set_override(&mut self, change: &Override) -> Result<(), SessionError> {
        let (group, key) = (change.group.as_str(), change.key.as_ref().map_or("", |key| key.as_str()));
        let number = self.names.number(group)?;
        let which = [(&group as _, Type::TEXT), (&key as _, Type::TEXT)];
        if change.limits == Limits::default() {
            self.session.ask("DELETE FROM wharf.overrides WHERE grp = $1 AND key = $2", &which).await?;
        } else {
            let (per_key, total) = (change.limits.per_key.map(i64::from), change.limits.total.map(i64::from));
            let text = "INSERT INTO wharf.overrides (grp, key, per_key, total) VALUES ($1, $2, $3, $4)
                        ON CONFLICT (grp, key) DO UPDATE SET per_key = excluded.per_key, total = excluded.total";
            let args = [which[0].clone(), which[1].clone(), (&per_key as _, Type::INT8), (&total as _, Type::INT8)];
            self.session.ask(text, &args).await?;
        }
        self.overrides.retain(|set| set.group != change.group || set.key != change.key);
        if change.limits != Limits::default() {
            self.overrides.push(change.clone());
        }
        // Lines of this transaction must be in the table before they can be opened.
        self.flush().await?;
        let open = "UPDATE wharf.lines SET closed_by = NULL WHERE closed_by IS NOT NULL AND grp = $1";
        self.session.ask(open, &[(&number, Type::INT4)]).await?;
        self.lanes.clear();
        Ok(())
    }
}
