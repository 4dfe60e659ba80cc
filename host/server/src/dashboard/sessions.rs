//! The sessions of visitors that are known beyond their cookies: those with open streams, and those that were ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use wharf_core::time::Timestamp;

/// The number of sessions that are kept. Only whoever has a token makes one.
const SESSIONS_MAX: usize = 10_000;

/// The session of a visitor: one cookie, until its time is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    /// The value of the cookie.
    pub(super) cookie: String,
    /// The end of its time.
    pub(super) until: Timestamp,
}

/// The sessions of one process.
#[derive(Default)]
pub(super) struct Sessions {
    /// Locked for one look-up. The token of a session is cancelled when the visitor signs out.
    known: Mutex<HashMap<Session, CancellationToken>>,
}

impl Sessions {
    /// Returns what is cancelled when the session ends before its time; it is cancelled already if the session has ended.
    pub(super) fn end_of(&self, session: &Session, now: Timestamp) -> CancellationToken {
        let mut known = self.lock();
        if let Some(token) = known.get(session) {
            return token.clone();
        }
        make_room(&mut known, now);
        known.entry(session.clone()).or_default().clone()
    }

    /// Ends a session: its streams end, and its cookie opens nothing any more.
    pub(super) fn end(&self, session: &Session, now: Timestamp) {
        self.end_of(session, now).cancel();
    }

    /// Returns true if a session has ended before its time.
    pub(super) fn has_ended(&self, session: &Session) -> bool {
        self.lock().get(session).is_some_and(CancellationToken::is_cancelled)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Session, CancellationToken>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets sessions whose time is over, and the one that is nearest to it where there are still too many.
fn make_room(known: &mut HashMap<Session, CancellationToken>, now: Timestamp) {
    if known.len() < SESSIONS_MAX {
        return;
    }
    known.retain(|session, _| session.until >= now);
    if known.len() >= SESSIONS_MAX
        && let Some(first) = known.keys().min_by_key(|session| session.until).cloned()
    {
        known.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_session_ends_its_streams_and_opens_no_more() {
        let (sessions, at) = (Sessions::default(), Timestamp::from_millis);
        let session = |cookie: &str| Session { cookie: cookie.to_owned(), until: at(9_000) };
        let stream = sessions.end_of(&session("a"), at(1));
        sessions.end(&session("a"), at(2));
        assert!(stream.is_cancelled() && sessions.has_ended(&session("a")), "the stream that was open");
        assert!(sessions.end_of(&session("a"), at(3)).is_cancelled(), "one that begins at the same moment");
        assert!(!sessions.has_ended(&session("b")) && !sessions.end_of(&session("b"), at(3)).is_cancelled());
    }

    #[test]
    fn sessions_are_bounded_and_those_over_go_first() {
        let (sessions, at) = (Sessions::default(), Timestamp::from_millis);
        let session = |number: usize| Session { cookie: number.to_string(), until: at(1_000 + number as u64) };
        (0..SESSIONS_MAX).for_each(|number| drop(sessions.end_of(&session(number), at(1))));
        sessions.end(&session(SESSIONS_MAX), at(1));
        assert_eq!(sessions.lock().len(), SESSIONS_MAX);
        assert!(sessions.has_ended(&session(SESSIONS_MAX)) && !sessions.lock().contains_key(&session(0)));
        sessions.end(&session(SESSIONS_MAX + 1), at(9_000_000));
        assert_eq!(sessions.lock().len(), 1, "all others are over");
    }
}
