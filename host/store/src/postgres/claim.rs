//! A claim: delayed jobs that are due become ready, then `admission` chooses among the lines.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::types::Type;
use wharf_core::admission::admit;
use wharf_core::bounds;
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, LeasedJob, State};
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Event;
use wharf_core::limits::LimitTable;

use super::claim_snapshot::{Desk, Left, Missing, Page};
use super::ledger::{HOT, JobRow, Ledger};
use super::ready_rows::rank;
use super::rows::{READY, RUNNING, job_id, length, micros, signed};
use super::running_rows::Held;
use super::session::{SessionError, damaged};
use super::write_set::Settle;
use super::writer::Reopened;
use crate::store::{Claim, Claimed};

impl Ledger<'_> {
    pub(super) async fn claim(&mut self, claim: &Claim, reopened: &mut Reopened) -> Result<Claimed, SessionError> {
        self.declared = claim.declared.clone();
        let limits = self.limits();
        self.names.read(self.session, &self.locked).await?;
        self.reopen_by(&limits, reopened).await?;
        self.stock_numbers(claim.free as usize).await?;

        let mut share = 1;
        let looked = self.flush_and(async |this| {
            futures_util::try_join!(this.due(), Page::read(this, claim, share), this.next_due())
        });
        let (due, mut page, mut next_due) = looked.await?;
        if !due.is_empty() {
            self.promote(due).await?;
            self.stock_numbers(claim.free as usize).await?;
            let this = &*self;
            (page, next_due) = futures_util::try_join!(Page::read(this, claim, share), this.next_due())?;
        }
        let (admitted, picked) = loop {
            let mut desk = Desk::of(&page, self.numbers.iter().copied().collect());
            match admit(&mut desk, &claim.offer(), &limits) {
                Ok(admitted) => break (admitted, desk.picked()),
                // What was closed is remembered, so that the next look goes past it.
                Err(Missing::Lines) => {
                    self.keep_left(&page, desk.picked().left, &limits);
                    self.flush().await?;
                }
                Err(Missing::Heads) => share = share.saturating_mul(4),
            }
            page = Page::read(self, claim, share).await?;
        };
        self.numbers.drain(..picked.turns);
        // A line without jobs is left where a commit's answer was lost, and would be in the way of others.
        for line in page.lines.iter().filter(|line| line.heads.is_empty()) {
            let lane = page.seats[line.seat].row.clone();
            let settle = Settle { lane, task: self.names.number(line.task.as_str())?, is_empty: false };
            self.writes.settle.insert(line.id, settle);
        }
        let (leased, emptied) = self.lease(claim, &page, &picked.heads).await?;
        let left = picked.left.into_iter().filter(|(seat, ..)| !page.is_gone(*seat, &emptied)).collect();
        self.keep_left(&page, left, &limits);
        let wake_at = next_due.map(|due| due.max(self.now));
        let wake_at = if admitted.cut { Some(self.now) } else { wake_at };
        Ok(Claimed { leased, wake_at, held_back: admitted.held_back })
    }

    /// Delayed jobs that are due, at most `PROMOTE_BATCH`: one claim must not pay for all that came due at once.
    async fn due(&self) -> Result<Vec<(JobId, JobRow)>, SessionError> {
        let text = format!(
            "SELECT {HOT} FROM wharf.jobs WHERE delayed AND due <= $1 AND grp + 0 = ANY($2)
             ORDER BY due, id LIMIT $3 FOR UPDATE SKIP LOCKED"
        );
        let (now, max) = (micros(self.now), i64::from(bounds::PROMOTE_BATCH));
        let args = [(&now as _, Type::INT8), (&self.locked as _, Type::INT4_ARRAY), (&max as _, Type::INT8)];
        self.session.ask(&text, &args).await?.iter().map(JobRow::of).collect()
    }

    async fn promote(&mut self, due: Vec<(JobId, JobRow)>) -> Result<(), SessionError> {
        self.load_lanes(due.iter().map(|(_, hot)| hot.lane.clone())).await?;
        for (id, mut hot) in due {
            hot.line = Some(self.join_line(&hot.lane.clone(), hot.task, hot.priority).await?);
            hot.state = READY;
            self.jobs.insert(id, hot);
            self.writes.joined.insert(id);
            self.writes.changed.insert(id);
        }
        self.flush().await
    }

    async fn next_due(&self) -> Result<Option<wharf_core::time::Timestamp>, SessionError> {
        let row = self.session.ask_one("SELECT min(due) FROM wharf.jobs WHERE delayed", &[]).await?;
        Ok(row.get::<_, Option<i64>>(0).map(super::rows::stamp))
    }

    /// Opens lanes that another version of the plugins, or an earlier one, closed at a lower limit than holds here.
    /// Keys with a limit of their own are opened when that is set.
    async fn reopen_by(&mut self, limits: &LimitTable, reopened: &mut Reopened) -> Result<(), SessionError> {
        let (mut groups, mut max) = (Vec::new(), Vec::new());
        for group in &self.locked {
            let per_key = limits.of(&self.names.group(*group)?).per_key;
            if reopened.is_due(*group, per_key) {
                groups.push(*group);
                max.push(per_key.map_or(i64::MAX, i64::from));
            }
        }
        let text = "UPDATE wharf.lines SET closed_by = NULL
                    FROM unnest($1::int[], $2::bigint[]) AS here (grp, most), wharf.names
                    WHERE lines.grp = here.grp AND closed_by IS NOT NULL AND closed_by < most AND names.id = here.grp
                    AND NOT EXISTS (SELECT FROM wharf.overrides
                                    WHERE overrides.grp = names.text AND overrides.key = lines.key AND per_key IS NOT NULL
                                    AND overrides.key <> '')";
        let args = [(&groups as _, Type::INT4_ARRAY), (&max as _, Type::INT8_ARRAY)];
        self.session.ask_if(!groups.is_empty(), text, &args).await.map(drop)
    }

    fn keep_left(&mut self, page: &Page, left: Vec<(usize, u64, bool)>, limits: &LimitTable) {
        for (place, turn, open) in left {
            let seat = &page.seats[place];
            let closed_by =
                || limits.per_key(&seat.lane).map_or(i32::MAX, |limit| i32::try_from(limit).unwrap_or(i32::MAX));
            let closed_by = if open { None } else { Some(closed_by()) };
            self.some_closed |= closed_by.is_some();
            self.writes.left.insert(seat.row.clone(), (turn as i64, closed_by));
            self.lanes.remove(&seat.row);
        }
    }

    /// Leases what was chosen. Returns with it the places of the lines that have no job left.
    async fn lease(
        &mut self,
        claim: &Claim,
        page: &Page,
        heads: &[(usize, usize)],
    ) -> Result<(Vec<LeasedJob>, HashSet<usize>), SessionError> {
        let chosen = || heads.iter().map(|(line, head)| (&page.lines[*line], &page.lines[*line].heads[*head]));
        let until = self.now + claim.lease;
        let mut leased = Vec::with_capacity(heads.len());
        let mut held: BTreeMap<i32, Vec<(i64, &str)>> = BTreeMap::new();
        let mut payloads =
            self.large(chosen().filter(|(_, head)| head.payload.is_none()).map(|(_, head)| head.ready.id)).await?;
        for (line, head) in chosen() {
            let ready = head.ready;
            let before = JobStatus { state: State::Waiting { due: ready.due }, ..head.before };
            let lease = Lease { job: ready.id, attempt: before.attempt + 1, node: claim.node, until };
            let after = before
                .after(&Event::Claimed { lease }, self.now)
                .map_err(|refusal| damaged("a ready job", &format!("{}: {refusal}", ready.id)))?;
            if let Some(hot) = self.jobs.get_mut(&ready.id) {
                (hot.standing, hot.state) = (after, RUNNING);
            }
            let seat = &page.seats[line.seat];
            let id = signed(ready.id.number());
            let place = (line.id, rank(ready.priority), micros(ready.due));
            self.writes.taken.entry((place, head.first)).or_insert((0, head.length)).0 += 1;
            self.writes.claimed.push(lease);
            let hot = JobRow {
                standing: after,
                state: RUNNING,
                lane: seat.row.clone(),
                task: self.names.number(line.task.as_str())?,
                line: Some(line.id),
                priority: ready.priority,
                finished_at: None,
                new: None,
            };
            self.began.push((ready.id, hot));
            held.entry(seat.row.group).or_default().push((id, &seat.row.key));
            let payload = head.payload.clone().or_else(|| payloads.remove(&ready.id));
            leased.push(LeasedJob {
                lease,
                task: line.task.clone(),
                lane: seat.lane.clone(),
                payload: payload.ok_or_else(|| damaged("a ready job", &format!("{}: it is gone", ready.id)))?,
                batch: head.batch.clone(),
                failures: before.failures,
                crashes: before.crashes,
                due: ready.due,
                claimed_at: self.now,
            });
        }
        let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
        heads.iter().for_each(|(line, _)| *taken.entry(*line).or_default() += 1);
        let mut emptied = HashSet::new();
        for (place, taken) in taken {
            let line = &page.lines[place];
            let left = page.left_of(place, taken);
            if left == Left::Nothing {
                emptied.insert(place);
            }
            if left != Left::AsItWas {
                let lane = page.seats[line.seat].row.clone();
                let settle =
                    Settle { lane, task: self.names.number(line.task.as_str())?, is_empty: left == Left::Nothing };
                self.writes.settle.insert(line.id, settle);
            }
        }
        self.stock_numbers(Held::rows_of(heads.len(), held.len())).await?;
        for (group, jobs) in held {
            let numbers = &mut self.numbers;
            self.held.take(group, length(claim.lease), &jobs, || numbers.pop_front().unwrap_or_default());
        }
        Ok((leased, emptied))
    }

    /// Payloads that are not read before it is known that they are wanted.
    async fn large(&self, ids: impl Iterator<Item = JobId>) -> Result<HashMap<JobId, Arc<[u8]>>, SessionError> {
        let ids: Vec<i64> = ids.map(|id| signed(id.number())).collect();
        let text = "SELECT id, payload FROM wharf.jobs WHERE id = ANY($1)";
        let found = self.session.ask_if(!ids.is_empty(), text, &[(&ids, Type::INT8_ARRAY)]).await?;
        found.iter().map(|row| Ok((job_id(row.get(0))?, row.get::<_, &[u8]>(1).into()))).collect()
    }
}
