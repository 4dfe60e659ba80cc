//! Sessions: connections of the pool, each used by one at a time, and what their errors mean.
//!
//! Statements are sent with their types and without a name, so that nothing of them stays in the session: any pooler may
//! stand between. Only the writer gives them names, see `named`. Those that do not need each other's answers are sent together and cost one way there and back.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{NoTls, Row};

use super::address::Address;
use super::prepared::{MARK, Named};
use super::tls::connector;
use crate::store::{OpenError, StoreError};

/// How long somebody waits for a connection of the pool.
const PLACE_PATIENCE: Duration = Duration::from_secs(5);

/// For an answer to what is small, a new connection among it. A lease is lost to silence long before it is to a slow server.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// A value and its type.
pub(super) type Arg<'a> = (&'a (dyn ToSql + Sync), Type);

/// Why something did not work.
#[derive(Debug)]
pub(super) enum SessionError {
    Server(tokio_postgres::Error),
    /// No connection could be had.
    Unreachable(String),
    /// The tables hold what nobody wrote.
    Damaged(String),
    /// Nothing is wrong with the server, and it passes by itself.
    Passing(String),
    /// What was remembered of jobs is no longer so.
    Outdated,
    /// With statements that have names a transaction could not begin; without them it may.
    Nameless(Box<SessionError>),
}

impl From<tokio_postgres::Error> for SessionError {
    fn from(error: tokio_postgres::Error) -> SessionError {
        SessionError::Server(error)
    }
}

pub(super) fn damaged(what: &str, found: &str) -> SessionError {
    SessionError::Damaged(format!("the database holds {what} that is none: `{}`", found.escape_debug()))
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::Server(error) => match error.as_db_error() {
                Some(said) => write!(f, "{}", said.message()),
                None => match std::error::Error::source(error) {
                    Some(source) => write!(f, "{error}: {source}"),
                    None => write!(f, "{error}"),
                },
            },
            SessionError::Unreachable(text) | SessionError::Damaged(text) | SessionError::Passing(text) => {
                f.write_str(text)
            }
            SessionError::Outdated => f.write_str("its jobs change faster than they can be read"),
            SessionError::Nameless(fault) => fault.fmt(f),
        }
    }
}

impl SessionError {
    /// Nothing came back from what answers at once.
    pub(super) fn silent() -> SessionError {
        SessionError::Unreachable(format!("no answer for {ANSWER_PATIENCE:?}: the server or the way to it hangs"))
    }

    /// The connection is gone, or never was: another one may work.
    pub(super) fn is_lost_connection(&self) -> bool {
        match self {
            SessionError::Server(error) => match error.code() {
                Some(code) => {
                    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW].contains(code)
                        || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
                }
                None => true,
            },
            SessionError::Unreachable(_) => true,
            SessionError::Damaged(_) | SessionError::Passing(_) | SessionError::Outdated => false,
            SessionError::Nameless(fault) => fault.is_lost_connection(),
        }
    }

    /// What is wrong with the server's certificate, if that is what it is.
    pub(super) fn certificate(&self) -> Option<String> {
        let SessionError::Server(error) = self else { return None };
        let mut next = std::error::Error::source(error);
        while let Some(error) = next {
            let wrapped = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
            let found = wrapped.and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match found.or_else(|| error.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidCertificate(why)) => return Some(why.to_string()),
                _ => next = error.source(),
            }
        }
        None
    }

    /// Two transactions were in each other's way: the same again works.
    pub(super) fn is_collision(&self) -> bool {
        let codes = [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::UNIQUE_VIOLATION,
            // Its name was lost with the session that knew it; again goes without names.
            SqlState::INVALID_SQL_STATEMENT_NAME,
            // So the end of a job is refused that is not how it was remembered; again reads it first.
            SqlState::DIVISION_BY_ZERO,
        ];
        match self {
            SessionError::Server(error) => error.code().is_some_and(|code| codes.contains(code)),
            SessionError::Nameless(_) | SessionError::Outdated => true,
            SessionError::Unreachable(_) | SessionError::Damaged(_) | SessionError::Passing(_) => false,
        }
    }

    /// It is so for everybody at this moment, and will not stay so: to try each alone would be to wait once more for each.
    pub(super) fn is_passing(&self) -> bool {
        let SessionError::Server(error) = self else {
            return matches!(self, SessionError::Passing(_)) || self.is_lost_connection();
        };
        // Classes of SQLSTATE: connections, rollbacks, resources, an operator's hand; then locks and read-only standbys.
        let passing = |code: &str| {
            ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class)) || code == "55P03" || code == "25006"
        };
        self.is_lost_connection() || error.code().is_some_and(|code| passing(code.code()))
    }

    /// The server has no record of the transaction that it was asked about.
    pub(super) fn is_unheard_of(&self) -> bool {
        matches!(self, SessionError::Server(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE))
    }

    /// What it means to whoever asked; nothing was written.
    pub(super) fn refuse(&self, shown: &str) -> StoreError {
        let text = format!("{shown}: {self}");
        if self.is_passing() { StoreError::Busy(text) } else { StoreError::Broken(text) }
    }
}

/// Where connections come from.
#[derive(Clone)]
pub(super) struct Sessions {
    pool: Pool,
    /// What stands before each name of a table in statements, in place of `wharf.`; `None` where it is just that.
    schema: Option<String>,
}

impl Sessions {
    pub(super) fn of(address: &Address, size: usize) -> Result<Sessions, OpenError> {
        let mend = |reason: String| OpenError::MendAddress { address: address.shown.clone(), reason };
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if address.wants_tls() {
            let tls =
                connector(address.root_certificates.as_deref()).map_err(|why| mend(format!("is of no use: {why}")))?;
            Manager::from_config(address.config.clone(), tls, config)
        } else {
            Manager::from_config(address.config.clone(), NoTls, config)
        };
        let pool = Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(PLACE_PATIENCE))
            .create_timeout(Some(ANSWER_PATIENCE))
            .build()
            .map_err(|error| mend(error.to_string()))?;
        let schema = (address.schema != "wharf").then(|| format!("{}.", address.schema));
        Ok(Sessions { pool, schema })
    }

    pub(super) async fn session(&self) -> Result<Session, SessionError> {
        match self.pool.get().await {
            Ok(client) => Ok(Session { client, schema: self.schema.clone(), named: None }),
            Err(PoolError::Backend(error)) => Err(SessionError::Server(error)),
            Err(PoolError::Timeout(TimeoutType::Create)) => Err(SessionError::silent()),
            Err(PoolError::Timeout(_)) => Err(SessionError::Unreachable(format!(
                "none of its {} connections was free for {PLACE_PATIENCE:?}: the server is slow, or the pool is too small",
                self.pool.status().max_size
            ))),
            Err(error) => Err(SessionError::Unreachable(error.to_string())),
        }
    }
}

pub(super) struct Session {
    client: Object,
    schema: Option<String>,
    /// The writer's alone.
    pub(super) named: Option<Named>,
}

impl Session {
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    fn text(&self, statement: &str) -> String {
        match &self.schema {
            Some(schema) => statement.replace("wharf.", schema),
            None => statement.to_owned(),
        }
    }

    pub(super) async fn ask(&self, statement: &str, args: &[Arg<'_>]) -> Result<Vec<Row>, SessionError> {
        if let Some(known) = self.named.as_ref().and_then(|named| named.find(statement, args)) {
            let values: Vec<&(dyn ToSql + Sync)> = args.iter().map(|(value, _)| *value).collect();
            return Ok(self.client.query(known, &values).await?);
        }
        self.ask_outside(statement, args).await
    }

    /// Asks outside a transaction, where it is not known whose session it is: without a name.
    pub(super) async fn ask_outside(&self, statement: &str, args: &[Arg<'_>]) -> Result<Vec<Row>, SessionError> {
        Ok(self.client.query_typed(&self.text(statement), args).await?)
    }

    /// Asks only where there is something to ask for.
    pub(super) async fn ask_if(
        &self,
        wanted: bool,
        statement: &str,
        args: &[Arg<'_>],
    ) -> Result<Vec<Row>, SessionError> {
        if wanted { self.ask(statement, args).await } else { Ok(Vec::new()) }
    }

    /// Asks for a little among much, in a transaction of its own. Of tables that the server has not counted yet it expects
    /// so much that it would first compile the statement, or start processes for it: a hundred times what the answer takes.
    /// A host that stops in the middle keeps nobody waiting for what it locked.
    pub(super) async fn ask_apart(&self, statement: &str, args: &[Arg<'_>]) -> Result<Vec<Row>, SessionError> {
        let (_, found, _) = futures_util::try_join!(
            self.run(
                "BEGIN; SELECT set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true),
                 set_config('idle_in_transaction_session_timeout', '2s', true)"
            ),
            self.ask(statement, args),
            self.run("COMMIT"),
        )?;
        Ok(found)
    }

    pub(super) async fn ask_one(&self, statement: &str, args: &[Arg<'_>]) -> Result<Row, SessionError> {
        let row = self.ask(statement, args).await?.into_iter().next();
        row.ok_or_else(|| SessionError::Damaged("a question that always has an answer had none".to_owned()))
    }

    /// Gives names to what was asked without one. To be called between transactions.
    pub(super) async fn name(&mut self) -> Result<(), SessionError> {
        let Some(named) = &self.named else { return Ok(()) };
        let unnamed = named.take_unnamed();
        if unnamed.is_empty() {
            return Ok(());
        }
        if named.is_empty() {
            self.run(&format!("BEGIN; SELECT set_config('wharf.mark', '{}', false)", named.mark())).await?;
        } else {
            // Never a second mark: what has one has all names.
            self.run("BEGIN").await?;
            let mark = self.client.query_typed_one(&self.text(&format!("SELECT {MARK}")), &[]).await?;
            let mark: Option<String> = mark.get(0);
            if !named.is_here(mark.as_deref()) {
                return Err(SessionError::Unreachable("its session was given to another".to_owned()));
            }
        }
        let mut new = Vec::with_capacity(unnamed.len());
        for (text, types) in unnamed {
            let statement = self.client.prepare_typed(&self.text(&text), &types).await?;
            new.push((text, statement));
        }
        self.run("COMMIT").await?;
        if let Some(named) = &mut self.named {
            named.keep(new);
        }
        Ok(())
    }

    /// Statements without values, one after the other.
    pub(super) async fn run(&self, statements: &str) -> Result<(), SessionError> {
        Ok(self.client.batch_execute(&self.text(statements)).await?)
    }

    /// Leaves the transaction. A connection of which it is not known how it stands goes nowhere but away.
    pub(super) async fn roll_back(self) {
        if self.client.is_closed() || self.run("ROLLBACK").await.is_err() {
            self.discard();
        }
    }

    pub(super) fn discard(self) {
        drop(Object::take(self.client));
    }
}
