//! Parses `postgres://` addresses: the server, the user, the connection options, and the schema.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::address_text::{UrlParts, without_password};
use crate::store::OpenError;

/// The time limit for making a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time after which a server that vanished silently is noticed.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// The default number of connections of one host for reading. Up to five more write, renew and listen.
const POOL: usize = 8;
/// The prefix of the channel on which the hosts of a schema notify each other.
const CHANNEL_PREFIX: &str = "wharf_";
/// The longest name of a schema, in bytes. PostgreSQL cuts off identifiers after 63 bytes, the channel's too.
const SCHEMA_BYTES_MAX: usize = 63 - CHANNEL_PREFIX.len();
const EXPECTED: &str = "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE";

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

impl Address {
    /// Parses an address; names of options that are not Wharf's are passed on to the driver.
    pub(super) fn parse(address: &str) -> Result<Address, OpenError> {
        let redacted = without_password(address);
        let invalid = |reason: String| OpenError::MendAddress { address: redacted.clone(), reason };
        let Some(parts) = UrlParts::split(address) else {
            return Err(invalid(format!(
                "is not a valid address: {EXPECTED}, with `@` in a password as %40, `:` as %3A and `%` as %25"
            )));
        };
        let (mut schema, mut pool, mut roots, mut listen, mut tls) = ("wharf".to_owned(), POOL, None, true, None);
        let mut driver_options = Vec::new();
        for (name, value) in parts.parameters.iter().copied() {
            match name {
                "schema" if is_schema(value) => schema = value.to_owned(),
                "schema" => {
                    return Err(invalid(format!(
                        "has an invalid `schema`: expected 1 to {SCHEMA_BYTES_MAX} characters from a-z, 0-9 and _, not starting \
                         with a digit or with pg_"
                    )));
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
                _ => driver_options.push((name, value)),
            }
        }
        let rest = parts.with_parameters(&driver_options);
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            invalid(format!("is not a valid address ({reason}): {EXPECTED}"))
        })?;
        if config.get_hosts().is_empty() {
            return Err(invalid(format!("names no server: {EXPECTED}")));
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

    /// Returns the name of the channel on which the hosts of this schema notify each other.
    pub(super) fn channel(&self) -> String {
        format!("{CHANNEL_PREFIX}{}", self.schema)
    }

    /// Returns true if connections are encrypted.
    pub(super) fn wants_tls(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
    }
}

/// Returns true for a valid name of a schema. It is quoted in statements, so that it may be a word of SQL such as `user`; names with
/// `pg_` are the server's own.
fn is_schema(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|c| c.is_ascii_lowercase() || c == b'_')
        && bytes.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        && name.len() <= SCHEMA_BYTES_MAX
        && !name.starts_with("pg_")
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
    fn the_driver_reads_the_password_that_is_not_shown() {
        for (written, password) in [
            ("secret", "secret"),
            ("sec/ret", "sec/ret"),
            ("sec?ret", "sec?ret"),
            ("se?schema=x&c/ret", "se?schema=x&c/ret"),
            ("s:e:c", "s:e:c"),
            ("s%40c%2Fr%25t", "s@c/r%t"),
        ] {
            let address = Address::parse(&format!("postgres://me:{written}@db/jobs?schema=own")).unwrap();
            assert_eq!(address.config.get_password(), Some(password.as_bytes()));
            assert_eq!((address.config.get_dbname(), address.schema.as_str()), (Some("jobs"), "own"));
            assert_eq!(address.redacted, "postgres://me:***@db/jobs?schema=own");
        }
        let address = Address::parse("postgres://me@db/jobs?password=secret").unwrap();
        assert_eq!(address.config.get_password(), Some(&b"secret"[..]));
    }

    #[test]
    fn no_error_quotes_a_password() {
        for address in [
            "postgres://me:secret@db/jobs?sslmode=maybe",
            "postgres://me:secret@db/jobs?port=x",
            "postgres://me:x@secret@db/jobs",
            "postgres://me:x@secret?secret=secret@db/jobs",
            "postgres://me:secret",
            "postgres://me:secret@db/jobs?secret",
            "postgres:me:secret@db",
        ] {
            let error = Address::parse(address).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("expected") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_schema_may_be_a_word_of_sql_and_its_channel_has_a_valid_name() {
        let schema = |name: &str| Address::parse(&format!("postgres://db/jobs?schema={name}"));
        let longest = "x".repeat(SCHEMA_BYTES_MAX);
        for name in ["user", "order", "_", "a1", &longest] {
            let channel = schema(name).unwrap().channel();
            assert!(channel.len() <= 63 && channel.ends_with(name), "{channel}");
        }
        for name in ["", "1a", "A", "a-b", "pg_jobs", "a\"b", &format!("{longest}x")] {
            let error = schema(name).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("`schema`: expected 1 to 57 characters"), "{error}");
        }
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
