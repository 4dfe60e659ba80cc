//! A real PostgreSQL: started once per test process in a temporary folder, gone with it.
//!
//! `WHARF_TEST_POSTGRES` names one that is there already, `WHARF_TEST_POSTGRES_BIN` where the programs of another are. Otherwise the machine's own is used, and where there is none,
//! Debian's package is installed if that is allowed. It is never skipped: what is missing fails the test, and says so.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Of sockets that are files.
pub(crate) const PORT: u16 = 5432;

/// At once, of tests that share a server.
const CONNECTIONS: u32 = 200;

const HELP: &str = "set WHARF_TEST_POSTGRES=postgres://USER:PASSWORD@HOST/DATABASE to use a server that runs already, \
                    or install PostgreSQL 13 or newer (Debian: apt-get install postgresql)";

/// Starts the server as a user who is not root, and stops it when its own input ends: that is when the test process is
/// gone, however it went. What is written to it before is a command: `restart`, `stop`, `start`.
const KEEPER: &str = r#"
set -eu
bin=$1 dir=$2 sync=$3 port=$4 connections=$5
as() { if [ "$(id -u)" = 0 ]; then setpriv --reuid "$user" --regid "$user" --clear-groups "$@"; else "$@"; fi; }
user=postgres; id "$user" >/dev/null 2>&1 || user=nobody
if [ "$(id -u)" = 0 ]; then chown "$user" "$dir"; fi
cd "$dir"
more="-c listen_addresses=''"
if [ "$port" != 5432 ]; then
    # An authority, and a certificate of it for `localhost` and no other name.
    key() { openssl "$@" -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes; }
    key req -x509 -days 2 -subj /CN=authority -keyout authority.key -out authority.pem
    key req -subj /CN=server -keyout server.key -out server.csr
    echo 'subjectAltName=DNS:localhost' >names
    openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names -out server.pem
    if [ "$(id -u)" = 0 ]; then chown "$user" server.key; fi
    more="-c listen_addresses=127.0.0.1 -c port=$port -c ssl=on -c ssl_cert_file=$dir/server.pem -c ssl_key_file=$dir/server.key"
fi >openssl.log 2>&1
as "$bin/initdb" --pgdata="$dir/data" --username=wharf --auth=trust --encoding=UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1
start() {
    as "$bin/pg_ctl" --pgdata="$dir/data" --wait --timeout=60 --log="$dir/server.log" --silent start -o \
        "$more -c unix_socket_directories='$dir' -c fsync=$sync -c max_connections=$connections -c shared_buffers=256MB" </dev/null
}
stop() { as "$bin/pg_ctl" --pgdata="$dir/data" --mode="$1" --silent stop >/dev/null 2>&1 || true; }
trap 'stop immediate; rm -rf "$dir"' EXIT
trap '' INT TERM HUP
start >&2
echo ready
while read -r word; do
    case $word in
        restart) stop fast; start >&2 ;;
        crash) stop immediate; start >&2 ;;
        stop) stop fast ;;
        start) start >&2 ;;
    esac
    echo "$word"
done
"#;

/// A machine that was just made may not know yet which packages there are. One after the other, where tests that run side by
/// side miss something.
const INSTALL: &str = "\
apt() { flock /var/lib/dpkg apt-get -o DPkg::Lock::Timeout=600 \"$@\"; }
install() { apt install --yes --no-install-recommends postgresql; }
install || { apt update && install; }";

/// One server.
#[derive(Debug)]
pub(crate) struct Postgres {
    address: String,
    dir: PathBuf,
    keeper: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Postgres {
    /// Starts a server that is this caller's own. With `durable` it waits for the disk, as in real use.
    pub(crate) fn start(durable: bool) -> Postgres {
        Postgres::start_at(durable, PORT, CONNECTIONS, &[])
    }

    /// The same with few connections to be had.
    pub(crate) fn start_small(connections: u32) -> Postgres {
        Postgres::start_at(false, PORT, connections, &[])
    }

    /// The same with more in its environment, such as a clock of its own.
    pub(crate) fn start_with(environment: &[(&str, PathBuf)]) -> Postgres {
        Postgres::start_at(false, PORT, CONNECTIONS, environment)
    }

    /// The same with a certificate for `localhost`, on a port of this machine; the second is the file of who signed it.
    pub(crate) fn start_encrypted() -> (u16, PathBuf, Postgres) {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let server = Postgres::start_at(false, port, CONNECTIONS, &[]);
        (port, server.dir.join("authority.pem"), server)
    }

    fn start_at(durable: bool, port: u16, connections: u32, environment: &[(&str, PathBuf)]) -> Postgres {
        let bin = programs();
        let dir = tempfile::Builder::new().prefix("wharf-pg-").tempdir().expect("a temporary folder").keep();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&bin)
            .arg(&dir)
            .arg(if durable { "on" } else { "off" })
            .args([port.to_string(), connections.to_string()])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let answers = BufReader::new(keeper.stdout.take().expect("piped"));
        let address = format!("postgres://wharf@{}/postgres", dir.display().to_string().replace('/', "%2F"));
        let mut server = Postgres { address, dir, keeper, answers };
        if server.answer() != "ready" {
            let said = std::io::read_to_string(server.keeper.stderr.take().expect("piped")).unwrap_or_default();
            panic!("PostgreSQL in {} did not start: {said}\n{HELP}", bin.display());
        }
        server
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the keeper can be heard");
        line.trim().to_owned()
    }

    /// Where its sockets are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `restart`, `crash` (and start again), `stop` or `start`.
    pub(crate) fn tell(&mut self, word: &str) {
        let input = self.keeper.stdin.as_mut().expect("piped");
        writeln!(input, "{word}").expect("the keeper listens");
        assert_eq!(self.answer(), word, "the keeper did it");
    }

    /// The address, with a schema that nobody else uses.
    pub(crate) fn address(&self) -> String {
        fresh(&self.address)
    }

    /// The address for a role and a schema that are there.
    pub(crate) fn address_of(&self, role: &str, schema: &str) -> String {
        format!("{}?schema={schema}", self.address.replacen("//wharf@", &format!("//{role}@"), 1))
    }

    /// Runs statements, and returns what they answered, a line for each row.
    pub(crate) fn sql(&self, statements: &str) -> String {
        self.sql_at(PORT, statements)
    }

    /// The same where sockets have another port.
    pub(crate) fn sql_at(&self, port: u16, statements: &str) -> String {
        let output = psql(&self.dir, port, statements).output().expect("psql runs");
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        _ = self.keeper.wait();
    }
}

/// What runs statements at the server whose sockets are in `dir`.
pub(crate) fn psql(dir: &Path, port: u16, statements: &str) -> Command {
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--username=wharf", "--dbname=postgres"])
        .arg("--host")
        .arg(dir)
        .args([&format!("--port={port}"), "--command", statements]);
    psql
}

/// The address of a schema of its own on the server that this process shares.
pub(crate) fn shared_address() -> String {
    static SHARED: OnceLock<Result<String, Box<Postgres>>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| match std::env::var("WHARF_TEST_POSTGRES") {
        Ok(address) if !address.is_empty() => Ok(address),
        _ => Err(Box::new(Postgres::start(false))),
    });
    match shared {
        Ok(address) => fresh(address),
        Err(server) => server.address(),
    }
}

fn fresh(address: &str) -> String {
    static SCHEMAS: AtomicU32 = AtomicU32::new(0);
    let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
    let join = if address.contains('?') { '&' } else { '?' };
    format!("{address}{join}schema=test_{}_{number}", std::process::id())
}

/// Where `initdb` and `pg_ctl` are: the newest of the machine's.
fn programs() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            find().unwrap_or_else(|| {
                println!("installing PostgreSQL from the machine's packages");
                let installed = Command::new("sh")
                    .args(["-c", INSTALL])
                    .env("DEBIAN_FRONTEND", "noninteractive")
                    .stdout(Stdio::null())
                    .status();
                let found = installed.ok().filter(std::process::ExitStatus::success).and_then(|_| find());
                found.unwrap_or_else(|| panic!("there is no PostgreSQL here, and it could not be installed: {HELP}"))
            })
        })
        .clone()
}

fn find() -> Option<PathBuf> {
    if let Some(bin) = std::env::var_os("WHARF_TEST_POSTGRES_BIN") {
        return Some(bin.into());
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    debian.sort_by_key(|bin| bin.parent().and_then(Path::file_name).and_then(|v| v.to_str()?.parse::<u32>().ok()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = debian.into_iter().rev().collect();
    places.extend(std::env::split_paths(&path));
    places.into_iter().find(|bin| bin.join("initdb").is_file() && bin.join("pg_ctl").is_file())
}
