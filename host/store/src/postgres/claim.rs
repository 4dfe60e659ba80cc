//! A claim: delayed jobs that are due become ready, then admission chooses among the lines.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;
use wharf_core::admission::{Admitted, admit};
use wharf_core::bounds;
use wharf_core::ids::JobId;
use wharf_core::job::{JobStatus, LeasedJob, State};
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Event;
use wharf_core::limits::LimitTable;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::time::Timestamp;

use super::claim_snapshot::{ClaimContext, ClaimSnapshot, NotRead, Remainder};
use super::job_row::{JOB_COLUMNS, JobRow, rank};
use super::ledger::PostgresLedger;
use super::rows::job_id;
use super::running_rows::RunningRows;
use super::session::{SessionError, value};
use super::write_set::ShrunkLine;
use crate::columns::{DamagedData, READY, RUNNING, duration_us, signed, timestamp, timestamp_us};
use crate::store::{Claim, Claimed, wake_at};

/// The interval at which lanes that a lower limit closed elsewhere are opened again.
const REOPEN_INTERVAL: Duration = Duration::from_secs(10);

/// The limit per key, and the moment, at which the lanes of each limit group were last opened that other hosts had closed.
#[derive(Default)]
pub(super) struct ReopenedGroups(HashMap<i32, (Option<u32>, Instant)>);

impl ReopenedGroups {
    /// Returns true if a group's lanes must be opened now: at a limit that is new here, and at every interval.
    fn is_due(&mut self, group: i32, per_key: Option<u32>) -> bool {
        let due = self.0.get(&group).is_none_or(|(by, at)| *by != per_key || at.elapsed() >= REOPEN_INTERVAL);
        if due {
            self.0.insert(group, (per_key, Instant::now()));
        }
        due
    }
}

impl PostgresLedger<'_> {
    /// Leases the jobs that admission chooses.
    pub(super) async fn claim(
        &mut self,
        claim: &Claim,
        reopened: &mut ReopenedGroups,
    ) -> Result<Claimed, SessionError> {
        self.declared = claim.declared.clone();
        let limits = self.limits();
        self.names.load(self.session, &self.locked).await?;
        self.reopen(&limits, reopened).await?;
        self.reserve_numbers(claim.free as usize).await?;

        let mut share = 1;
        let first_read = self.flush_and(async |this| {
            futures_util::try_join!(
                // First, since it opens lanes.
                this.claim_holds(claim),
                this.due(),
                ClaimSnapshot::read(this, claim, &this.locked, share),
                this.next_due(),
            )
        });
        let (holds, due, mut snapshot, mut next_due) = first_read.await?;
        if self.has_holds {
            self.lanes.clear();
        }
        // Most claims meet no hold, so that it was right to read all.
        let open = claim.without_held_tasks(&holds.table, self.now);
        let is_held = matches!(open, Cow::Owned(_)) || holds.open_groups.len() < self.locked.len();
        let (claim, groups) = (&*open, &holds.open_groups);
        if is_held || !due.is_empty() {
            self.promote(due).await?;
            self.reserve_numbers(claim.free as usize).await?;
            let this = &*self;
            let read = ClaimSnapshot::read(this, claim, groups, share);
            (snapshot, next_due) = futures_util::try_join!(read, this.next_due())?;
        }
        let (admitted, choice) = loop {
            let mut context = ClaimContext::new(&snapshot, self.numbers.iter().copied().collect());
            match admit(&mut context, &claim.offer(), &limits) {
                Ok(admitted) => break (admitted, context.into_choice()),
                // Lanes that were closed stay closed, so the next snapshot does not contain them.
                Err(NotRead::Lines) => {
                    self.leave_lanes(&snapshot, context.into_choice().left_lanes, &limits);
                    self.flush().await?;
                }
                Err(NotRead::Heads) => share = share.saturating_mul(4),
            }
            snapshot = ClaimSnapshot::read(self, claim, groups, share).await?;
        };
        self.numbers.drain(..choice.turns);
        // A line without jobs remains after the response to a commit was lost, and would be in the way of others.
        for line in snapshot.lines.iter().filter(|line| line.heads.is_empty()) {
            let lane = snapshot.lanes[line.lane].row.clone();
            let shrunk = ShrunkLine { lane, task: self.names.number(line.task.as_str())?, is_empty: false };
            self.writes.shrunk_lines.insert(line.id, shrunk);
        }
        let (leased, emptied) = self.lease(claim, &snapshot, &choice.heads).await?;
        let left = choice.left_lanes.into_iter().filter(|(lane, ..)| !snapshot.is_removed(*lane, &emptied)).collect();
        self.leave_lanes(&snapshot, left, &limits);
        let wake_at = wake_at(next_due.map(|due| due.max(self.now)), holds.next_end);
        let wake_at = if admitted.cut { Some(self.now) } else { wake_at };
        let Admitted { quota_reached, short_of_room, overtook, .. } = admitted;
        Ok(Claimed { leased, wake_at, quota_reached, short_of_room, overtook })
    }

    /// Reads delayed jobs that are due, at most `PROMOTE_BATCH`: one claim must not pay for all that came due at once.
    async fn due(&self) -> Result<Vec<(JobId, JobRow)>, SessionError> {
        let text = format!(
            "SELECT {JOB_COLUMNS} FROM $schema.jobs WHERE delayed AND due_at <= $1 AND limit_group + 0 = ANY($2)
             ORDER BY due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED"
        );
        let (now, max) = (timestamp_us(self.now), i64::from(bounds::PROMOTE_BATCH));
        let args = [(&now as _, Type::INT8), (&self.locked as _, Type::INT4_ARRAY), (&max as _, Type::INT8)];
        self.session.query(&text, &args).await?.iter().map(JobRow::read).collect()
    }

    async fn promote(&mut self, due: Vec<(JobId, JobRow)>) -> Result<(), SessionError> {
        self.load_lanes(due.iter().map(|(_, job)| job.lane.clone())).await?;
        for (id, mut job) in due {
            job.line = Some(self.join_line(&job.lane.clone(), job.task, job.priority).await?);
            job.state = READY;
            self.jobs.insert(id, job);
            self.writes.joined.insert(id);
            self.writes.changed.insert(id);
        }
        self.flush().await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, SessionError> {
        let row = self.session.query_one("SELECT min(due_at) FROM $schema.jobs WHERE delayed", &[]).await?;
        Ok(value::<Option<i64>>(&row, "jobs", 0)?.map(timestamp))
    }

    /// Opens lanes that another version of the plugins, or an earlier one, closed at a lower limit than applies here.
    /// Keys with a limit of their own are opened when that is set.
    async fn reopen(&mut self, limits: &LimitTable, reopened: &mut ReopenedGroups) -> Result<(), SessionError> {
        let (mut groups, mut maxima) = (Vec::new(), Vec::new());
        for group in &self.locked {
            let per_key = limits.of(&self.names.group(*group)?).per_key;
            if reopened.is_due(*group, per_key) {
                groups.push(*group);
                maxima.push(per_key.map_or(i64::MAX, i64::from));
            }
        }
        let text = "UPDATE $schema.lines SET closed_by_limit = NULL
                    FROM unnest($1::int[], $2::bigint[]) AS here (limit_group, max), $schema.names
                    WHERE lines.limit_group = here.limit_group AND closed_by_limit IS NOT NULL AND closed_by_limit < here.max
                    AND names.id = here.limit_group
                    AND NOT EXISTS (SELECT FROM $schema.overrides
                                    WHERE overrides.limit_group = names.text AND overrides.key = lines.key
                                    AND per_key IS NOT NULL AND overrides.key <> '')";
        let args = [(&groups as _, Type::INT4_ARRAY), (&maxima as _, Type::INT8_ARRAY)];
        self.session.query_if(!groups.is_empty(), text, &args).await.map(drop)
    }

    fn leave_lanes(&mut self, snapshot: &ClaimSnapshot, left: Vec<(usize, u64, bool)>, limits: &LimitTable) {
        for (lane, turn, open) in left {
            let lane = &snapshot.lanes[lane];
            let limit =
                || limits.per_key(&lane.lane).map_or(i32::MAX, |limit| i32::try_from(limit).unwrap_or(i32::MAX));
            let closed_by_limit = if open { None } else { Some(limit()) };
            self.has_closed_lanes |= closed_by_limit.is_some();
            self.writes.left_lanes.insert(lane.row.clone(), (turn as i64, closed_by_limit));
            self.lanes.remove(&lane.row);
        }
    }

    /// Leases the chosen jobs. Returns with them the indexes of the lines that have no jobs left.
    async fn lease(
        &mut self,
        claim: &Claim,
        snapshot: &ClaimSnapshot,
        heads: &[(usize, usize)],
    ) -> Result<(Vec<LeasedJob>, HashSet<usize>), SessionError> {
        let chosen = || heads.iter().map(|(line, head)| (&snapshot.lines[*line], &snapshot.lines[*line].heads[*head]));
        let until = self.now + claim.lease;
        let mut leased = Vec::with_capacity(heads.len());
        let mut running: BTreeMap<i32, Vec<(i64, &str)>> = BTreeMap::new();
        let large = chosen().filter(|(_, head)| head.payload.is_none()).map(|(_, head)| head.ready.id);
        let mut payloads = self.large_payloads(large).await?;
        for (line, head) in chosen() {
            let ready = head.ready;
            let before = JobStatus { state: State::Waiting { due: ready.due }, ..head.status };
            let lease = Lease { job: ready.id, attempt: before.attempt + 1, node: claim.node, until };
            let after = before
                .after(&Event::Claimed { lease }, self.now)
                .map_err(|refusal| DamagedData::invalid("ready job", &format!("{}: {refusal}", ready.id)))?;
            if let Some(job) = self.jobs.get_mut(&ready.id) {
                (job.status, job.state) = (after, RUNNING);
            }
            let lane = &snapshot.lanes[line.lane];
            let id = signed(ready.id.number());
            let position = (line.id, rank(ready.priority), timestamp_us(ready.due));
            self.writes.taken.entry((position, head.first_id)).or_insert((0, head.row_length)).0 += 1;
            self.writes.claimed.push(lease);
            let task = self.names.number(line.task.as_str())?;
            self.waiting.add(task, -1);
            let job = JobRow {
                status: after,
                state: RUNNING,
                lane: lane.row.clone(),
                task,
                line: Some(line.id),
                priority: ready.priority,
                finished_at: None,
                fingerprint: None,
                requeued_at: None,
                retried_at: None,
                new: None,
            };
            self.claimed.push((ready.id, job));
            running.entry(lane.row.group).or_default().push((id, &lane.row.key));
            let payload = head.payload.clone().or_else(|| payloads.remove(&ready.id));
            leased.push(LeasedJob {
                lease,
                task: line.task.clone(),
                lane: lane.lane.clone(),
                payload: payload
                    .ok_or_else(|| DamagedData::invalid("ready job", &format!("{}: its row is missing", ready.id)))?,
                batch: head.batch.clone(),
                generation: head.generation,
                failures: before.failures,
                crashes: before.crashes,
                due: ready.due,
                claimed_at: self.now,
                tick: head.tick.clone(),
            });
        }
        let emptied = self.shrink_lines(snapshot, heads)?;
        self.reserve_numbers(RunningRows::rows_max(heads.len(), running.len())).await?;
        for (group, jobs) in running {
            let numbers = &mut self.numbers;
            self.running.add(group, duration_us(claim.lease), &jobs, || numbers.pop_front().unwrap_or_default());
        }
        Ok((leased, emptied))
    }

    /// Records the lines that lost jobs. Returns the indexes of those that have none left.
    fn shrink_lines(
        &mut self,
        snapshot: &ClaimSnapshot,
        heads: &[(usize, usize)],
    ) -> Result<HashSet<usize>, SessionError> {
        let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
        heads.iter().for_each(|(line, _)| *taken.entry(*line).or_default() += 1);
        let mut emptied = HashSet::new();
        for (index, taken) in taken {
            let line = &snapshot.lines[index];
            let remainder = snapshot.remainder(index, taken);
            let is_empty = remainder == Remainder::Empty;
            if is_empty {
                emptied.insert(index);
            }
            if remainder != Remainder::SameTop {
                let lane = snapshot.lanes[line.lane].row.clone();
                let shrunk = ShrunkLine { lane, task: self.names.number(line.task.as_str())?, is_empty };
                self.writes.shrunk_lines.insert(line.id, shrunk);
            }
        }
        Ok(emptied)
    }

    /// Reads large payloads, which a snapshot does not contain.
    async fn large_payloads(
        &self,
        ids: impl Iterator<Item = JobId>,
    ) -> Result<HashMap<JobId, SharedBytes>, SessionError> {
        let ids: Vec<i64> = ids.map(|id| signed(id.number())).collect();
        let text = "SELECT id, payload FROM $schema.jobs WHERE id = ANY($1)";
        let found = self.session.query_if(!ids.is_empty(), text, &[(&ids, Type::INT8_ARRAY)]).await?;
        found.iter().map(|row| Ok((job_id(row, "jobs", 0)?, value::<&[u8]>(row, "jobs", 1)?.into()))).collect()
    }
}
