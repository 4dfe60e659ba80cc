//! The writer: takes all operations that wait into one transaction and responds after the commit, so many operations cost one
//! commit. If one fails, the group is rolled back and each runs again on its own: no operation fails because of another.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;
use tracing::{debug, warn};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::JobId;
use wharf_core::job::{NewJob, StateName};
use wharf_core::limits::LimitTable;
use wharf_core::schedule::ScheduleFiring;

use super::claim::ReopenedGroups;
use super::id_source::IdSource;
use super::job_row::JobRow;
use super::lane_rows::{LaneNames, LaneRow};
use super::ledger::PostgresLedger;
use super::nudge::Nudger;
use super::operation::{WriteRequest, WriteResult, all_names, all_new_jobs};
use super::prepared::{PoolerDetected, PreparedStatements};
use super::read_set::ReadSet;
use super::running_cache::RunningCache;
use super::session::{RESPONSE_TIMEOUT, Session, SessionError, Sessions, computed};
use super::time::Time;
use crate::store::StoreError;

/// The maximum number of operations that wait; callers of more wait for a place.
const WAITING_MAX: usize = 1024;
/// The maximum numbers of operations, and of their bytes, in one transaction. A single operation may be larger.
const GROUP_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 16 << 20;
/// After a transaction that wrote this many jobs, the next one waits for more operations, for this long.
const BUSY_JOBS: usize = 64;
const GATHER_WAIT: Duration = Duration::from_millis(1);
/// The maximum number of tries of a transaction after conflicts, or after the connection was lost before the commit.
const TRIES_MAX: u32 = 4;
/// The interval at which the status of a transaction is queried.
const COMMIT_STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// A request that waits for the writer.
struct PendingRequest {
    request: WriteRequest,
    response: oneshot::Sender<Result<WriteResult, StoreError>>,
}

/// A handle to the writer's task.
pub(super) struct PostgresWriter {
    requests: mpsc::Sender<PendingRequest>,
    address: String,
}

/// The parts of the store that the writer uses.
pub(super) struct WriterContext {
    pub(super) sessions: Sessions,
    pub(super) time: Time,
    pub(super) source: Arc<IdSource>,
    pub(super) nudger: Arc<Nudger>,
    /// The store's address without its password, for logs and errors.
    pub(super) address: String,
}

impl PostgresWriter {
    /// Starts the writer's task. It ends when the handle is dropped.
    pub(super) fn start(context: WriterContext) -> PostgresWriter {
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let address = context.address.clone();
        let state = WriterState {
            names: LaneNames::default(),
            declared: Arc::default(),
            reopened: ReopenedGroups::default(),
            session: None,
            pooler: PoolerDetected::default(),
            cache: RunningCache::default(),
        };
        tokio::spawn(serve(context, state, waiting));
        PostgresWriter { requests, address }
    }

    /// Runs an operation, and returns its result once that is durable.
    pub(super) async fn write(&self, request: WriteRequest) -> Result<WriteResult, StoreError> {
        let stopped = || format!("the writer of {} has stopped: restart the host", self.address);
        let (response, result) = oneshot::channel();
        let pending = PendingRequest { request, response };
        self.requests.send(pending).await.map_err(|_| StoreError::Broken(stopped()))?;
        result.await.map_err(|_| StoreError::Unknown(stopped()))?
    }
}

/// The state that the writer keeps from one transaction to the next.
struct WriterState {
    names: LaneNames,
    /// The limits that manifests and settings declared at the last insert or claim.
    declared: Arc<LimitTable>,
    reopened: ReopenedGroups,
    /// The session of the last transaction, with its prepared statements.
    session: Option<Session>,
    pooler: PoolerDetected,
    cache: RunningCache,
}

/// The failure of a transaction.
enum TransactionError {
    /// Nothing was written.
    RolledBack(SessionError),
    /// The commit was sent and its response was lost.
    InDoubt { transaction: String, error: SessionError, results: Vec<WriteResult> },
}

async fn serve(context: WriterContext, mut state: WriterState, mut waiting: mpsc::Receiver<PendingRequest>) {
    let mut queue: VecDeque<PendingRequest> = VecDeque::new();
    let mut received = Vec::new();
    let mut is_busy = false;
    loop {
        if queue.is_empty() && waiting.recv_many(&mut received, GROUP_MAX).await == 0 {
            return;
        }
        queue.extend(received.drain(..));
        if is_busy {
            gather(&mut queue, &mut waiting).await;
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = queue.front() {
            bytes += next.request.bytes();
            let is_alone = next.request.keeps_waits();
            if !group.is_empty() && (is_alone || bytes > GROUP_BYTES_MAX || group.len() == GROUP_MAX) {
                break;
            }
            group.extend(queue.pop_front());
            if is_alone {
                break;
            }
        }
        // None of them has a response yet, so any order is right; a claim is last, and finds the changes of the others.
        group.sort_by_key(|pending: &PendingRequest| pending.request.is_claim());
        is_busy = group.iter().map(|pending| pending.request.job_count()).sum::<usize>() >= BUSY_JOBS;
        if run_group(&context, &mut state, group).await {
            context.nudger.nudge_all();
        }
    }
}

/// Waits a little for requests that follow from the last responses: two small transactions take longer than one of twice the
/// size. A claim is the last such request.
async fn gather(queue: &mut VecDeque<PendingRequest>, waiting: &mut mpsc::Receiver<PendingRequest>) {
    let mut timeout = std::pin::pin!(tokio::time::sleep(GATHER_WAIT));
    while queue.len() < GROUP_MAX && !queue.iter().any(|pending| pending.request.is_claim()) {
        tokio::select! {
            pending = waiting.recv() => match pending {
                Some(pending) => queue.push_back(pending),
                None => return,
            },
            () = &mut timeout => return,
        }
    }
}

/// Runs the requests of a group and responds to each. Returns true if others must be nudged.
async fn run_group(context: &WriterContext, state: &mut WriterState, group: Vec<PendingRequest>) -> bool {
    let requests: Vec<&WriteRequest> = group.iter().map(|pending| &pending.request).collect();
    match run_to_decision(context, state, &requests).await {
        Ok(results) => {
            let nudges = results.iter().any(WriteResult::is_worth_a_nudge);
            for (pending, result) in group.into_iter().zip(results) {
                // A caller that stopped waiting loses the response, not the work.
                _ = pending.response.send(Ok(result));
            }
            nudges
        }
        Err(error) if group.len() == 1 || error.is_transient() => {
            warn!("{}: {error}", context.address);
            for pending in group {
                _ = pending.response.send(Err(error.store_error(&context.address)));
            }
            false
        }
        Err(_) => {
            let mut nudges = false;
            for pending in group {
                let results = run_to_decision(context, state, &[&pending.request]).await;
                let result = match results.map(|mut results| results.pop()) {
                    Ok(Some(result)) => Ok(result),
                    Ok(None) => Err(StoreError::Broken("an operation was committed that never ran".to_owned())),
                    Err(error) => {
                        warn!("{}: {error}", context.address);
                        Err(error.store_error(&context.address))
                    }
                };
                nudges |= result.as_ref().is_ok_and(WriteResult::is_worth_a_nudge);
                _ = pending.response.send(result);
            }
            nudges
        }
    }
}

/// Runs requests in one transaction, with retries where they help, until it is known whether it was committed.
async fn run_to_decision(
    context: &WriterContext,
    state: &mut WriterState,
    requests: &[&WriteRequest],
) -> Result<Vec<WriteResult>, SessionError> {
    let mut tries = 1;
    loop {
        let error = match transaction(context, state, requests, tries > 1).await {
            Ok(results) => return Ok(results),
            Err(TransactionError::InDoubt { transaction, error, results }) => {
                warn!("{}: the response to a commit was lost ({error}); querying its status", context.address);
                if commit_status(context, &transaction).await == CommitStatus::Committed {
                    return Ok(results);
                }
                error
            }
            Err(TransactionError::RolledBack(error)) => error,
        };
        if tries == TRIES_MAX
            || !(error.is_conflict() || error.is_lost_connection())
            || matches!(error, SessionError::Unreachable(_))
        {
            return Err(error);
        }
        tries += 1;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommitStatus {
    Committed,
    RolledBack,
}

/// Queries whether a transaction was committed, until a server knows: with a guess it would be written twice, or not at all.
async fn commit_status(context: &WriterContext, transaction: &str) -> CommitStatus {
    loop {
        let status = async {
            let session = context.sessions.session().await?;
            let text = "SELECT pg_xact_status($1::text::xid8)";
            let row = session.query_one(text, &[(&transaction, Type::TEXT)]).await?;
            computed::<Option<String>>(&row, 0)
        };
        match status.await.as_ref().map(Option::as_deref) {
            Ok(Some("committed")) => return CommitStatus::Committed,
            Ok(Some("aborted") | None) => return CommitStatus::RolledBack,
            Ok(Some(_)) => {}
            // A server without a record of it does not have it: it replaced one that was lost.
            Err(error) if error.is_unknown_transaction() => return CommitStatus::RolledBack,
            Err(_) => {}
        }
        tokio::time::sleep(COMMIT_STATUS_INTERVAL).await;
    }
}

/// Runs requests in one transaction, on the session of the last one if possible.
async fn transaction(
    context: &WriterContext,
    state: &mut WriterState,
    requests: &[&WriteRequest],
    is_retry: bool,
) -> Result<Vec<WriteResult>, TransactionError> {
    let mut session = match state.session.take() {
        Some(session) if !session.is_closed() => session,
        _ => {
            let mut session = context.sessions.session().await.map_err(TransactionError::RolledBack)?;
            // A transaction that failed with prepared statements is retried without them.
            session.prepared = if is_retry { None } else { PreparedStatements::new(&state.pooler) };
            session
        }
    };
    let result = run(context, state, requests, &session, is_retry).await;
    match &result {
        Ok(_) => match tokio::time::timeout(RESPONSE_TIMEOUT, session.prepare_pending()).await {
            Ok(Ok(())) => {
                session.prepared = session.prepared.or_else(|| PreparedStatements::new(&state.pooler));
                state.session = Some(session);
            }
            Ok(Err(error)) => {
                debug!("could not prepare statements: {error}");
                session.discard();
            }
            Err(_) => session.discard(),
        },
        Err(TransactionError::RolledBack(_)) => session.roll_back().await,
        Err(TransactionError::InDoubt { .. }) => session.discard(),
    }
    result
}

async fn run(
    context: &WriterContext,
    state: &mut WriterState,
    requests: &[&WriteRequest],
    session: &Session,
    is_retry: bool,
) -> Result<Vec<WriteResult>, TransactionError> {
    let rolled_back = TransactionError::RolledBack;
    let all = || requests.iter().copied();
    state.names.add(session, all_names(all())).await.map_err(rolled_back)?;
    state.names.add_task_groups(session, &all_new_jobs(all())).await.map_err(rolled_back)?;
    let mut reads = ReadSet::new(all(), &state.names, &state.cache, is_retry).map_err(rolled_back)?;
    if all().any(WriteRequest::is_about_all_groups) {
        reads.tasks.extend(LaneNames::all_tasks(session).await.map_err(rolled_back)?);
    }
    let cached: HashMap<JobId, JobRow> =
        reads.cached.iter().filter_map(|id| Some((*id, state.cache.take(*id)?))).collect();
    let declared = state.declared.clone();
    let started =
        PostgresLedger::begin(session, &mut state.names, (&context.time, &context.source), declared, &reads, cached)
            .await;
    let has_prepared = session.prepared.as_ref().is_some_and(|prepared| !prepared.is_empty());
    let started =
        started.map_err(|error| if has_prepared { SessionError::PreparedLost(Box::new(error)) } else { error });
    let mut ledger = started.map_err(rolled_back)?;
    let schedules: Vec<&str> = requests.iter().flat_map(|request| request.schedules()).collect();
    ledger.lock_schedules(&schedules).await.map_err(rolled_back)?;
    let mut results = Vec::with_capacity(requests.len());
    for request in requests {
        results.push(apply(&mut ledger, &mut state.reopened, request).await.map_err(rolled_back)?);
    }
    let regressed = ledger.count_failures().await.map_err(rolled_back)?;
    if !regressed.is_empty() {
        mark_regressed(&regressed, requests, &mut results);
    }
    let transaction = ledger.transaction.clone();
    let committed = ledger.commit().await;
    state.declared = ledger.declared.clone();
    let claimed = ledger.claimed;
    match committed {
        Ok(()) => {
            state.cache.add(claimed);
            Ok(results)
        }
        Err(error) if error.is_lost_connection() => Err(TransactionError::InDoubt { transaction, error, results }),
        Err(error) => Err(TransactionError::RolledBack(error)),
    }
}

/// Says in the results of recorded events which of them are regressions.
fn mark_regressed(regressed: &[(JobId, Fingerprint)], requests: &[&WriteRequest], results: &mut [WriteResult]) {
    for (request, result) in requests.iter().zip(results) {
        if let (WriteRequest::Record(events, _), WriteResult::Recorded(recorded)) = (request, result) {
            for ((job, _), recorded) in events.iter().zip(recorded) {
                if let Ok(recorded) = recorded
                    && recorded.state == StateName::Failed
                {
                    recorded.regressed =
                        regressed.iter().find(|(of, _)| of == job).map(|(_, fingerprint)| *fingerprint);
                }
            }
        }
    }
}

/// Applies one request to the ledger.
async fn apply(
    ledger: &mut PostgresLedger<'_>,
    reopened: &mut ReopenedGroups,
    request: &WriteRequest,
) -> Result<WriteResult, SessionError> {
    match request {
        WriteRequest::Insert(jobs, declared) => insert(ledger, jobs, declared, IdsGiven::WithThisInsert).await,
        WriteRequest::InsertWithChanges(jobs, declared, changes) => {
            changes.iter().for_each(|changes| ledger.values.add(changes));
            insert(ledger, jobs, declared, IdsGiven::Before).await
        }
        WriteRequest::Claim(claim) => Ok(WriteResult::Claimed(ledger.claim(claim, reopened).await?)),
        WriteRequest::Record(events, by) => {
            let mut recorded = Vec::with_capacity(events.len());
            for (id, event) in events.iter() {
                recorded.push(match by {
                    None => ledger.record(*id, event).await?,
                    // In a box, here and below: the future of every operation would have room for what few need.
                    Some(by) => Box::pin(ledger.change_job(*id, event, by)).await?,
                });
            }
            Ok(WriteResult::Recorded(recorded))
        }
        WriteRequest::Expire(expired) => {
            let mut freed = Vec::new();
            for lease in expired {
                if ledger.expire(*lease).await? {
                    freed.push(lease.job);
                }
            }
            Ok(WriteResult::Expired(freed))
        }
        WriteRequest::SetOverride(change, by) => {
            Box::pin(ledger.set_override(change, by)).await.map(|()| WriteResult::Done)
        }
        WriteRequest::SetHold(new) => Box::pin(ledger.set_hold(new)).await.map(WriteResult::Hold),
        WriteRequest::ReleaseHold(scope, by) => Box::pin(ledger.release_hold(scope, by)).await.map(WriteResult::Hold),
        WriteRequest::AddAct(act) => Box::pin(ledger.write_act(act)).await.map(|()| WriteResult::Done),
        WriteRequest::DeleteEndedHolds(max) => ledger.delete_ended_holds(*max).await.map(WriteResult::HoldsDeleted),
        // Few requests are these: the future of every request would have room for them.
        WriteRequest::StartOperation(new, declared) => {
            Ok(WriteResult::Operation(Box::pin(ledger.start_operation(new, declared)).await?.map(Box::new)))
        }
        WriteRequest::OperationStep(step) => {
            Ok(WriteResult::StepTaken(Box::pin(ledger.take_operation_step(step)).await?.map(Box::new)))
        }
        WriteRequest::CancelOperation(id, by) => {
            Ok(WriteResult::Operation(Box::pin(ledger.cancel_operation(*id, by)).await?.map(Box::new)))
        }
        WriteRequest::WriteSchedules(writes) => {
            Ok(WriteResult::SchedulesWritten(Box::pin(ledger.write_schedules(writes)).await?))
        }
        WriteRequest::FireSchedules(firings, declared) => Box::pin(fire(ledger, request, firings, declared)).await,
    }
}

async fn fire(
    ledger: &mut PostgresLedger<'_>,
    request: &WriteRequest,
    firings: &[ScheduleFiring],
    declared: &Arc<LimitTable>,
) -> Result<WriteResult, SessionError> {
    ledger.declared = declared.clone();
    let jobs = request.new_jobs();
    let lanes: Vec<LaneRow> = jobs.iter().map(|job| ledger.names.lane_row(&job.lane)).collect::<Result<_, _>>()?;
    ledger.load_lanes(lanes.into_iter()).await?;
    Ok(WriteResult::SchedulesFired(ledger.fire_schedules(firings).await?))
}

/// The moment at which the ids of new jobs became known to callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdsGiven {
    WithThisInsert,
    Before,
}

async fn insert(
    ledger: &mut PostgresLedger<'_>,
    jobs: &[NewJob],
    declared: &Arc<LimitTable>,
    ids_given: IdsGiven,
) -> Result<WriteResult, SessionError> {
    ledger.declared = declared.clone();
    // All in one query, in case an earlier request dropped the lines that were read when the transaction started.
    let lanes: Vec<LaneRow> = jobs.iter().map(|job| ledger.names.lane_row(&job.lane)).collect::<Result<_, _>>()?;
    ledger.load_lanes(lanes.into_iter()).await?;
    let mut inserted = Vec::with_capacity(jobs.len());
    for job in jobs {
        inserted.push(match ids_given {
            IdsGiven::WithThisInsert => ledger.insert(job).await?,
            IdsGiven::Before => ledger.insert_child(job).await?,
        });
    }
    Ok(WriteResult::Inserted(inserted))
}
