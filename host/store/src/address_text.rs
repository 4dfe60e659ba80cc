//! Addresses of stores and hosts as texts: their parts, and what of them may be shown.

/// Stands for a secret.
const MASK: &str = "***";

/// Parameters of addresses whose values are no secrets. Those of others are not shown: `password` may be written in many ways.
const SHOWN_PARAMETERS: [&str; 18] = [
    "application_name",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "listen",
    "options",
    "pool",
    "port",
    "schema",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "user",
];

/// The parts of an address such as `postgres://USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE`, as they are written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UrlParts<'a> {
    pub(crate) scheme: &'a str,
    /// User and password, without the `@` behind them.
    credentials: Option<&'a str>,
    /// Hosts and ports.
    authority: &'a str,
    /// The path with its slash; may be empty.
    path: &'a str,
    pub(crate) parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> UrlParts<'a> {
    /// Splits an address as the driver does: everything up to the `@` is the user and the password, even `/` and `?`.
    /// Returns `None` if it can't be split without doubt, as with a second `@`, which is a part of the password or is not.
    pub(crate) fn split(address: &'a str) -> Option<UrlParts<'a>> {
        let (scheme, rest) = address.split_once("://")?;
        let (credentials, rest) = match rest.split_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = base.split_at(base.find('/').unwrap_or(base.len()));
        let parameters = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('='));
        let parameters = parameters.collect::<Option<Vec<_>>>()?;
        let is_whole = is_scheme(scheme) && !rest.contains('@') && authority.split(',').all(is_host_and_port);
        is_whole.then_some(UrlParts { scheme, credentials, authority, path, parameters })
    }

    /// Returns the address with these parameters in place of its own.
    pub(crate) fn with_parameters(&self, parameters: &[(&str, &str)]) -> String {
        self.written(self.credentials, parameters)
    }

    fn written(&self, credentials: Option<&str>, parameters: &[(&str, &str)]) -> String {
        let credentials = credentials.map(|credentials| format!("{credentials}@")).unwrap_or_default();
        let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
        format!("{}://{credentials}{}{}{query}", self.scheme, self.authority, self.path)
    }

    fn shown(&self) -> String {
        let user = self.credentials.and_then(|credentials| credentials.split_once(':')).map(|(user, _)| user);
        let masked = user.map(|user| format!("{user}:{MASK}"));
        let shown: Vec<(&str, &str)> = self
            .parameters
            .iter()
            .map(|(name, value)| (*name, if SHOWN_PARAMETERS.contains(name) { *value } else { MASK }))
            .collect();
        self.written(masked.as_deref().or(self.credentials), &shown)
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
}

/// Returns true for a host with a port or without. What is behind the colon and is no port may be a password.
fn is_host_and_port(text: &str) -> bool {
    let port = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((_, "")) => None,
            Some((_, port)) => Some(port.strip_prefix(':').unwrap_or("?")),
            None => Some("?"),
        },
        None => text.split_once(':').map(|(_, port)| port),
    };
    port.is_none_or(|port| port.bytes().all(|c| c.is_ascii_digit()))
}

/// Returns true for a list of parameters, as in `host=db password=secret`, which other programs take as an address.
pub(crate) fn is_parameter_list(address: &str) -> bool {
    let name = address.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_ ".contains(&c)))
}

/// Parameters of an address that only Wharf reads.
const OWN_PARAMETERS: [&str; 3] = ["listen", "pool", "schema"];

/// Returns the address of a database for PostgreSQL's own programs: without its password, which they ask for or read elsewhere, and
/// without what only Wharf reads. Returns `None` if the address can't be split into its parts.
pub(crate) fn for_database_programs(address: &str) -> Option<String> {
    let parts = UrlParts::split(address)?;
    let user = parts.credentials.map(|credentials| credentials.split_once(':').map_or(credentials, |(user, _)| user));
    let is_kept = |name: &str| SHOWN_PARAMETERS.contains(&name) && !OWN_PARAMETERS.contains(&name);
    let kept: Vec<(&str, &str)> = parts.parameters.iter().copied().filter(|(name, _)| is_kept(name)).collect();
    Some(parts.written(user, &kept))
}

/// Returns an address of a store or a host with `***` in place of its password, for logs and errors. Of an address that can't be
/// split into its parts nothing but the scheme is shown.
pub fn without_password(address: &str) -> String {
    if let Some(parts) = UrlParts::split(address) {
        return parts.shown();
    }
    let scheme = address.split_once(':').map(|(scheme, _)| scheme).filter(|scheme| is_scheme(scheme));
    let is_url = address.contains("://");
    let lower = address.to_ascii_lowercase();
    match scheme {
        Some(scheme) if is_url => format!("{scheme}://{MASK}"),
        Some(scheme) if lower.starts_with("postgres") || address.contains('@') && scheme != "sqlite" => {
            format!("{scheme}:{MASK}")
        }
        _ if is_parameter_list(address) || is_url => MASK.to_owned(),
        _ if lower.contains('=') && (lower.contains("password") || lower.contains("pwd")) => MASK.to_owned(),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (address, shown) in [
            ("postgres://me:secret@db/jobs", "postgres://me:***@db/jobs"),
            ("postgres://me:sec/ret@db/jobs", "postgres://me:***@db/jobs"),
            ("postgres://me:sec?ret@db/jobs?pool=3", "postgres://me:***@db/jobs?pool=3"),
            ("postgres://me:se:c#r&e=t@db:5432,db2/jobs?schema=a", "postgres://me:***@db:5432,db2/jobs?schema=a"),
            ("postgres://me:sec%2Fr%40et@[::1]:5432/jobs", "postgres://me:***@[::1]:5432/jobs"),
            ("postgres://me:@db", "postgres://me:***@db"),
            ("postgres://me@db/jobs?password=secret&pool=3", "postgres://me@db/jobs?password=***&pool=3"),
            ("postgres://me@db/jobs?%70assword=secret", "postgres://me@db/jobs?%70assword=***"),
            ("postgres://me@db/jobs?PASSWORD=secret", "postgres://me@db/jobs?PASSWORD=***"),
            // Where the password ends is not certain, or it is not written as one.
            ("postgres://me:s@cret@db/jobs?schema=a", "postgres://***"),
            ("postgres://me:s@cr/et@db/jobs", "postgres://***"),
            ("postgres://me:s@cr?e=t@db/jobs", "postgres://***"),
            ("postgres://me:secret", "postgres://***"),
            ("postgres://me:se?cret", "postgres://***"),
            ("postgres://db/jobs?secret", "postgres://***"),
            ("postgres://[secret/jobs", "postgres://***"),
            ("postgres:me:secret@db/jobs", "postgres:***"),
            ("postgres:/me:secret/jobs", "postgres:***"),
            ("mysql://me:secret@db/jobs", "mysql://me:***@db/jobs"),
            ("mysql:me:secret@db", "mysql:***"),
            ("host=db password=secret", "***"),
            ("host = db password = 'se:c/r@et://'", "***"),
            ("sslkey=x password=secret", "***"),
            ("Server=db;Pwd=secret", "***"),
            ("http://me:secret@host:7070", "http://me:***@host:7070"),
        ] {
            assert_eq!(without_password(address), shown, "{address}");
        }
        for plain in [
            "postgres://db",
            "postgresql://me@db:5432/jobs?schema=a&sslmode=require",
            "postgres://me@%2Frun%2Fpostgresql/jobs",
            "sqlite:wharf.db",
            "sqlite:/var/a@b/wharf.db",
            "./a:b",
            "memory:",
            "http://127.0.0.1:7070",
        ] {
            assert_eq!(without_password(plain), plain);
        }
    }
}
