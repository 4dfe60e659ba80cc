//! Prepared statements: the server parses and plans them once for a session, which is half the cost of a small one.
//!
//! They belong to the server's session, and nothing tells whether that is ours alone: a pooler such as PgBouncer may use another
//! session for each transaction, where the same name is unknown, or names a statement of another host. So the transaction that prepares
//! statements also leaves a mark in the session, and each transaction starts by checking it. If it is missing nothing is
//! committed, and from then on statements are not prepared.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};
use tracing::info;

/// An SQL expression for the mark of the session; null if it has none.
pub(super) const SESSION_MARK: &str = "current_setting('wharf.mark', true)";

/// The prepared statements of one session.
pub(super) struct PreparedStatements {
    mark: String,
    statements: HashMap<String, Statement>,
    /// Statements that were sent unprepared, with their argument types. Locked for one addition, never across an await.
    pending: Mutex<HashMap<String, Vec<Type>>>,
    pooler: PoolerDetected,
}

/// A flag that is set once sessions turned out to be shared with others by a pooler.
#[derive(Clone, Default)]
pub(super) struct PoolerDetected(Arc<AtomicBool>);

impl PreparedStatements {
    /// Returns an empty set for a new session; `None` behind a pooler, where prepared statements do not work.
    pub(super) fn new(pooler: &PoolerDetected) -> Option<PreparedStatements> {
        (!pooler.0.load(Ordering::Relaxed)).then(|| PreparedStatements {
            mark: format!("{:016x}", fastrand::u64(..)),
            statements: HashMap::new(),
            pending: Mutex::default(),
            pooler: pooler.clone(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// Returns the prepared statement of this text. If there is none, the text is remembered as pending.
    pub(super) fn find(&self, text: &str, args: &[(&(dyn ToSql + Sync), Type)]) -> Option<&Statement> {
        let known = self.statements.get(text);
        if known.is_none() {
            let types = args.iter().map(|(_, kind)| kind.clone()).collect();
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned(), types);
        }
        known
    }

    /// Returns true if `mark`, read from the session, shows that the statements were prepared in it.
    pub(super) fn is_same_session(&self, mark: Option<&str>) -> bool {
        let same = self.statements.is_empty() || mark == Some(&self.mark);
        if !same && !self.pooler.0.swap(true, Ordering::Relaxed) {
            info!("a pooler shares the sessions of the database: statements are not prepared");
        }
        same
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// Takes the statements that were sent unprepared since the last call, with their argument types.
    pub(super) fn take_pending(&self) -> HashMap<String, Vec<Type>> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn add(&mut self, statements: Vec<(String, Statement)>) {
        self.statements.extend(statements);
    }
}
