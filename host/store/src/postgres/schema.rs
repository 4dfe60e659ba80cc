//! The tables: made, and brought to this version, by whichever host comes first.

use tokio_postgres::types::Type;

use super::address::Address;
use super::session::{Session, SessionError, Sessions};
use crate::store::OpenError;

mod contents;
#[cfg(test)]
mod tests;

use contents::Contents;

/// One script per version, in order.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_jobs.sql"),
    include_str!("../../migrations/postgres/0002_kv.sql"),
    include_str!("../../migrations/postgres/0003_sources.sql"),
    include_str!("../../migrations/postgres/0004_marks.sql"),
    include_str!("../../migrations/postgres/0005_tasks.sql"),
];

/// The oldest host that can still work with these tables, by the number of scripts that it knows. What plugins keep (the
/// second script) stands beside all that the first host knows, and it loads no plugin that asks for it. Of numbers for job ids
/// (the third) the first host draws one without asking who holds it: the next after the last that was given out.
/// What hosts write down of themselves (the fourth) an older one neither writes nor reads: of its jobs it counts each end of a
/// host. What hosts tell of tasks (the fifth) is a column that it leaves empty.
const OLDEST: i64 = 1;

/// The version of the oldest host that may use the tables.
pub(super) const OLDEST_HOST: &str = "(SELECT oldest FROM wharf.version)";

/// Whether this host may use tables that allow hosts from `oldest` on.
pub(super) fn may_use(oldest: i64) -> bool {
    oldest <= MIGRATIONS.len() as i64
}

/// The oldest server that is known to work, as it numbers itself.
const SERVER_MIN: i32 = 130_000;

pub(super) async fn prepare(sessions: &Sessions, address: &Address) -> Result<(), OpenError> {
    let mend = |fault: SessionError| unopened(&fault, address);
    let session = sessions.session().await.map_err(mend)?;
    let version =
        |found| OpenError::TakeNewerHost { file: address.shown.clone(), found, known: MIGRATIONS.len() as i64 };
    match migrate(&session, &address.schema, MIGRATIONS).await {
        Ok((found, oldest)) if !may_use(oldest) => {
            session.roll_back().await;
            Err(version(found))
        }
        Ok(_) => Ok(()),
        Err(fault) => {
            let error = mend(fault);
            session.roll_back().await;
            Err(error)
        }
    }
}

/// Returns the version that was found, and the oldest host that may use it. Of hosts that start together, one does the work and the others wait for it.
async fn migrate(session: &Session, schema: &str, scripts: &[&str]) -> Result<(i64, i64), SessionError> {
    let known = scripts.len() as i64;
    let server = session.ask_one("SELECT current_setting('server_version_num')::int", &[]).await?;
    if server.get::<_, i32>(0) < SERVER_MIN {
        return Err(SessionError::Damaged(format!(
            "its server is older than PostgreSQL 13 ({})",
            server.get::<_, i32>(0)
        )));
    }
    if let Some(found) = version(session, schema).await?.filter(|(found, _)| *found >= known) {
        return Ok(found);
    }
    // Whoever uses the tables waits behind this for a moment only; where they are too busy a host tries again later.
    session.run("BEGIN; SET LOCAL lock_timeout = '60s'").await?;
    session
        .ask("SELECT pg_advisory_xact_lock(hashtextextended('wharf schema ' || $1, 0))", &[(&schema, Type::TEXT)])
        .await?;
    session.run("SET LOCAL lock_timeout = '1s'").await?;
    let (found, oldest) = version(session, schema).await?.unwrap_or((0, 0));
    if found < known {
        let there = session.ask("SELECT FROM pg_namespace WHERE nspname = $1", &[(&schema, Type::TEXT)]).await?;
        if there.is_empty() {
            session.run(&format!("CREATE SCHEMA {schema}")).await?;
        }
        session
            .run("CREATE TABLE IF NOT EXISTS wharf.version (version bigint NOT NULL, oldest bigint NOT NULL)")
            .await?;
        for script in &scripts[found as usize..] {
            session.run(script).await?;
        }
        session.run("DELETE FROM wharf.version").await?;
        let both = [(&known as _, Type::INT8), (&OLDEST as _, Type::INT8)];
        session.ask("INSERT INTO wharf.version VALUES ($1, $2)", &both).await?;
    }
    session.run("COMMIT").await?;
    Ok((found, oldest))
}

/// `None` where there are no tables. What is not Wharf's is left as it is.
async fn version(session: &Session, schema: &str) -> Result<Option<(i64, i64)>, SessionError> {
    match Contents::of(session, schema).await? {
        Contents::Nothing => return Ok(None),
        Contents::Refused(why) => return Err(SessionError::Damaged(why)),
        Contents::Wharf => {}
    }
    let text = "SELECT coalesce(max(version), 0), coalesce(max(oldest), 0) FROM wharf.version";
    let row = session.ask_one(text, &[]).await?;
    Ok(Some((row.get(0), row.get(1))))
}

/// Why the store cannot be opened, and whether that passes by itself.
pub(super) fn unopened(fault: &SessionError, address: &Address) -> OpenError {
    let (shown, reason) = (address.shown.clone(), advice(fault, address));
    match fault {
        SessionError::Server(error) if error.code().is_some() && fault.is_passing() => {
            OpenError::AwaitDatabase { address: shown, reason }
        }
        SessionError::Passing(_) => OpenError::AwaitDatabase { address: shown, reason },
        _ => OpenError::MendDatabase { address: shown, reason },
    }
}

fn advice(fault: &SessionError, address: &Address) -> String {
    use tokio_postgres::error::SqlState as S;
    let code = match fault {
        SessionError::Server(error) => error.code().cloned(),
        SessionError::Damaged(said) | SessionError::Passing(said) => return said.clone(),
        _ => None,
    };
    let schema = &address.schema;
    if let Some(why) = fault.certificate() {
        return format!(
            "its certificate is refused ({why}); the address must name the server as the certificate does, and an authority \
             that is not a public one is trusted with ?sslrootcert=FILE"
        );
    }
    match code {
        Some(S::INVALID_PASSWORD | S::INVALID_AUTHORIZATION_SPECIFICATION) => {
            format!("the server does not let this user in ({fault}); check the user and the password of the address")
        }
        Some(S::INVALID_CATALOG_NAME) => format!("{fault}; make it, or name another in the address"),
        Some(S::INSUFFICIENT_PRIVILEGE) => {
            format!(
                "{fault}; CREATE SCHEMA {schema} AUTHORIZATION its user, or name a schema that it owns with ?schema="
            )
        }
        Some(S::LOCK_NOT_AVAILABLE) => format!("its tables are busy ({fault})"),
        Some(_) => fault.to_string(),
        None if fault.to_string().contains("does not support TLS") => {
            "the server speaks unencrypted only; let it encrypt, or add ?sslmode=disable where nobody listens"
                .to_owned()
        }
        None => format!("the server cannot be reached ({fault}); check its host and port, and that it runs"),
    }
}
