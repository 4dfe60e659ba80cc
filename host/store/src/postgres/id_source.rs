//! Source: the number in the lowest bits of this host's job ids, which no other host has as long as this one holds it.
//!
//! A hold ends by the database's clock, and with each hold goes a range of ids that are this host's alone for ever: what it
//! made stays its own, however late it hears that the number is another's by now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_postgres::types::Type;
use tracing::{info, warn};
use wharf_core::ids::{JobId, ReservedIds};
use wharf_core::time::Timestamp;

use super::rows::{length, signed, stamp};
use super::session::{ANSWER_PATIENCE, Session, SessionError, Sessions};
use super::time::{NOW, Time};

/// A number is free again so long after its host was last heard of. Longer than most faults last, and short enough that hosts
/// which are killed again and again do not use up all numbers.
const HOLD: Duration = Duration::from_secs(300);
const RENEW_EVERY: Duration = Duration::from_secs(30);
/// After a renewal that failed.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Source {
    /// Tells this host's holds from those of others.
    holder: i64,
    /// Locked for a few assignments, never across an await.
    own: Mutex<Own>,
    /// Somebody was refused an id.
    wanted: Notify,
}

struct Own {
    number: i32,
    ids: ReservedIds,
    /// The host has ended, and holds no number any more.
    left: bool,
}

impl Source {
    pub(super) async fn draw(sessions: &Sessions, time: &Time) -> Result<Source, SessionError> {
        let session = sessions.session().await?;
        let holder = signed(fastrand::u64(1..));
        let (number, ids) = draw(&session, time, holder, None).await?;
        Ok(Source { holder, own: Mutex::new(Own { number, ids, left: false }), wanted: Notify::new() })
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next id, if the number is surely this host's.
    pub(super) fn next(&self, now: Timestamp) -> Result<JobId, SessionError> {
        let mut own = self.own();
        own.ids.next(now).ok_or_else(|| {
            self.wanted.notify_one();
            SessionError::Passing(format!(
                "this host makes no job ids now: its hold on number {} of {} is over, as after it was stopped or cut off for \
                 {HOLD:?}, and it asks for one again by itself",
                own.number,
                ReservedIds::SOURCES
            ))
        })
    }

    /// Prolongs the hold, or draws another number where this one was given to somebody else.
    async fn renew(&self, session: &Session, time: &Time) -> Result<(), SessionError> {
        let (asked, now) = (Instant::now(), time.now());
        let (number, last, below) = {
            let own = self.own();
            if own.left {
                return Ok(());
            }
            let last = own.ids.last();
            (own.number, last, ReservedIds::floor(now, last).saturating_add(ReservedIds::span(HOLD)))
        };
        let text = format!(
            "WITH moment AS MATERIALIZED (SELECT coalesce($1::bigint, {NOW}) AS now)
             UPDATE wharf.source_holds SET until = now + $2, below = greatest(below, $5) FROM moment
             WHERE number = $3 AND holder = $4 RETURNING until, below, now"
        );
        let (given, hold, below) = (time.given(), length(HOLD), reserved(below));
        let args = [
            (&given as _, Type::INT8),
            (&hold as _, Type::INT8),
            (&number as _, Type::INT4),
            (&self.holder as _, Type::INT8),
            (&below as _, Type::INT8),
        ];
        match session.ask(&text, &args).await?.first() {
            Some(row) => {
                time.heard(stamp(row.get(2)), asked);
                let mut own = self.own();
                if !own.left {
                    own.ids.prolong(until(row.get(0), now), row.get::<_, i64>(1) as u64);
                }
            }
            None => {
                let (new, ids) = draw(session, time, self.holder, last).await?;
                info!("number {number} of job ids was given to another host while this one was away; it has {new} now");
                let mut own = self.own();
                if !own.left {
                    (own.number, own.ids) = (new, ids);
                }
            }
        }
        Ok(())
    }

    /// The host has ended by itself: it makes no more ids, and its number is free.
    pub(super) async fn leave(&self, session: &Session) -> Result<(), SessionError> {
        let number = {
            let mut own = self.own();
            own.ids.give_up();
            own.left = true;
            own.number
        };
        let text = "UPDATE wharf.source_holds SET until = 0 WHERE number = $1 AND holder = $2";
        session.ask(text, &[(&number, Type::INT4), (&self.holder, Type::INT8)]).await.map(drop)
    }
}

/// Holds on to the number, for as long as the host lives.
pub(super) async fn hold_on(source: Arc<Source>, sessions: Sessions, time: Time) {
    let mut fails = false;
    while !source.own().left {
        tokio::select! {
            () = tokio::time::sleep(RENEW_EVERY) => {}
            () = source.wanted.notified() => {}
        }
        while let Err(fault) = renewed(&source, &sessions, &time).await {
            if !std::mem::replace(&mut fails, true) {
                warn!("the hold on a number for job ids could not be renewed: {fault}");
            }
            tokio::time::sleep(AGAIN).await;
        }
        fails = false;
    }
}

async fn renewed(source: &Source, sessions: &Sessions, time: &Time) -> Result<(), SessionError> {
    let session = sessions.session().await?;
    let answer = tokio::time::timeout(ANSWER_PATIENCE, source.renew(&session, time)).await;
    answer.unwrap_or_else(|_| Err(SessionError::silent())).inspect_err(|_| session.discard())
}

/// A number that nobody holds, the one that was given out longest ago, with ids of it past all that there are.
async fn draw(
    session: &Session,
    time: &Time,
    holder: i64,
    own_last: Option<JobId>,
) -> Result<(i32, ReservedIds), SessionError> {
    let asked = Instant::now();
    let text =
        format!("SELECT {NOW}, greatest((SELECT max(id) FROM wharf.jobs), (SELECT id FROM wharf.last_forgotten))");
    let row = session.ask_one(&text, &[]).await?;
    time.heard(stamp(row.get(0)), asked);
    let last = row.get::<_, Option<i64>>(1).and_then(|last| JobId::from_number(last as u64)).max(own_last);

    let now = time.now();
    // A hold until long after any that can be given now was given by a clock that was set back since. Where its host lives it
    // is renewed soon: such a number is the last choice.
    let text = format!(
        "WITH moment AS MATERIALIZED (SELECT coalesce($1::bigint, {NOW}) AS now),
              free AS MATERIALIZED (
                  SELECT number FROM wharf.source_holds CROSS JOIN moment WHERE until <= now OR until > now + 2 * $2
                  ORDER BY until > now, (number + {before} - (SELECT last_value FROM wharf.sources)) % {sources}
                  LIMIT 1 FOR UPDATE OF source_holds SKIP LOCKED),
              told AS (SELECT setval('wharf.sources', number) FROM free)
         UPDATE wharf.source_holds AS hold SET holder = $3, until = now + $2, below = greatest(below, $4) + $5
         FROM free, told, moment WHERE hold.number = free.number RETURNING hold.number, until, below",
        before = ReservedIds::SOURCES - 1,
        sources = ReservedIds::SOURCES,
    );
    let (given, hold) = (time.given(), length(HOLD));
    let (floor, span) = (reserved(ReservedIds::floor(now, last)), reserved(ReservedIds::span(HOLD)));
    let args = [
        (&given as _, Type::INT8),
        (&hold as _, Type::INT8),
        (&holder as _, Type::INT8),
        (&floor as _, Type::INT8),
        (&span as _, Type::INT8),
    ];
    let drawn = session.ask(&text, &args).await?;
    let Some(row) = drawn.first() else {
        return Err(SessionError::Passing(format!(
            "{} hosts use it, and job ids of no more can be told apart: stop one; the number of one that was killed is free \
             after {HOLD:?}",
            ReservedIds::SOURCES
        )));
    };
    let (number, below): (i32, i64) = (row.get(0), row.get(2));
    let from = JobId::from_number((below - span) as u64);
    Ok((number, ReservedIds::of_source(number as u64, from, until(row.get(1), now), below as u64)))
}

/// Whichever is sooner, what the database wrote or a hold's length from when it was asked: its clock may be set in between.
fn until(written: i64, asked: Timestamp) -> Timestamp {
    stamp(written).min(asked + HOLD)
}

/// Ids end where the database's integers do.
fn reserved(below: u64) -> i64 {
    i64::try_from(below).unwrap_or(i64::MAX)
}
