//! What a `postgres://` address says: where, who, how, and in which schema.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::store::OpenError;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that is gone without a word is noticed by then.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// Connections of one host for questions, unless the address says otherwise. Up to five more write, renew and listen.
const POOL: usize = 8;

/// The address of a store in PostgreSQL, taken apart.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) schema: String,
    pub(super) pool: usize,
    /// Certificate authorities to be trusted besides the public ones.
    pub(super) root_certificates: Option<PathBuf>,
    /// Whether nudges are listened for; behind a pooler that shares sessions nobody would hear them.
    pub(super) listen: bool,
    /// Without the password: for logs and errors.
    pub(super) shown: String,
}

/// The address as people may see it: `***` in place of a password.
pub fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:***@{host}"),
            None => authority.to_owned(),
        },
        None => authority.to_owned(),
    };
    let Some((path, query)) = tail.split_once('?') else { return format!("{scheme}://{authority}{tail}") };
    let shown = |pair: &str| match pair.split_once('=') {
        Some(("password", _)) => "password=***".to_owned(),
        _ => pair.to_owned(),
    };
    let query: Vec<String> = query.split('&').map(shown).collect();
    format!("{scheme}://{authority}{path}?{}", query.join("&"))
}

impl Address {
    pub(super) fn parse(address: &str) -> Result<Address, OpenError> {
        let shown = without_password(address);
        let mend = |reason: String| OpenError::MendAddress { address: shown.clone(), reason };
        let (base, query) = address.split_once('?').unwrap_or((address, ""));
        let (mut schema, mut pool, mut roots, mut listen, mut tls) = ("wharf".to_owned(), POOL, None, true, None);
        let mut theirs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "schema" if is_schema(value) => schema = value.to_owned(),
                "schema" => {
                    return Err(mend(
                        "has a schema that is no name: a-z, 0-9 and _, not beginning with a digit".to_owned(),
                    ));
                }
                "pool" => match value.parse() {
                    Ok(number @ 2..=1000) => pool = number,
                    _ => return Err(mend("has a pool that is not a number from 2 to 1000".to_owned())),
                },
                "listen" => match value {
                    "yes" => listen = true,
                    "no" => listen = false,
                    _ => return Err(mend("has a listen that is neither yes nor no".to_owned())),
                },
                "sslrootcert" => roots = Some(PathBuf::from(value)),
                "sslmode" => match value {
                    "disable" => tls = Some(SslMode::Disable),
                    "require" | "verify-full" => tls = Some(SslMode::Require),
                    _ => {
                        return Err(mend(
                            "has an sslmode that is neither disable, require nor verify-full (certificates are always checked)"
                                .to_owned(),
                        ));
                    }
                },
                _ => theirs.push(pair),
            }
        }
        let rest = if theirs.is_empty() { base.to_owned() } else { format!("{base}?{}", theirs.join("&")) };
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            mend(format!("cannot be understood ({reason}): postgres://USER:PASSWORD@HOST:PORT/DATABASE is expected"))
        })?;
        if config.get_hosts().is_empty() {
            return Err(mend("names no server: postgres://USER:PASSWORD@HOST:PORT/DATABASE is expected".to_owned()));
        }
        config
            .ssl_mode(tls.unwrap_or(if is_near(&config) { SslMode::Disable } else { SslMode::Require }))
            .application_name("wharf")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX)
            .keepalives_idle(UNACKNOWLEDGED_MAX)
            .keepalives_interval(UNACKNOWLEDGED_MAX / 3);
        Ok(Address { config, schema, pool, root_certificates: roots, listen, shown })
    }

    pub(super) fn wants_tls(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
    }
}

fn is_schema(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next().is_some_and(|c| c.is_ascii_lowercase() || c == b'_')
        && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        && name.len() <= 63
}

/// Whether what is said never leaves this machine.
fn is_near(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sees_a_password() {
        for (address, shown) in [
            ("postgres://me:secret@db/jobs", "postgres://me:***@db/jobs"),
            ("postgres://me:s@cret@db/jobs?schema=a", "postgres://me:***@db/jobs?schema=a"),
            ("postgres://me@db/jobs?password=secret&pool=3", "postgres://me@db/jobs?password=***&pool=3"),
            ("postgres://db", "postgres://db"),
            ("sqlite:wharf.db", "sqlite:wharf.db"),
        ] {
            assert_eq!(without_password(address), shown);
        }
        let error = Address::parse("postgres://me:secret@db/jobs?sslmode=maybe").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("sslmode") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted() {
        let tls = |address: &str| Address::parse(address).map(|a| a.wants_tls()).unwrap();
        assert!(tls("postgres://me@db.example.com/jobs") && tls("postgres://me@localhost/jobs?sslmode=require"));
        assert!(!tls("postgres://me@127.0.0.1/jobs") && !tls("postgres://me@%2Frun%2Fpostgresql/jobs"));
        assert!(!tls("postgres://me@db.example.com/jobs?sslmode=disable"));
    }

    #[test]
    fn bad_addresses_say_what_is_wrong() {
        for (address, says) in [
            ("postgres://db/jobs?schema=A-b", "schema"),
            ("postgres://db/jobs?pool=1", "pool"),
            ("postgres://db/jobs?listen=perhaps", "listen"),
            ("postgres://db:port/jobs", "expected"),
            ("postgres:///jobs", "names no server"),
        ] {
            let error = Address::parse(address).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
