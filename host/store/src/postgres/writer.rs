//! The writer: takes all operations that wait into one transaction and answers after the commit, so that what many ask for
//! at once costs one. If one fails, the group is undone and each runs again alone: nobody suffers for another.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;
use tracing::{debug, warn};
use wharf_core::ids::JobId;
use wharf_core::job::NewJob;
use wharf_core::kv::KvChanges;
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{LimitTable, Override};

use super::id_source::Source;
use super::lane_rows::{LaneRow, Names};
use super::ledger::Ledger;
use super::node_marks::Expired;
use super::nudge::Nudger;
use super::prepared::{Named, Shared};
use super::read_set::{self, Needs};
use super::running_cache::Running;
use super::session::{ANSWER_PATIENCE, Session, SessionError, Sessions};
use super::time::Time;
use crate::store::{Claim, Claimed, Inserted, Recorded, StoreError};

/// Operations that wait; who comes after them waits for room.
const WAITING_MAX: usize = 1024;
/// Operations, and bytes of them, in one transaction. A single operation may be larger.
const GROUP_MAX: usize = 256;
const GROUP_BYTES_MAX: usize = 16 << 20;
/// After a transaction that wrote so many jobs, the next one waits so long for more to come.
const BUSY: usize = 64;
const GATHER: Duration = Duration::from_millis(1);
/// The same again where others were in the way, or the connection was lost before the commit.
const TRIES: u32 = 4;
/// How often it is asked what became of a transaction.
const DOUBT_EVERY: Duration = Duration::from_millis(200);
/// Lanes that were closed by a lower limit elsewhere are looked for this often.
const REOPEN_EVERY: Duration = Duration::from_secs(10);

/// What is asked of the writer.
#[derive(Debug)]
pub(super) enum WriteRequest {
    Insert(Vec<NewJob>, Arc<LimitTable>),
    /// Jobs whose ids were given out before, with values that are changed together with them.
    LeaveBehind(Vec<NewJob>, Arc<LimitTable>, Option<Arc<KvChanges>>),
    Claim(Claim),
    Record(Vec<(JobId, Event)>),
    /// Leases that had run out when they were looked at.
    Expire(Vec<Expired>),
    SetOverride(Override),
}

#[derive(Debug)]
pub(super) enum WriteResult {
    Inserted(Vec<Inserted>),
    Claimed(Claimed),
    Recorded(Vec<Result<Recorded, Refusal>>),
    Expired(Vec<JobId>),
    Set,
}

impl WriteResult {
    /// Whether others may wait for it.
    fn is_worth_a_nudge(&self) -> bool {
        match self {
            WriteResult::Claimed(claimed) => !claimed.leased.is_empty(),
            WriteResult::Expired(freed) => !freed.is_empty(),
            WriteResult::Inserted(_) | WriteResult::Recorded(_) | WriteResult::Set => true,
        }
    }
}

impl WriteRequest {
    fn is_claim(&self) -> bool {
        matches!(self, WriteRequest::Claim(_))
    }

    /// About how many jobs it writes.
    fn size(&self) -> usize {
        match self {
            WriteRequest::Insert(jobs, ..) | WriteRequest::LeaveBehind(jobs, ..) => jobs.len(),
            WriteRequest::Record(events) => events.len(),
            WriteRequest::Expire(over) => over.len(),
            WriteRequest::Claim(_) | WriteRequest::SetOverride(_) => 0,
        }
    }

    fn bytes(&self) -> usize {
        let payloads = |jobs: &[NewJob]| jobs.iter().map(|job| job.payload.len()).sum::<usize>();
        let changed = |changes: &Option<Arc<KvChanges>>| changes.as_ref().map_or(0, |changes| changes.bytes() as usize);
        match self {
            WriteRequest::Insert(jobs, _) => payloads(jobs),
            WriteRequest::LeaveBehind(jobs, _, changes) => payloads(jobs) + changed(changes),
            WriteRequest::Record(events) => events.iter().map(|(_, event)| event.bytes()).sum(),
            _ => 0,
        }
    }
}

struct Asked {
    wish: WriteRequest,
    answer: oneshot::Sender<Result<WriteResult, StoreError>>,
}

/// The way to the writer.
pub(super) struct Writer {
    asked: mpsc::Sender<Asked>,
    shown: String,
}

/// What the writer works with.
pub(super) struct Desk {
    pub(super) sessions: Sessions,
    pub(super) time: Time,
    pub(super) source: Arc<Source>,
    pub(super) nudger: Arc<Nudger>,
    pub(super) shown: String,
}

/// By which limit per key, and when, the lanes of a group were last opened that others had closed.
#[derive(Default)]
pub(super) struct Reopened(HashMap<i32, (Option<u32>, Instant)>);

impl Reopened {
    /// Whether it is to be done now: at a limit that is new here, and now and then.
    pub(super) fn is_due(&mut self, group: i32, per_key: Option<u32>) -> bool {
        let due = self.0.get(&group).is_none_or(|(by, at)| *by != per_key || at.elapsed() >= REOPEN_EVERY);
        if due {
            self.0.insert(group, (per_key, Instant::now()));
        }
        due
    }
}

impl Writer {
    pub(super) fn start(desk: Desk) -> Writer {
        let (asked, waiting) = mpsc::channel(WAITING_MAX);
        let shown = desk.shown.clone();
        let memory = Memory {
            names: Names::default(),
            declared: Arc::default(),
            reopened: Reopened::default(),
            session: None,
            shared: Shared::default(),
            running: Running::default(),
        };
        tokio::spawn(serve(desk, memory, waiting));
        Writer { asked, shown }
    }

    /// Has a wish carried out, and answers once it is durable.
    pub(super) async fn write(&self, wish: WriteRequest) -> Result<WriteResult, StoreError> {
        let gone = || format!("the writer of {} has stopped: restart the host", self.shown);
        let (answer, answered) = oneshot::channel();
        self.asked.send(Asked { wish, answer }).await.map_err(|_| StoreError::Broken(gone()))?;
        answered.await.map_err(|_| StoreError::Unknown(gone()))?
    }
}

/// What the writer remembers from one transaction to the next.
struct Memory {
    names: Names,
    /// What manifests and settings said at the last insert or claim.
    declared: Arc<LimitTable>,
    reopened: Reopened,
    /// The session of the last transaction, with the names of statements in it.
    session: Option<Session>,
    shared: Shared,
    running: Running,
}

/// How a transaction went that did not end well.
enum Failed {
    /// Nothing was written.
    Undone(SessionError),
    /// Its commit was sent and no answer came.
    InDoubt { transaction: String, fault: SessionError, done: Vec<WriteResult> },
}

async fn serve(desk: Desk, mut memory: Memory, mut waiting: mpsc::Receiver<Asked>) {
    let mut queue: VecDeque<Asked> = VecDeque::new();
    let mut more = Vec::new();
    let mut busy = false;
    loop {
        if queue.is_empty() && waiting.recv_many(&mut more, GROUP_MAX).await == 0 {
            return;
        }
        queue.extend(more.drain(..));
        if busy {
            gather(&mut queue, &mut waiting).await;
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = queue.front() {
            bytes += next.wish.bytes();
            if !group.is_empty() && (bytes > GROUP_BYTES_MAX || group.len() == GROUP_MAX) {
                break;
            }
            group.extend(queue.pop_front());
        }
        // None of them was answered, so that any order is right; a claim comes last, and finds what the others bring.
        group.sort_by_key(|asked: &Asked| asked.wish.is_claim());
        busy = group.iter().map(|asked| asked.wish.size()).sum::<usize>() >= BUSY;
        if carry_out(&desk, &mut memory, group).await {
            desk.nudger.look_again();
        }
    }
}

/// Waits a little for what the last answers bring forth: two small transactions take longer than one that is twice as large.
/// A claim is the last of it.
async fn gather(queue: &mut VecDeque<Asked>, waiting: &mut mpsc::Receiver<Asked>) {
    let mut over = std::pin::pin!(tokio::time::sleep(GATHER));
    while queue.len() < GROUP_MAX && !queue.iter().any(|asked| asked.wish.is_claim()) {
        tokio::select! {
            asked = waiting.recv() => match asked {
                Some(asked) => queue.push_back(asked),
                None => return,
            },
            () = &mut over => return,
        }
    }
}

/// Answers everybody of a group; true if it is worth a nudge.
async fn carry_out(desk: &Desk, memory: &mut Memory, group: Vec<Asked>) -> bool {
    let wishes: Vec<&WriteRequest> = group.iter().map(|asked| &asked.wish).collect();
    match until_known(desk, memory, &wishes).await {
        Ok(done) => {
            let worth = done.iter().any(WriteResult::is_worth_a_nudge);
            for (asked, done) in group.into_iter().zip(done) {
                // A caller that no longer waits has lost the answer, not the work.
                _ = asked.answer.send(Ok(done));
            }
            worth
        }
        Err(fault) if group.len() == 1 || fault.is_passing() => {
            warn!("{}: {fault}", desk.shown);
            for asked in group {
                _ = asked.answer.send(Err(fault.refuse(&desk.shown)));
            }
            false
        }
        Err(_) => {
            let mut worth = false;
            for alone in group {
                let done = until_known(desk, memory, &[&alone.wish]).await;
                let answer = match done.map(|mut done| done.pop()) {
                    Ok(Some(done)) => Ok(done),
                    Ok(None) => Err(StoreError::Broken("an operation was committed that never ran".to_owned())),
                    Err(fault) => {
                        warn!("{}: {fault}", desk.shown);
                        Err(fault.refuse(&desk.shown))
                    }
                };
                worth |= answer.as_ref().is_ok_and(WriteResult::is_worth_a_nudge);
                _ = alone.answer.send(answer);
            }
            worth
        }
    }
}

/// Carries out wishes in one transaction, again where that helps, until it is known what became of it.
async fn until_known(
    desk: &Desk,
    memory: &mut Memory,
    wishes: &[&WriteRequest],
) -> Result<Vec<WriteResult>, SessionError> {
    let mut tries = 1;
    loop {
        let fault = match transaction(desk, memory, wishes, tries > 1).await {
            Ok(done) => return Ok(done),
            Err(Failed::InDoubt { transaction, fault, done }) => {
                warn!("{}: the answer to a commit was lost ({fault}); asking what became of it", desk.shown);
                if became_of(desk, &transaction).await {
                    return Ok(done);
                }
                fault
            }
            Err(Failed::Undone(fault)) => fault,
        };
        if tries == TRIES
            || !(fault.is_collision() || fault.is_lost_connection())
            || matches!(fault, SessionError::Unreachable(_))
        {
            return Err(fault);
        }
        tries += 1;
    }
}

/// Whether a transaction was committed. Asks until somebody knows: to guess would be to write twice, or not at all.
async fn became_of(desk: &Desk, transaction: &str) -> bool {
    loop {
        let asked = async {
            let session = desk.sessions.session().await?;
            let text = "SELECT pg_xact_status($1::text::xid8)";
            let row = session.ask_one(text, &[(&transaction, Type::TEXT)]).await?;
            Ok::<_, SessionError>(row.get::<_, Option<String>>(0))
        };
        match asked.await.as_ref().map(Option::as_deref) {
            Ok(Some("committed")) => return true,
            Ok(Some("aborted") | None) => return false,
            Ok(Some(_)) => {}
            // A server that never heard of it has it not: it took over from one that was lost.
            Err(fault) if fault.is_unheard_of() => return false,
            Err(_) => {}
        }
        tokio::time::sleep(DOUBT_EVERY).await;
    }
}

async fn transaction(
    desk: &Desk,
    memory: &mut Memory,
    wishes: &[&WriteRequest],
    again: bool,
) -> Result<Vec<WriteResult>, Failed> {
    let mut session = match memory.session.take() {
        Some(session) if !session.is_closed() => session,
        _ => {
            let mut session = desk.sessions.session().await.map_err(Failed::Undone)?;
            // Not for a transaction that failed with them.
            session.named = if again { None } else { Named::of(&memory.shared) };
            session
        }
    };
    let result = run(desk, memory, wishes, &session, again).await;
    match &result {
        Ok(_) => match tokio::time::timeout(ANSWER_PATIENCE, session.name()).await {
            Ok(Ok(())) => {
                session.named = session.named.or_else(|| Named::of(&memory.shared));
                memory.session = Some(session);
            }
            Ok(Err(fault)) => {
                debug!("statements go without names: {fault}");
                session.discard();
            }
            Err(_) => session.discard(),
        },
        Err(Failed::Undone(_)) => session.roll_back().await,
        Err(Failed::InDoubt { .. }) => session.discard(),
    }
    result
}

async fn run(
    desk: &Desk,
    memory: &mut Memory,
    wishes: &[&WriteRequest],
    session: &Session,
    again: bool,
) -> Result<Vec<WriteResult>, Failed> {
    let undone = Failed::Undone;
    let all = || wishes.iter().copied();
    memory.names.learn(session, read_set::names(all())).await.map_err(undone)?;
    memory.names.place(session, &read_set::all_added(all())).await.map_err(undone)?;
    let needs = Needs::of(all(), &memory.names, &memory.running, again).map_err(undone)?;
    let remembered = needs.remembered.iter().filter_map(|id| Some((*id, memory.running.take(*id)?))).collect();
    let declared = memory.declared.clone();
    let began =
        Ledger::begin(session, &mut memory.names, (&desk.time, &desk.source), declared, &needs, remembered).await;
    let has_names = session.named.as_ref().is_some_and(|named| !named.is_empty());
    let nameless = |fault| if has_names { SessionError::Nameless(Box::new(fault)) } else { fault };
    let mut ledger = began.map_err(|fault| undone(nameless(fault)))?;
    let mut done = Vec::with_capacity(wishes.len());
    for wish in wishes {
        done.push(grant(&mut ledger, &mut memory.reopened, wish).await.map_err(undone)?);
    }
    let transaction = ledger.transaction.clone();
    let committed = ledger.commit().await;
    memory.declared = ledger.declared.clone();
    let began = ledger.began;
    match committed {
        Ok(()) => {
            memory.running.keep(began);
            Ok(done)
        }
        Err(fault) if fault.is_lost_connection() => Err(Failed::InDoubt { transaction, fault, done }),
        Err(fault) => Err(Failed::Undone(fault)),
    }
}

async fn grant(
    ledger: &mut Ledger<'_>,
    reopened: &mut Reopened,
    wish: &WriteRequest,
) -> Result<WriteResult, SessionError> {
    match wish {
        WriteRequest::Insert(jobs, declared) => add(ledger, jobs, declared, false).await,
        WriteRequest::LeaveBehind(jobs, declared, changes) => {
            changes.iter().for_each(|changes| ledger.values.change(changes));
            add(ledger, jobs, declared, true).await
        }
        WriteRequest::Claim(claim) => Ok(WriteResult::Claimed(ledger.claim(claim, reopened).await?)),
        WriteRequest::Record(events) => {
            let mut recorded = Vec::with_capacity(events.len());
            for (id, event) in events {
                recorded.push(ledger.record(*id, event).await?);
            }
            Ok(WriteResult::Recorded(recorded))
        }
        WriteRequest::Expire(over) => {
            let mut freed = Vec::new();
            for expired in over {
                if ledger.expire(*expired).await? {
                    freed.push(expired.job);
                }
            }
            Ok(WriteResult::Expired(freed))
        }
        WriteRequest::SetOverride(change) => ledger.set_override(change).await.map(|()| WriteResult::Set),
    }
}

async fn add(
    ledger: &mut Ledger<'_>,
    jobs: &[NewJob],
    declared: &Arc<LimitTable>,
    ids_were_given: bool,
) -> Result<WriteResult, SessionError> {
    ledger.declared = declared.clone();
    // At once, where those that were read in the beginning are no longer known.
    let lanes: Vec<LaneRow> = jobs.iter().map(|job| ledger.names.lane_row(&job.lane)).collect::<Result<_, _>>()?;
    ledger.load_lanes(lanes.into_iter()).await?;
    let mut inserted = Vec::with_capacity(jobs.len());
    for job in jobs {
        inserted.push(if ids_were_given { ledger.insert_child(job).await? } else { ledger.insert(job).await? });
    }
    Ok(WriteResult::Inserted(inserted))
}
