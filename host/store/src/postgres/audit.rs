//! The table `audit`: one row for each act.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::audit::{Act, NewAct};
use wharf_core::author::Author;
use wharf_core::ids::JobId;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::time::Timestamp;

use super::ledger::PostgresLedger;
use super::operation::{WriteRequest, WriteResult};
use super::session::{Session, SessionError, value};
use super::{PostgresStore, unexpected_reply};
use crate::columns::{ActColumns, signed, timestamp_us};
use crate::store::{ActFilter, ActPage, AuditLog, Recorded, StoreError};

impl PostgresLedger<'_> {
    /// Adds an act to the transaction.
    pub(super) async fn write_act(&self, act: &NewAct) -> Result<(), SessionError> {
        let text = "INSERT INTO $schema.audit (acted_at, author, address, act, target, detail, changed)
                    VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let (at, by, changed) = (timestamp_us(self.now), act.author(), signed(act.count()));
        let (name, address, act, target, detail) =
            (by.name(), by.address(), act.kind().as_str(), act.target(), act.detail());
        let args = [
            (&at as _, Type::INT8),
            (&name as _, Type::TEXT),
            (&address as _, Type::TEXT),
            (&act as _, Type::TEXT),
            (&target as _, Type::TEXT),
            (&detail as _, Type::TEXT),
            (&changed as _, Type::INT8),
        ];
        self.session.query(text, &args).await.map(drop)
    }

    /// Applies the event of an operator, and adds the act if the event is not refused.
    pub(super) async fn change_job(
        &mut self,
        id: JobId,
        event: &Event,
        by: &Author,
    ) -> Result<Result<Recorded, Refusal>, SessionError> {
        let recorded = self.record(id, event).await?;
        if recorded.is_ok()
            && let Some(act) = NewAct::of_event(by.clone(), id, event)
        {
            self.write_act(&act).await?;
        }
        Ok(recorded)
    }
}

/// Reads a page of acts.
pub(super) async fn page(session: &Session, filter: &ActFilter) -> Result<ActPage, SessionError> {
    let text = "SELECT id, acted_at, author, address, act, target, detail, changed FROM $schema.audit
                WHERE acted_at >= $1 AND (acted_at, id) < ($2, $3) ORDER BY acted_at DESC, id DESC LIMIT $4";
    let since = timestamp_us(filter.since.unwrap_or_default());
    let (at, number) = filter.before.map_or((i64::MAX, i64::MAX), |id| (timestamp_us(id.at), signed(id.number)));
    let max = i64::from(filter.read_max());
    let args = [(&since as _, Type::INT8), (&at as _, Type::INT8), (&number as _, Type::INT8), (&max as _, Type::INT8)];
    let found = session.query_selective(text, &args).await?;
    filter.page(found.iter().map(act))
}

fn act(row: &Row) -> Result<Act, SessionError> {
    let columns = ActColumns {
        id: value(row, "audit", 0)?,
        acted_at: value(row, "audit", 1)?,
        author: value(row, "audit", 2)?,
        address: value(row, "audit", 3)?,
        act: value(row, "audit", 4)?,
        target: value(row, "audit", 5)?,
        detail: value(row, "audit", 6)?,
        count: value(row, "audit", 7)?,
    };
    Ok(columns.act())
}

/// Deletes up to `max` acts from before a moment. Returns how many.
pub(super) async fn delete(session: &Session, before: Timestamp, max: u32) -> Result<u32, SessionError> {
    let text = "WITH gone AS (DELETE FROM $schema.audit WHERE id = ANY(ARRAY(
                    SELECT id FROM $schema.audit WHERE acted_at < $1 ORDER BY acted_at, id LIMIT $2
                    FOR UPDATE SKIP LOCKED)) RETURNING id)
                SELECT count(*) FROM gone";
    let (before, max) = (timestamp_us(before), i64::from(max));
    let row = session.query_one(text, &[(&before, Type::INT8), (&max, Type::INT8)]).await?;
    Ok(value::<i64>(&row, "audit", 0)? as u32)
}

#[async_trait]
impl AuditLog for PostgresStore {
    async fn change_job(&self, id: JobId, event: Event, by: Author) -> Result<Result<Recorded, Refusal>, StoreError> {
        let result = self.write(WriteRequest::Record(Arc::new(vec![(id, event)]), Some(by))).await?;
        let unexpected = unexpected_reply(&result);
        match result {
            WriteResult::Recorded(mut recorded) => recorded.pop().ok_or(unexpected),
            _ => Err(unexpected),
        }
    }

    async fn add_act(&self, act: NewAct) -> Result<(), StoreError> {
        match self.write(WriteRequest::AddAct(act)).await? {
            WriteResult::Done => Ok(()),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn acts(&self, filter: ActFilter) -> Result<ActPage, StoreError> {
        let session = self.reader().await?;
        let page = page(&session, &filter).await;
        self.finish(session, page)
    }

    async fn delete_acts(&self, before: Timestamp, max: u32) -> Result<u32, StoreError> {
        let session = self.reader().await?;
        let deleted = delete(&session, before, max).await;
        self.finish(session, deleted)
    }
}
