//! Statements with names: the server reads and plans them once for a session, which is half of what a small one costs.
//!
//! They stay in the server's session, and whether that is ours alone nobody says: a pooler may hand out another one for each
//! transaction, where the same name is unknown, or means what another host wrote. So a mark is left in the session in the very
//! transaction in which statements get their names, and each transaction begins by looking for it. Where it is missing nothing
//! is committed, and from then on statements go without names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};
use tracing::info;

/// The mark of the session, if there is one.
pub(super) const MARK: &str = "current_setting('wharf.mark', true)";

/// The statements of one session that have names.
pub(super) struct Named {
    mark: String,
    statements: HashMap<String, Statement>,
    /// Asked without a name. Locked for one addition, never across an await.
    unnamed: Mutex<HashMap<String, Vec<Type>>>,
    shared: Shared,
}

/// Whether sessions turned out to be no one's own.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<AtomicBool>);

impl Named {
    /// For a session in which nothing has a name yet; `None` where names are of no use.
    pub(super) fn of(shared: &Shared) -> Option<Named> {
        (!shared.0.load(Ordering::Relaxed)).then(|| Named {
            mark: format!("{:016x}", fastrand::u64(..)),
            statements: HashMap::new(),
            unnamed: Mutex::default(),
            shared: shared.clone(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    pub(super) fn find(&self, text: &str, args: &[(&(dyn ToSql + Sync), Type)]) -> Option<&Statement> {
        let known = self.statements.get(text);
        if known.is_none() {
            let types = args.iter().map(|(_, kind)| kind.clone()).collect();
            self.unnamed.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned(), types);
        }
        known
    }

    /// Whether the session is still the one in which the names were given.
    pub(super) fn is_here(&self, mark: Option<&str>) -> bool {
        let here = self.statements.is_empty() || mark == Some(&self.mark);
        if !here && !self.shared.0.swap(true, Ordering::Relaxed) {
            info!("sessions of the database are shared by a pooler: statements go without names");
        }
        here
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// What was asked without a name since this was last called.
    pub(super) fn take_unnamed(&self) -> HashMap<String, Vec<Type>> {
        std::mem::take(&mut *self.unnamed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn keep(&mut self, statements: Vec<(String, Statement)>) {
        self.statements.extend(statements);
    }
}
