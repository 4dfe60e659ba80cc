//! Sessions: connections of the pool, each used by one task at a time; the values of their rows; the meaning of their errors.
//!
//! Statements are sent with their types and without a name, so nothing of them stays in the server's session, and any pooler
//! may be in between. Only the writer prepares statements (see `prepared`). Statements that do not need each other's results are
//! sent together and cost one round trip.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType};
use tokio_postgres::error::SqlState;
use tokio_postgres::row::RowIndex;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{NoTls, Row};

use super::address::Address;
use super::prepared::{PreparedStatements, SESSION_MARK};
use super::tls::connector;
use crate::columns::DamagedData;
use crate::store::{OpenError, StoreError};

#[cfg(test)]
mod tests;

/// The time limit for waiting for a free connection of the pool.
const POOL_TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit for the response to a small query, and for a new connection. A lease is lost to a silent network
/// long before it is lost to a slow server.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The placeholder for the schema in statement texts, with the dot behind it. It is no valid SQL, so it never occurs in a
/// statement by accident, and texts that name Wharf for another reason (settings, messages) are left alone.
const SCHEMA: &str = "$schema.";

/// The SQLSTATE that the function `require_rows` of the schema raises: a job changed since the writer read it.
const ROWS_CHANGED: &str = "WH001";

/// A value of a statement and its type.
pub(super) type Arg<'a> = (&'a (dyn ToSql + Sync), Type);

/// The reason why a statement failed.
#[derive(Debug)]
pub(super) enum SessionError {
    /// The server refused the statement, or the connection was lost.
    Server(tokio_postgres::Error),
    /// There is no connection.
    Unreachable(String),
    /// The tables hold values that Wharf never writes.
    Damaged(String),
    /// The server works; the condition passes by itself.
    Transient(String),
    /// The cached rows of running jobs are out of date.
    StaleCache,
    /// A transaction failed to start with prepared statements; without them it may start.
    PreparedLost(Box<SessionError>),
}

impl From<tokio_postgres::Error> for SessionError {
    fn from(error: tokio_postgres::Error) -> SessionError {
        SessionError::Server(error)
    }
}

impl From<DamagedData> for SessionError {
    fn from(damage: DamagedData) -> SessionError {
        SessionError::Damaged(damage.to_string())
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::Server(error) => match error.as_db_error() {
                Some(refusal) => write!(f, "{}", refusal.message()),
                None => match std::error::Error::source(error) {
                    Some(source) => write!(f, "{error}: {source}"),
                    None => write!(f, "{error}"),
                },
            },
            SessionError::Unreachable(text) | SessionError::Damaged(text) | SessionError::Transient(text) => {
                f.write_str(text)
            }
            SessionError::StaleCache => f.write_str("its jobs change faster than they can be read"),
            SessionError::PreparedLost(error) => error.fmt(f),
        }
    }
}

impl SessionError {
    /// Returns the error for a small query that got no response in time.
    pub(super) fn timed_out() -> SessionError {
        SessionError::Unreachable(format!("no response within {RESPONSE_TIMEOUT:?}: the server or the network hangs"))
    }

    /// Returns true if the connection was lost or never made: another connection may work.
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
            SessionError::Damaged(_) | SessionError::Transient(_) | SessionError::StaleCache => false,
            SessionError::PreparedLost(error) => error.is_lost_connection(),
        }
    }

    /// Returns the problem with the server's certificate, if that is the reason.
    pub(super) fn certificate_problem(&self) -> Option<String> {
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

    /// Returns true if two transactions conflicted: retrying the transaction will succeed.
    pub(super) fn is_conflict(&self) -> bool {
        let codes = [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::UNIQUE_VIOLATION,
            // The session that knew the prepared statement is gone; a retry sends the whole text.
            SqlState::INVALID_SQL_STATEMENT_NAME,
        ];
        match self {
            // ROWS_CHANGED: the end of a job is refused if the job changed since it was cached; a retry reads it first.
            SessionError::Server(error) => {
                error.code().is_some_and(|code| codes.contains(code) || code.code() == ROWS_CHANGED)
            }
            SessionError::PreparedLost(_) | SessionError::StaleCache => true,
            SessionError::Unreachable(_) | SessionError::Damaged(_) | SessionError::Transient(_) => false,
        }
    }

    /// Returns true for a transient condition of the server that affects all operations alike. Retrying each operation of a
    /// transaction on its own would only wait once more for each.
    pub(super) fn is_transient(&self) -> bool {
        let SessionError::Server(error) = self else {
            return matches!(self, SessionError::Transient(_)) || self.is_lost_connection();
        };
        // Classes of SQLSTATE: connections, rollbacks, resources, an operator's intervention; then locks and read-only standbys.
        let transient = |code: &str| {
            ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class)) || code == "55P03" || code == "25006"
        };
        self.is_lost_connection() || error.code().is_some_and(|code| transient(code.code()))
    }

    /// Returns true if the server refused a value of the request, or its size: the request is wrong, and the server works.
    fn is_refused_value(&self) -> bool {
        // Classes of SQLSTATE: data exceptions, limits of the server.
        // A division by zero is of this class, too, and a bug of a statement.
        let is_ours = |code: &str| code == SqlState::DIVISION_BY_ZERO.code();
        let refused = |code: &str| ["22", "54"].iter().any(|class| code.starts_with(class)) && !is_ours(code);
        matches!(self, SessionError::Server(error) if error.code().is_some_and(|code| refused(code.code())))
    }

    /// Returns true if the server has no record of the transaction whose status was queried.
    pub(super) fn is_unknown_transaction(&self) -> bool {
        matches!(self, SessionError::Server(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE))
    }

    /// Converts to the store's error, for callers; nothing was written. `address` is the store's, without its password.
    pub(super) fn store_error(&self, address: &str) -> StoreError {
        let text = format!("{address}: {self}");
        match self {
            _ if self.is_transient() => StoreError::Busy(text),
            _ if self.is_refused_value() => StoreError::Refused(text),
            _ => StoreError::Broken(text),
        }
    }
}

/// A column of a row, by position or by name. Positions are for rows that are read often: finding a dozen columns by name is
/// a good part of the cost of reading a row.
pub(super) trait ColumnIndex: RowIndex + fmt::Display + Copy {
    /// Returns the column's name, for errors.
    fn name(self, row: &Row) -> String;
}

impl ColumnIndex for usize {
    fn name(self, row: &Row) -> String {
        row.columns().get(self).map_or_else(|| self.to_string(), |column| column.name().to_owned())
    }
}

impl ColumnIndex for &str {
    fn name(self, _: &Row) -> String {
        self.to_owned()
    }
}

/// Reads a column of a row. `table` is where its value was read or counted.
///
/// # Errors
/// `Damaged`, with the table and the column, if the value is null or of a type that Wharf never writes there.
pub(super) fn value<'r, T: FromSql<'r>>(
    row: &'r Row,
    table: &str,
    column: impl ColumnIndex,
) -> Result<T, SessionError> {
    row.try_get(column)
        .map_err(|error| unreadable(&format!("column `{}` of table `{table}`", column.name(row)), &error))
}

/// Reads a column of a row that the server computed, such as its clock.
///
/// # Errors
/// `Damaged`, with the column, if the value is null or of an unexpected type.
pub(super) fn computed<'r, T: FromSql<'r>>(row: &'r Row, column: impl ColumnIndex) -> Result<T, SessionError> {
    row.try_get(column).map_err(|error| unreadable(&format!("computed column `{}`", column.name(row)), &error))
}

fn unreadable(column: &str, error: &tokio_postgres::Error) -> SessionError {
    let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    SessionError::Damaged(format!("could not read {column}: {reason}"))
}

/// A pool of connections to one database.
#[derive(Clone)]
pub(super) struct Sessions {
    pool: Pool,
    /// The schema's quoted name with a dot, in place of `SCHEMA`.
    schema: Arc<str>,
}

impl Sessions {
    /// Makes a pool of up to `size` connections. Connects to nothing yet.
    pub(super) fn new(address: &Address, size: usize) -> Result<Sessions, OpenError> {
        let invalid = |reason: String| OpenError::MendAddress { address: address.redacted.clone(), reason };
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if address.wants_tls() {
            let tls = connector(address.root_certificates.as_deref())
                .map_err(|why| invalid(format!("can't be used: {why}")))?;
            Manager::from_config(address.config.clone(), tls, config)
        } else {
            Manager::from_config(address.config.clone(), NoTls, config)
        };
        let pool = Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_TIMEOUT))
            .create_timeout(Some(RESPONSE_TIMEOUT))
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Sessions { pool, schema: format!("\"{}\".", address.schema).into() })
    }

    /// Takes a connection from the pool, or makes one.
    pub(super) async fn session(&self) -> Result<Session, SessionError> {
        match self.pool.get().await {
            Ok(client) => Ok(Session { client, schema: self.schema.clone(), prepared: None }),
            Err(PoolError::Backend(error)) => Err(SessionError::Server(error)),
            Err(PoolError::Timeout(TimeoutType::Create)) => Err(SessionError::timed_out()),
            Err(PoolError::Timeout(_)) => Err(SessionError::Unreachable(format!(
                "none of its {} connections was free within {POOL_TIMEOUT:?}: the server is slow, or the pool is too small",
                self.pool.status().max_size
            ))),
            Err(error) => Err(SessionError::Unreachable(error.to_string())),
        }
    }
}

/// A connection that was taken from the pool. It goes back when it is dropped.
pub(super) struct Session {
    client: Object,
    schema: Arc<str>,
    /// Only the writer's session has these.
    pub(super) prepared: Option<PreparedStatements>,
}

impl Session {
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Returns a statement's text with the schema in place of each `SCHEMA`.
    fn text(&self, statement: &str) -> String {
        statement.replace(SCHEMA, &self.schema)
    }

    /// Runs a statement, prepared if its session has it prepared, and returns its rows.
    pub(super) async fn query(&self, statement: &str, args: &[Arg<'_>]) -> Result<Vec<Row>, SessionError> {
        if let Some(known) = self.prepared.as_ref().and_then(|prepared| prepared.find(statement, args)) {
            let values: Vec<&(dyn ToSql + Sync)> = args.iter().map(|(value, _)| *value).collect();
            return Ok(self.client.query(known, &values).await?);
        }
        self.query_unprepared(statement, args).await
    }

    /// Runs a statement outside a transaction, without a prepared statement: a pooler may use any session for it.
    pub(super) async fn query_unprepared(&self, statement: &str, args: &[Arg<'_>]) -> Result<Vec<Row>, SessionError> {
        Ok(self.client.query_typed(&self.text(statement), args).await?)
    }

    /// Runs a statement if `wanted`; otherwise returns no rows.
    pub(super) async fn query_if(
        &self,
        wanted: bool,
        statement: &str,
        args: &[Arg<'_>],
    ) -> Result<Vec<Row>, SessionError> {
        if wanted { self.query(statement, args).await } else { Ok(Vec::new()) }
    }

    /// Runs a query that touches few rows of a large table, in its own transaction, without JIT and parallel workers. The server
    /// expects so many rows in tables that it has not analyzed yet that it would first compile the statement, or start
    /// processes for it: a hundred times the cost of the result. A host that stops in the middle does not block others by its
    /// row locks for longer than two seconds.
    pub(super) async fn query_selective(&self, statement: &str, args: &[Arg<'_>]) -> Result<Vec<Row>, SessionError> {
        let (_, found, _) = futures_util::try_join!(
            self.execute(
                "BEGIN; SELECT set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true),
                 set_config('idle_in_transaction_session_timeout', '2s', true)"
            ),
            self.query(statement, args),
            self.execute("COMMIT"),
        )?;
        Ok(found)
    }

    /// Runs a query that always returns a row, and returns the first one.
    pub(super) async fn query_one(&self, statement: &str, args: &[Arg<'_>]) -> Result<Row, SessionError> {
        let row = self.query(statement, args).await?.into_iter().next();
        row.ok_or_else(|| SessionError::Damaged("a query that always returns a row returned none".to_owned()))
    }

    /// Prepares the statements that were sent unprepared. Must be called between transactions.
    pub(super) async fn prepare_pending(&mut self) -> Result<(), SessionError> {
        let Some(prepared) = &self.prepared else { return Ok(()) };
        let pending = prepared.take_pending();
        if pending.is_empty() {
            return Ok(());
        }
        if prepared.is_empty() {
            self.execute(&format!("BEGIN; SELECT set_config('wharf.mark', '{}', false)", prepared.mark())).await?;
        } else {
            // Never a second mark: a session with the mark has all prepared statements.
            self.execute("BEGIN").await?;
            let mark = self.client.query_typed_one(&format!("SELECT {SESSION_MARK}"), &[]).await?;
            if !prepared.is_same_session(computed(&mark, 0)?) {
                return Err(SessionError::Unreachable("a pooler replaced its session".to_owned()));
            }
        }
        let mut new = Vec::with_capacity(pending.len());
        for (text, types) in pending {
            let statement = self.client.prepare_typed(&self.text(&text), &types).await?;
            new.push((text, statement));
        }
        self.execute("COMMIT").await?;
        if let Some(prepared) = &mut self.prepared {
            prepared.add(new);
        }
        Ok(())
    }

    /// Runs statements without arguments, one after the other.
    pub(super) async fn execute(&self, statements: &str) -> Result<(), SessionError> {
        Ok(self.client.batch_execute(&self.text(statements)).await?)
    }

    /// Rolls the transaction back. A connection whose state is unknown does not go back to the pool.
    pub(super) async fn roll_back(self) {
        if self.client.is_closed() || self.execute("ROLLBACK").await.is_err() {
            self.discard();
        }
    }

    /// Closes the connection instead of returning it to the pool.
    pub(super) fn discard(self) {
        drop(Object::take(self.client));
    }
}
