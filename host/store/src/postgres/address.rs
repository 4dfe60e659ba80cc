//! Parses `postgres://` addresses: the server, the user, the connection options, and the schema.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::store::OpenError;

/// The time limit for making a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time after which a server that vanished silently is noticed.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// The default number of connections of one host for reading. Up to five more write, renew and listen.
const POOL: usize = 8;

/// The parsed address of a store in PostgreSQL.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) schema: String,
    /// The number of connections for reading.
    pub(super) pool: usize,
    /// A PEM file of certificate authorities to trust besides the public ones.
    pub(super) root_certificates: Option<PathBuf>,
    /// True if nudges of other hosts are received. Behind a pooler that shares sessions none would arrive.
    pub(super) listen: bool,
    /// The address without its password, for logs and errors.
    pub(super) redacted: String,
}

/// Returns an address with `***` in place of its password, for logs and errors.
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
    /// Parses an address; names of options that are not Wharf's are passed on to the driver.
    pub(super) fn parse(address: &str) -> Result<Address, OpenError> {
        let redacted = without_password(address);
        let invalid = |reason: String| OpenError::MendAddress { address: redacted.clone(), reason };
        let (base, query) = address.split_once('?').unwrap_or((address, ""));
        let (mut schema, mut pool, mut roots, mut listen, mut tls) = ("wharf".to_owned(), POOL, None, true, None);
        let mut driver_options = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "schema" if is_schema(value) => schema = value.to_owned(),
                "schema" => {
                    return Err(invalid(
                        "has an invalid `schema`: expected up to 63 characters from a-z, 0-9 and _, not starting with a digit"
                            .to_owned(),
                    ));
                }
                "pool" => match value.parse() {
                    Ok(number @ 2..=1000) => pool = number,
                    _ => return Err(invalid("has an invalid `pool`: expected a number from 2 to 1000".to_owned())),
                },
                "listen" => match value {
                    "yes" => listen = true,
                    "no" => listen = false,
                    _ => return Err(invalid("has an invalid `listen`: expected yes or no".to_owned())),
                },
                "sslrootcert" => roots = Some(PathBuf::from(value)),
                "sslmode" => match value {
                    "disable" => tls = Some(SslMode::Disable),
                    "require" | "verify-full" => tls = Some(SslMode::Require),
                    _ => {
                        return Err(invalid(
                            "has an invalid `sslmode`: expected disable, require or verify-full (certificates are always verified)"
                                .to_owned(),
                        ));
                    }
                },
                _ => driver_options.push(pair),
            }
        }
        let rest =
            if driver_options.is_empty() { base.to_owned() } else { format!("{base}?{}", driver_options.join("&")) };
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            invalid(format!("is not a valid address ({reason}): expected postgres://USER:PASSWORD@HOST:PORT/DATABASE"))
        })?;
        if config.get_hosts().is_empty() {
            return Err(invalid("names no server: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned()));
        }
        config
            .ssl_mode(tls.unwrap_or(if is_local(&config) { SslMode::Disable } else { SslMode::Require }))
            .application_name("wharf")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX)
            .keepalives_idle(UNACKNOWLEDGED_MAX)
            .keepalives_interval(UNACKNOWLEDGED_MAX / 3);
        Ok(Address { config, schema, pool, root_certificates: roots, listen, redacted })
    }

    /// Returns true if connections are encrypted.
    pub(super) fn wants_tls(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
    }
}

/// Returns true for a valid name of a schema.
fn is_schema(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|c| c.is_ascii_lowercase() || c == b'_')
        && bytes.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        && name.len() <= 63
}

/// Returns true if all its servers are on this machine, so traffic never leaves it.
fn is_local(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
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
    fn traffic_that_leaves_the_machine_is_encrypted() {
        let tls = |address: &str| Address::parse(address).map(|a| a.wants_tls()).unwrap();
        assert!(tls("postgres://me@db.example.com/jobs") && tls("postgres://me@localhost/jobs?sslmode=require"));
        assert!(!tls("postgres://me@127.0.0.1/jobs") && !tls("postgres://me@%2Frun%2Fpostgresql/jobs"));
        assert!(!tls("postgres://me@db.example.com/jobs?sslmode=disable"));
    }

    #[test]
    fn errors_name_the_invalid_part_of_an_address() {
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
