//! The schema: its tables are made, or migrated to this version, by the first host that needs it.

use tokio_postgres::types::Type;

use super::address::Address;
use super::session::{Session, SessionError, Sessions, computed, value};
use crate::store::OpenError;

mod contents;
#[cfg(test)]
mod tests;

use contents::Contents;

/// The migrations, in order. The version of a schema is the number of those that made it.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/postgres/0001_schema.sql")];

/// The oldest host that can still work with these tables, by the number of migrations that it knows.
const OLDEST_VERSION: i64 = 1;

/// An SQL expression for the version of the oldest host that may use the tables.
pub(super) const OLDEST_HOST: &str = "(SELECT oldest FROM $schema.version)";

/// Returns true if this host may use tables that allow hosts from version `oldest` on.
pub(super) fn may_use(oldest: i64) -> bool {
    oldest <= MIGRATIONS.len() as i64
}

/// The oldest server that is known to work, as it numbers itself.
const SERVER_VERSION_MIN: i32 = 130_000;

/// Makes or migrates the tables of the address's schema.
///
/// # Errors
/// If the server can't be reached or is too old, a newer Wharf made the tables, or the schema holds something else.
pub(super) async fn prepare(sessions: &Sessions, address: &Address) -> Result<(), OpenError> {
    let failed = |error: SessionError| open_error(&error, address);
    let session = sessions.session().await.map_err(failed)?;
    match migrate(&session, &address.schema, MIGRATIONS).await {
        Ok((found, oldest)) if !may_use(oldest) => {
            session.roll_back().await;
            Err(newer(address, found))
        }
        Ok(_) => Ok(()),
        Err(error) => {
            let error = failed(error);
            session.roll_back().await;
            Err(error)
        }
    }
}

/// Returns true if the address's schema has tables of this version; false if it is empty. Nothing is made or migrated.
///
/// # Errors
/// If another version of Wharf made the tables, or the schema holds something else.
pub(super) async fn has_tables(session: &Session, address: &Address) -> Result<bool, OpenError> {
    let known = MIGRATIONS.len() as i64;
    match version(session, &address.schema).await.map_err(|error| open_error(&error, address))? {
        None => Ok(false),
        Some((found, oldest)) if !may_use(oldest) => Err(newer(address, found)),
        Some((found, _)) if found < known => {
            let reason = format!(
                "its tables have version {found} and this Wharf reads version {known}; restore all of the backup, or start a host, which migrates \
                 them"
            );
            Err(OpenError::MendDatabase { address: address.redacted.clone(), reason })
        }
        Some(_) => Ok(true),
    }
}

fn newer(address: &Address, found: i64) -> OpenError {
    OpenError::TakeNewerHost { file: address.redacted.clone(), found, known: MIGRATIONS.len() as i64 }
}

/// Runs the migrations that the schema lacks. Returns the version that it had, and that of the oldest host that may use it.
/// If several hosts start together, one of them migrates and the others wait for it.
async fn migrate(session: &Session, schema: &str, migrations: &[&str]) -> Result<(i64, i64), SessionError> {
    let known = migrations.len() as i64;
    let text = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')";
    let row = session.query_one(text, &[]).await?;
    let (server, encoding): (i32, String) = (computed(&row, 0)?, computed(&row, 1)?);
    if server < SERVER_VERSION_MIN {
        return Err(SessionError::Damaged(format!("its server is older than PostgreSQL 13 ({server}); upgrade it")));
    }
    // A key with a character that the encoding lacks would fail the request that has it.
    if encoding != "UTF8" {
        return Err(SessionError::Damaged(format!(
            "its encoding is {encoding}, which has no room for every key; make another database with CREATE DATABASE wharf \
             ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0, and name it in the address"
        )));
    }
    if let Some(found) = version(session, schema).await?.filter(|(found, _)| *found >= known) {
        return Ok(found);
    }
    // Users of the tables wait behind this for a moment only; if the tables are too busy the host retries later.
    session.execute("BEGIN; SET LOCAL lock_timeout = '60s'").await?;
    session
        .query("SELECT pg_advisory_xact_lock(hashtextextended('wharf schema ' || $1, 0))", &[(&schema, Type::TEXT)])
        .await?;
    session.execute("SET LOCAL lock_timeout = '1s'").await?;
    let (found, oldest) = version(session, schema).await?.unwrap_or((0, 0));
    if found < known {
        let existing = session.query("SELECT FROM pg_namespace WHERE nspname = $1", &[(&schema, Type::TEXT)]).await?;
        if existing.is_empty() {
            session.execute(&format!("CREATE SCHEMA \"{schema}\"")).await?;
        }
        session
            .execute("CREATE TABLE IF NOT EXISTS $schema.version (version bigint NOT NULL, oldest bigint NOT NULL)")
            .await?;
        for migration in &migrations[found as usize..] {
            session.execute(migration).await?;
        }
        session.execute("DELETE FROM $schema.version").await?;
        let args = [(&known as _, Type::INT8), (&OLDEST_VERSION as _, Type::INT8)];
        session.query("INSERT INTO $schema.version VALUES ($1, $2)", &args).await?;
    }
    session.execute("COMMIT").await?;
    Ok((found, oldest))
}

/// Returns the version of the tables and of the oldest host that may use them; `None` for an empty schema.
///
/// # Errors
/// If the schema holds something else than Wharf's tables. Nothing in it is changed.
async fn version(session: &Session, schema: &str) -> Result<Option<(i64, i64)>, SessionError> {
    match Contents::read(session, schema).await? {
        Contents::Empty => return Ok(None),
        Contents::Refused(reason) => return Err(SessionError::Damaged(reason)),
        Contents::Wharf => {}
    }
    let text = "SELECT coalesce(max(version), 0), coalesce(max(oldest), 0) FROM $schema.version";
    let row = session.query_one(text, &[]).await?;
    Ok(Some((value(&row, "version", 0)?, value(&row, "version", 1)?)))
}

/// Converts to the error of opening the store, which tells transient reasons from others.
pub(super) fn open_error(error: &SessionError, address: &Address) -> OpenError {
    let (redacted, reason) = (address.redacted.clone(), reason(error, address));
    match error {
        SessionError::Server(server) if server.code().is_some() && error.is_transient() => {
            OpenError::AwaitDatabase { address: redacted, reason }
        }
        SessionError::Transient(_) => OpenError::AwaitDatabase { address: redacted, reason },
        _ => OpenError::MendDatabase { address: redacted, reason },
    }
}

/// Returns the reason of an error, with what to do about it.
fn reason(error: &SessionError, address: &Address) -> String {
    use tokio_postgres::error::SqlState as S;
    let code = match error {
        SessionError::Server(error) => error.code().cloned(),
        SessionError::Damaged(text) | SessionError::Transient(text) => return text.clone(),
        _ => None,
    };
    let schema = &address.schema;
    if let Some(why) = error.certificate_problem() {
        return format!(
            "its certificate was refused ({why}); the address must contain the server's name as in the certificate, and an \
             authority that is not public needs ?sslrootcert=FILE"
        );
    }
    match code {
        Some(S::INVALID_PASSWORD | S::INVALID_AUTHORIZATION_SPECIFICATION) => {
            format!("the server rejected the user or the password ({error}); check both in the address")
        }
        Some(S::INVALID_CATALOG_NAME) => format!("{error}; create it, or name another database in the address"),
        Some(S::INSUFFICIENT_PRIVILEGE) => {
            format!(
                "{error}; CREATE SCHEMA \"{schema}\" AUTHORIZATION its user, or name a schema that it owns with ?schema=NAME"
            )
        }
        Some(S::LOCK_NOT_AVAILABLE) => format!("its tables are busy ({error})"),
        Some(_) => error.to_string(),
        None if error.to_string().contains("does not support TLS") => {
            "the server doesn't support TLS; enable it, or add ?sslmode=disable on a trusted network".to_owned()
        }
        None => format!("could not reach the server ({error}); check its host and port, and that it runs"),
    }
}
