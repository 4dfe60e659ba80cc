//! Hosts that are killed at each step of a firing, on PostgreSQL: each tick has one job or none, as the policy of its schedule says.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Client, Host, Postgres, Setup, Standby, eventually};

/// The steps of a firing at which its host is killed.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The row of the schedule is written, and its transaction goes on.
    Written,
    /// Everything is written, and the commit is not done.
    Committing,
    /// The commit is done, and the host has not heard of it.
    Committed,
}

const GATE: &str = "
CREATE SCHEMA gate;
CREATE TABLE gate.now (held boolean NOT NULL);
INSERT INTO gate.now VALUES (false);
GRANT USAGE ON SCHEMA gate TO PUBLIC;
GRANT SELECT ON gate.now TO PUBLIC;
CREATE FUNCTION gate.pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    WHILE (SELECT held FROM gate.now) LOOP PERFORM pg_sleep(0.02); END LOOP;
    RETURN NULL;
END $$;";

struct World {
    postgres: Postgres,
    /// The table of schedules.
    table: String,
    hosts: [Host; 2],
}

impl World {
    fn start() -> World {
        let postgres = Postgres::start(false);
        let address = postgres.address();
        let host = || Setup::default().plugin("villain").database(&address).start();
        let hosts = [host(), host()];
        let table = postgres.sql("SELECT oid::regclass FROM pg_class WHERE relname = 'schedules' AND relkind = 'r'");
        postgres.sql(GATE);
        World { postgres, table, hosts }
    }

    fn client(&self) -> &Client {
        self.hosts[1].client()
    }

    /// Lets firings stop at a step, from now on.
    fn set_gate(&self, step: Step) {
        let table = &self.table;
        let deferred = match step {
            Step::Written => "NOT DEFERRABLE",
            Step::Committing | Step::Committed => "DEFERRABLE INITIALLY DEFERRED",
        };
        self.postgres.sql(&format!("DROP TRIGGER IF EXISTS gate ON {table}"));
        self.postgres.sql(&format!(
            "CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON {table} {deferred} FOR EACH ROW EXECUTE FUNCTION gate.pass()"
        ));
    }

    fn hold(&self, held: bool) {
        self.postgres.sql(&format!("UPDATE gate.now SET held = {held}"));
    }

    /// Kills the first host while a firing stands at a step, of whichever of the two hosts it is.
    fn kill_at(&mut self, step: Step) {
        if matches!(step, Step::Committed) {
            let standby = Standby::awaited(&self.postgres);
            eventually("a commit is done that nobody hears of", || (standby.waiting() > 0).then_some(()));
            self.hosts[0].kill();
            drop(standby);
        } else {
            self.set_gate(step);
            self.hold(true);
            let waiting =
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wharf' AND wait_event = 'PgSleep'";
            eventually("a firing stands at the gate", || (self.postgres.sql(waiting) != "0").then_some(()));
            self.hosts[0].kill();
            self.hold(false);
        }
        wait_for_ticks(self.client(), 1);
        self.hosts[0].start();
        self.hosts.swap(0, 1);
    }
}

fn show(client: &Client) -> Value {
    client.get("/v1/schedules/tick").ok()
}

fn count(schedule: &Value, what: &str) -> u64 {
    schedule["ticks"][what].as_u64().expect("a number")
}

fn wait_for_ticks(client: &Client, more: u64) {
    let before = count(&show(client), "fired");
    eventually("it ticks", || (count(&show(client), "fired") >= before + more).then_some(()));
}

/// Returns the number of jobs of each tick, by its second.
fn jobs_by_tick(client: &Client) -> BTreeMap<i64, u64> {
    let (mut path, mut ticks) = ("/v1/jobs?limit=1000".to_owned(), BTreeMap::new());
    loop {
        let page = client.get(&path).ok();
        for job in page["jobs"].as_array().expect("jobs") {
            let Some(tick) = job["token"].as_str().and_then(|token| token.strip_prefix("schedule:tick@")) else {
                continue;
            };
            let tick: jiff::Timestamp = tick.parse().expect("a moment");
            *ticks.entry(tick.as_second()).or_insert(0) += 1;
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/jobs{next}"),
            None => return ticks,
        }
    }
}

/// Kills hosts at each step of a firing, twice.
fn survives(missed: &str, overlap: &str) {
    let mut world = World::start();
    let definition = json!({
        "task": "villain/do", "every": "1s", "payload": { "do": "sleep", "ms": 0 }, "missed": missed, "overlap": overlap,
    });
    eventually("the plugin is loaded", || {
        let reply = world.client().put("/v1/schedules/tick", &definition);
        (reply.json()["code"] != "plugin-loading").then(|| reply.ok())
    });
    wait_for_ticks(world.client(), 1);
    for _ in 0..2 {
        for step in [Step::Written, Step::Committing, Step::Committed] {
            world.kill_at(step);
        }
    }
    wait_for_ticks(world.client(), 2);
    world.client().post("/v1/schedules/tick/pause", &json!({})).ok();
    let (ticks, schedule) = (jobs_by_tick(world.client()), show(world.client()));
    assert!(ticks.values().all(|jobs| *jobs == 1), "{missed}, {overlap}: {ticks:?}");
    let (first, last) = (ticks.keys().next().expect("a tick"), ticks.keys().next_back().expect("a tick"));
    let (past, fired) = ((last - first + 1) as u64, count(&schedule, "fired"));
    assert_eq!(fired, ticks.len() as u64, "{missed}, {overlap}: {schedule}");
    let without_job = count(&schedule, "missed") + count(&schedule, "skipped");
    if missed == "all" && overlap == "allow" {
        assert_eq!((past, without_job), (fired, 0), "{ticks:?}: {schedule}");
    } else {
        // Ticks after the last one that has a job are told, too.
        assert!((past..past + 60).contains(&(fired + without_job)), "{missed}, {overlap}: {past} {schedule}");
    }
}

#[test]
fn with_all_ticks_caught_up_each_has_one_job_whichever_step_a_host_dies_at() {
    survives("all", "allow");
}

#[test]
fn ticks_that_may_be_missed_have_one_job_or_are_told_whichever_step_a_host_dies_at() {
    survives("latest", "skip");
}

#[test]
fn jobs_that_never_overlap_have_one_tick_each_whichever_step_a_host_dies_at() {
    survives("all", "queue-one");
}
