//! A pooler before a PostgreSQL that hands out its connections for one transaction each: PgBouncer, gone with the test process.
//!
//! It is installed from Debian's packages where it is missing and that is allowed; what is missing fails the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::server::Postgres;

/// Runs as a user who is not root until its input ends.
const KEEPER: &str = r#"
set -eu
dir=$1 server=$2
user=postgres; id "$user" >/dev/null 2>&1 || user=nobody
as() { if [ "$(id -u)" = 0 ]; then exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@"; else exec "$@"; fi; }
command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] ||
    { apt() { DEBIAN_FRONTEND=noninteractive flock /var/lib/dpkg apt-get -o DPkg::Lock::Timeout=600 "$@"; }
      install() { apt install --yes --no-install-recommends pgbouncer; }
      install || { apt update && install; }; } >&2
echo '"wharf" ""' >"$dir/users"
cat >"$dir/pgbouncer.ini" <<END
[databases]
* = host=$server
[pgbouncer]
listen_port = 5432
unix_socket_dir = $dir
auth_type = trust
auth_file = $dir/users
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
logfile = $dir/pgbouncer.log
END
if [ "$(id -u)" = 0 ]; then chown -R "$user" "$dir"; fi
as pgbouncer --quiet "$dir/pgbouncer.ini" >&2 </dev/null &
trap 'kill $!; rm -rf "$dir"' EXIT
trap '' INT TERM HUP
for turn in $(seq 600); do [ -S "$dir/.s.PGSQL.5432" ] && break; sleep 0.1; done
[ -S "$dir/.s.PGSQL.5432" ] && echo ready
read -r word || true
"#;

#[derive(Debug)]
pub(crate) struct Pooler {
    address: String,
    keeper: Child,
}

impl Pooler {
    pub(crate) fn before(server: &Postgres) -> Pooler {
        let dir = tempfile::Builder::new().prefix("wharf-pooler-").tempdir().expect("a temporary folder").keep();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .args([dir.as_path(), server.dir()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().expect("piped")).read_line(&mut said).expect("the keeper can be heard");
        if said.trim() != "ready" {
            let why = std::io::read_to_string(keeper.stderr.take().expect("piped")).unwrap_or_default();
            panic!("PgBouncer did not start: {why}\ninstall it (Debian: apt-get install pgbouncer)");
        }
        Pooler { address: server.address().replacen(&socket(server.dir()), &socket(&dir), 1), keeper }
    }

    /// The server's address through the pooler, with a schema that nobody else uses.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        _ = self.keeper.wait();
    }
}

/// A folder of sockets as it stands in an address.
fn socket(dir: &Path) -> String {
    dir.display().to_string().replace('/', "%2F")
}
