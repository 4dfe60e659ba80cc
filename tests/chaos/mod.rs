//! Faults under load with keys: hosts are killed, the database restarts, connections are cut or cannot be had.

mod load;
mod spans;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Client, Host, Postgres, Setup, Standby, eventually};
use spans::read;

pub(crate) use load::{Addresses, count, under_load, under_load_of};
pub(crate) use spans::{Spans, most_at_once, read as read_spans, unix_ns};

const NODES: usize = 3;
/// `villain/pair`: two of a key at once.
const LIMIT: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// Three hosts on one PostgreSQL.
    Cluster,
    /// One host on a SQLite file.
    File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillOne,
    KillAgain,
    DatabaseRestart,
    BackendsKilled,
    NoConnections,
    CommitsHang,
}

impl Fault {
    pub(crate) const ALL: [Fault; 6] = [
        Fault::KillOne,
        Fault::KillAgain,
        Fault::DatabaseRestart,
        Fault::BackendsKilled,
        Fault::NoConnections,
        Fault::CommitsHang,
    ];
    /// Those of one host on a file.
    pub(crate) const OF_A_FILE: [Fault; 2] = [Fault::KillOne, Fault::KillAgain];

    fn name(self) -> &'static str {
        match self {
            Fault::KillOne => "kill -9 of one host",
            Fault::KillAgain => "kill -9 again and again",
            Fault::DatabaseRestart => "PostgreSQL restarts",
            Fault::BackendsKilled => "connections killed in a stream",
            Fault::NoConnections => "no connections to be had",
            Fault::CommitsHang => "commits hang past leases",
        }
    }
}

/// How much of it.
pub(crate) struct Scale {
    /// Jobs that are acknowledged before the fault.
    pub(crate) before: usize,
    /// Of what is done again and again.
    pub(crate) repeats: usize,
    pub(crate) lease: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Row {
    place: Where,
    fault: Fault,
    acknowledged: usize,
    /// Acknowledged, and not over or without a result at the end.
    pub(crate) lost: usize,
    /// Ran again after they had succeeded.
    pub(crate) twice: usize,
    /// Keys of which more ran at once than may.
    pub(crate) over: usize,
    /// From the fault's end until a new job had its result.
    works: Duration,
    /// From the fault's end until all that was acknowledged before it was over.
    caught_up: Duration,
}

pub(crate) fn print_head(scale: &Scale) {
    println!("leases of {:?}; {} jobs acknowledged before each fault, more during it", scale.lease, scale.before);
    println!(
        "{:<24} {:<32} {:>12} {:>6} {:>12} {:>16} {:>14} {:>12}",
        "store", "fault", "acknowledged", "lost", "two results", "keys over limit", "works again", "caught up"
    );
}

impl Row {
    pub(crate) fn print(&self) {
        let place = match self.place {
            Where::Cluster => "PostgreSQL, three hosts",
            Where::File => "SQLite, one host",
        };
        println!(
            "{place:<24} {:<32} {:>12} {:>6} {:>12} {:>16} {:>12.1} s {:>10.1} s",
            self.fault.name(),
            self.acknowledged,
            self.lost,
            self.twice,
            self.over,
            self.works.as_secs_f64(),
            self.caught_up.as_secs_f64()
        );
    }
}

/// Hosts, their database if they share one, and what their guests wrote down.
struct Scene {
    postgres: Option<Postgres>,
    hosts: Vec<Host>,
    addresses: Addresses,
    logs: tempfile::TempDir,
    kills: Vec<u128>,
    lease: Duration,
}

impl Scene {
    fn new(place: Where, lease: Duration) -> Scene {
        let logs = tempfile::tempdir().expect("a temporary folder");
        let settings = format!(
            "[lease]\nlength = \"{}ms\"\nmargin = \"{}ms\"\n[plugins.villain]\n\
             dirs = [{{ host = \"{}\", guest = \"/log\", writable = true }}]",
            lease.as_millis(),
            lease.as_millis() / 6,
            logs.path().display()
        );
        let setup = || Setup::default().plugin("villain").settings(&settings);
        let (postgres, hosts) = match place {
            Where::File => (None, vec![setup().start()]),
            Where::Cluster => {
                let postgres = Postgres::start(true);
                // A role with nothing but its schema, of which connections can be taken away.
                postgres.sql("CREATE ROLE app LOGIN; CREATE SCHEMA chaos AUTHORIZATION app");
                let address = postgres.address_of("app", "chaos");
                let hosts = (0..NODES).map(|_| setup().database(&address).start()).collect();
                (Some(postgres), hosts)
            }
        };
        let addresses = hosts.iter().map(|host| host.client().address().to_owned()).collect();
        Scene { postgres, hosts, addresses: Arc::new(Mutex::new(addresses)), logs, kills: Vec::new(), lease }
    }

    fn kill(&mut self, host: usize) {
        let address = self.hosts[host].client().address().to_owned();
        self.hosts[host].kill();
        self.kills.push(unix_ns());
        self.addresses.lock().expect("no panic while it is held").retain(|known| *known != address);
    }

    fn start(&mut self, host: usize) {
        self.hosts[host].start();
        let address = self.hosts[host].client().address().to_owned();
        self.addresses.lock().expect("no panic while it is held").push(address);
    }

    fn database(&mut self) -> &mut Postgres {
        self.postgres.as_mut().expect("a fault of a database needs one")
    }

    fn break_it(&mut self, fault: Fault, repeats: usize) {
        const KILL_ALL: &str =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'wharf'";
        match fault {
            Fault::KillOne => {
                self.kill(0);
                // The others go on; a host that is alone has to come back.
                if self.hosts.len() == 1 {
                    self.start(0);
                }
            }
            Fault::KillAgain => {
                for round in 0..repeats {
                    let host = round % self.hosts.len();
                    self.kill(host);
                    self.start(host);
                    let back = &self.hosts[host];
                    eventually("it is ready again", || back.is_ready().then_some(()));
                }
            }
            Fault::DatabaseRestart => self.database().tell("restart"),
            Fault::BackendsKilled => {
                for _ in 0..repeats {
                    self.database().sql(KILL_ALL);
                    std::thread::park_timeout(Duration::from_millis(200));
                }
            }
            Fault::NoConnections => {
                self.database().sql("ALTER ROLE app CONNECTION LIMIT 1");
                self.database().sql(KILL_ALL);
                std::thread::park_timeout(Duration::from_secs(3));
                self.database().sql("ALTER ROLE app CONNECTION LIMIT -1");
            }
            Fault::CommitsHang => {
                let past = self.lease + Duration::from_secs(1);
                let standby = Standby::awaited(self.database());
                std::thread::park_timeout(past);
                drop(standby);
            }
        }
    }

    /// A host that lives.
    fn client(&self) -> Client {
        let addresses = self.addresses.lock().expect("no panic while it is held");
        Client::new(addresses.last().expect("one of them lives"))
    }

    /// Waits until a new job has its result.
    fn works(&self) {
        let payload = json!({ "key": "probe", "do": "span", "ms": 0 });
        eventually("a new job has its result", || {
            let job = json!({ "task": "villain/slow", "payload": payload });
            let reply = self.client().try_post("/v1/jobs?wait=2s", &job).ok()?;
            (reply.status == 200).then_some(())
        });
    }

    fn is_over(&self, id: &str) -> bool {
        let reply = self.client().try_get(&format!("/v1/jobs/{id}"));
        let state = |reply: crate::harness::Reply| reply.json()["state"].as_str().map(str::to_owned);
        let state = reply.ok().filter(|reply| reply.status == 200).and_then(state);
        matches!(state.as_deref(), Some("succeeded" | "failed" | "cancelled"))
    }
}

/// Breaks something under load, and counts.
pub(crate) fn run(place: Where, fault: Fault, scale: &Scale) -> Row {
    let mut scene = Scene::new(place, scale.lease);
    let shared = scene.addresses.clone();
    let ((works, caught_up), kept) = under_load(&shared, |kept| {
        eventually("there is load", || (count(kept) >= scale.before).then_some(()));
        let before = kept.lock().expect("no panic while it is held").clone();
        scene.break_it(fault, scale.repeats);
        let end = Instant::now();
        scene.works();
        let works = end.elapsed();
        for id in &before {
            eventually("what was acknowledged before is over", || scene.is_over(id).then_some(()));
        }
        (works, end.elapsed())
    });
    for id in &kept {
        eventually("what was acknowledged is over", || scene.is_over(id).then_some(()));
    }
    let spans = read(&scene.logs.path().join("spans"));
    let (mut lost, mut twice) = (0, 0);
    for id in &kept {
        let job = scene.client().get(&format!("/v1/jobs/{id}")).ok();
        let attempt = u32::try_from(job["attempt"].as_u64().expect("a number")).expect("small");
        match job["state"].as_str() {
            Some("succeeded") => {
                lost += usize::from(spans.get(&(id.clone(), attempt)).is_none_or(|span| span.end.is_none()));
                let later = (id.clone(), attempt + 1)..=(id.clone(), u32::MAX);
                twice += usize::from(spans.range(later).next().is_some());
            }
            // A job whose host dies under it again and again is failed on purpose.
            Some("failed") if job["crashes"].as_u64() >= Some(5) => {}
            _ => lost += 1,
        }
    }
    let over = load::keys().filter(|key| most_at_once(&spans, |span| span.key == *key, &scene.kills) > LIMIT).count();
    Row { place, fault, acknowledged: kept.len(), lost, twice, over, works, caught_up }
}
