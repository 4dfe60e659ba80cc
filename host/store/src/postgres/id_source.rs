//! The number in the lowest bits of this host's job ids. No other host has it while this one owns it.
//!
//! Ownership ends by the database's clock, and each renewal reserves a range of ids that only this host may ever make: ids
//! that it made stay its own, however late it learns that another host has the number.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_postgres::types::Type;
use tracing::{info, warn};
use wharf_core::ids::{JobId, ReservedIds};
use wharf_core::time::Timestamp;

use super::session::{RESPONSE_TIMEOUT, Session, SessionError, Sessions, computed, value};
use super::time::{NOW, Time};
use crate::columns::{duration_us, signed, timestamp};

/// A number is free again this long after its host last renewed it. Longer than most faults last, and short enough that hosts
/// which are killed again and again do not use up all numbers.
const OWNERSHIP: Duration = Duration::from_secs(300);
const RENEW_INTERVAL: Duration = Duration::from_secs(30);
/// The wait after a renewal that failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A source of job ids, for one host.
pub(super) struct IdSource {
    /// A random number that tells this host's ownership from that of others.
    owner: i64,
    /// Locked for a few assignments, never across an await.
    reservation: Mutex<Reservation>,
    /// Notified when a caller was refused an id.
    exhausted: Notify,
}

struct Reservation {
    number: i32,
    ids: ReservedIds,
    /// The host has stopped, and owns no number.
    released: bool,
}

impl IdSource {
    /// Takes ownership of a free number.
    pub(super) async fn acquire(sessions: &Sessions, time: &Time) -> Result<IdSource, SessionError> {
        let session = sessions.session().await?;
        let owner = signed(fastrand::u64(1..));
        let (number, ids) = acquire(&session, time, owner, None).await?;
        let reservation = Mutex::new(Reservation { number, ids, released: false });
        Ok(IdSource { owner, reservation, exhausted: Notify::new() })
    }

    fn reservation(&self) -> MutexGuard<'_, Reservation> {
        self.reservation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next id.
    ///
    /// # Errors
    /// `Transient` if another host may own the number by now.
    pub(super) fn next(&self, now: Timestamp) -> Result<JobId, SessionError> {
        let mut reservation = self.reservation();
        reservation.ids.next(now).ok_or_else(|| {
            self.exhausted.notify_one();
            SessionError::Transient(format!(
                "this host can't make job ids now: its ownership of number {} of {} expired, as after it was stopped or \
                 disconnected for {OWNERSHIP:?}; it is acquiring a number again",
                reservation.number,
                ReservedIds::SOURCES
            ))
        })
    }

    /// Prolongs the ownership, or acquires another number if this one was given to another host.
    async fn renew(&self, session: &Session, time: &Time) -> Result<(), SessionError> {
        let (sent, now) = (Instant::now(), time.now());
        let (number, last, below) = {
            let reservation = self.reservation();
            if reservation.released {
                return Ok(());
            }
            let last = reservation.ids.last();
            let below = ReservedIds::floor(now, last).saturating_add(ReservedIds::span(OWNERSHIP));
            (reservation.number, last, below)
        };
        let text = format!(
            "WITH moment AS MATERIALIZED (SELECT coalesce($1::bigint, {NOW}) AS now)
             UPDATE $schema.id_sources SET owned_until = now + $2, reserved_below = greatest(reserved_below, $5) FROM moment
             WHERE number = $3 AND owner = $4 RETURNING owned_until, reserved_below, now"
        );
        let (manual_now, ownership, below) = (time.manual_micros(), duration_us(OWNERSHIP), id_bound(below));
        let args = [
            (&manual_now as _, Type::INT8),
            (&ownership as _, Type::INT8),
            (&number as _, Type::INT4),
            (&self.owner as _, Type::INT8),
            (&below as _, Type::INT8),
        ];
        match session.query(&text, &args).await?.first() {
            Some(row) => {
                time.observe(timestamp(computed(row, 2)?), sent);
                let (until, below) = (value(row, "id_sources", 0)?, value::<i64>(row, "id_sources", 1)?);
                let mut reservation = self.reservation();
                if !reservation.released {
                    reservation.ids.prolong(owned_until(until, now), below as u64);
                }
            }
            None => {
                let (new, ids) = acquire(session, time, self.owner, last).await?;
                info!(
                    "number {number} of job ids went to another host while this one was away; this one has {new} now"
                );
                let mut reservation = self.reservation();
                if !reservation.released {
                    (reservation.number, reservation.ids) = (new, ids);
                }
            }
        }
        Ok(())
    }

    /// Gives the number back, for a host that stops: it makes no more ids.
    pub(super) async fn release(&self, session: &Session) -> Result<(), SessionError> {
        let number = {
            let mut reservation = self.reservation();
            reservation.ids.give_up();
            reservation.released = true;
            reservation.number
        };
        let text = "UPDATE $schema.id_sources SET owned_until = 0 WHERE number = $1 AND owner = $2";
        session.query(text, &[(&number, Type::INT4), (&self.owner, Type::INT8)]).await.map(drop)
    }
}

/// Renews the ownership until the number is released.
pub(super) async fn keep_renewed(source: Arc<IdSource>, sessions: Sessions, time: Time) {
    let mut is_failing = false;
    while !source.reservation().released {
        tokio::select! {
            () = tokio::time::sleep(RENEW_INTERVAL) => {}
            () = source.exhausted.notified() => {}
        }
        while let Err(error) = renew_once(&source, &sessions, &time).await {
            if !std::mem::replace(&mut is_failing, true) {
                warn!("could not renew the ownership of a number for job ids: {error}");
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
        is_failing = false;
    }
}

async fn renew_once(source: &IdSource, sessions: &Sessions, time: &Time) -> Result<(), SessionError> {
    let session = sessions.session().await?;
    let renewed = tokio::time::timeout(RESPONSE_TIMEOUT, source.renew(&session, time)).await;
    renewed.unwrap_or_else(|_| Err(SessionError::timed_out())).inspect_err(|_| session.discard())
}

/// Acquires the free number that was given out longest ago, with ids above all existing ones.
async fn acquire(
    session: &Session,
    time: &Time,
    owner: i64,
    own_last: Option<JobId>,
) -> Result<(i32, ReservedIds), SessionError> {
    let sent = Instant::now();
    let text =
        format!("SELECT {NOW}, greatest((SELECT max(id) FROM $schema.jobs), (SELECT id FROM $schema.last_deleted))");
    let row = session.query_one(&text, &[]).await?;
    time.observe(timestamp(computed(&row, 0)?), sent);
    let last = value::<Option<i64>>(&row, "jobs", 1)?;
    let last = last.and_then(|last| JobId::from_number(last as u64)).max(own_last);

    let now = time.now();
    // An ownership that ends later than any that can start now dates from before the clock was set back. If its host is live
    // it is renewed soon: such a number is the last choice.
    let text = format!(
        "WITH moment AS MATERIALIZED (SELECT coalesce($1::bigint, {NOW}) AS now),
              free AS MATERIALIZED (
                  SELECT number FROM $schema.id_sources CROSS JOIN moment
                  WHERE owned_until <= now OR owned_until > now + 2 * $2
                  ORDER BY owned_until > now, (number + {before} - (SELECT last_value FROM $schema.last_id_source)) % {sources}
                  LIMIT 1 FOR UPDATE OF id_sources SKIP LOCKED),
              noted AS (SELECT setval('$schema.last_id_source', number) FROM free)
         UPDATE $schema.id_sources AS source
         SET owner = $3, owned_until = now + $2, reserved_below = greatest(reserved_below, $4) + $5
         FROM free, noted, moment WHERE source.number = free.number
         RETURNING source.number, owned_until, reserved_below",
        before = ReservedIds::SOURCES - 1,
        sources = ReservedIds::SOURCES,
    );
    let (manual_now, ownership) = (time.manual_micros(), duration_us(OWNERSHIP));
    let (floor, span) = (id_bound(ReservedIds::floor(now, last)), id_bound(ReservedIds::span(OWNERSHIP)));
    let args = [
        (&manual_now as _, Type::INT8),
        (&ownership as _, Type::INT8),
        (&owner as _, Type::INT8),
        (&floor as _, Type::INT8),
        (&span as _, Type::INT8),
    ];
    let acquired = session.query(&text, &args).await?;
    let Some(row) = acquired.first() else {
        return Err(SessionError::Transient(format!(
            "the limit of {} hosts that can make job ids is reached; stop one, or wait {OWNERSHIP:?} for the number of a host \
             that was killed",
            ReservedIds::SOURCES
        )));
    };
    let (number, until): (i32, i64) = (value(row, "id_sources", 0)?, value(row, "id_sources", 1)?);
    let below: i64 = value(row, "id_sources", 2)?;
    let from = JobId::from_number((below - span) as u64);
    Ok((number, ReservedIds::of_source(number as u64, from, owned_until(until, now), below as u64)))
}

/// Returns the end of an ownership: what the database wrote, or its length from the request, whichever is sooner, since the
/// database's clock may be set in between.
fn owned_until(written: i64, requested: Timestamp) -> Timestamp {
    timestamp(written).min(requested + OWNERSHIP)
}

/// Limits a bound of ids to the database's integers.
fn id_bound(below: u64) -> i64 {
    i64::try_from(below).unwrap_or(i64::MAX)
}
