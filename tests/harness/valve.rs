//! Commits that take as long as a test says. Either before they are done, by a deferred trigger on every table of a schema;
//! or after that and before anybody hears of it, by a standby that does not exist.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::server::{PORT, Postgres, psql};

/// Longer than anything takes, however slow the machine.
const TIMEOUT: Duration = Duration::from_secs(60);

const MAKE: &str = "
CREATE SCHEMA valve;
CREATE TABLE valve.now (held boolean NOT NULL, pause double precision NOT NULL);
INSERT INTO valve.now VALUES (false, 0);
GRANT USAGE ON SCHEMA valve TO PUBLIC;
GRANT SELECT ON valve.now TO PUBLIC;
-- Once in a transaction, however many rows it wrote.
CREATE FUNCTION valve.pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('valve.passed', true) = pg_current_xact_id()::text THEN RETURN NULL; END IF;
    PERFORM set_config('valve.passed', pg_current_xact_id()::text, true);
    PERFORM pg_sleep(pause) FROM valve.now;
    WHILE (SELECT held FROM valve.now) LOOP PERFORM pg_sleep(0.02); END LOOP;
    RETURN NULL;
END $$;";

/// Before the commits of one schema.
pub(crate) struct Valve<'s>(&'s Postgres);

impl Valve<'_> {
    /// The tables must be there.
    pub(crate) fn before<'s>(server: &'s Postgres, schema: &str) -> Valve<'s> {
        server.sql(MAKE);
        server.sql(&format!(
            "DO $$ DECLARE one regclass; BEGIN
                 FOR one IN SELECT oid FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r' LOOP
                     EXECUTE format('CREATE CONSTRAINT TRIGGER valve AFTER INSERT OR UPDATE OR DELETE ON %s
                                     DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION valve.pass()', one);
                 END LOOP;
             END $$"
        ));
        Valve(server)
    }

    /// From now on no commit is done; or those that waited are.
    pub(crate) fn hold(&self, held: bool) {
        self.0.sql(&format!("UPDATE valve.now SET held = {held}"));
    }

    /// From now on each commit takes so much longer.
    pub(crate) fn pause(&self, pause: Duration) {
        self.0.sql(&format!("UPDATE valve.now SET pause = {}", pause.as_secs_f64()));
    }

    /// How many of Wharf's transactions stand before it.
    pub(crate) fn waiting(&self) -> usize {
        waiting(self.0, "PgSleep")
    }
}

/// After the commits of the whole server: they are done, and whoever asked for them waits until this is dropped.
pub(crate) struct Standby<'s>(&'s Postgres);

impl Standby<'_> {
    /// Returns when it holds.
    pub(crate) fn awaited(server: &Postgres) -> Standby<'_> {
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
        server.sql("SELECT pg_reload_conf()");
        // The server hears of it in its own time: something is committed until that hangs.
        let (held, dir) = (Arc::new(AtomicBool::new(false)), server.dir().to_owned());
        let known = Arc::clone(&held);
        thread::spawn(move || {
            while !known.load(Ordering::SeqCst) {
                _ = psql(&dir, PORT, "SELECT pg_logical_emit_message(true, 'wharf', 'is it held?')").output();
            }
        });
        let began = Instant::now();
        while server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "0" {
            assert!(began.elapsed() < TIMEOUT, "commits do not wait for a standby");
            thread::sleep(Duration::from_millis(5));
        }
        held.store(true, Ordering::SeqCst);
        Standby(server)
    }

    /// How many of Wharf's transactions wait for it.
    pub(crate) fn waiting(&self) -> usize {
        waiting(self.0, "SyncRep")
    }
}

impl Drop for Standby<'_> {
    fn drop(&mut self) {
        self.0.sql("ALTER SYSTEM RESET synchronous_standby_names");
        self.0.sql("SELECT pg_reload_conf()");
    }
}

fn waiting(server: &Postgres, wait: &str) -> usize {
    let text = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wharf' AND state = 'active' AND wait_event = '{wait}'"
    );
    server.sql(&text).parse().expect("a number")
}

/// Takes the connections away that hang in a commit.
pub(crate) fn cut_those_that_wait(server: &Postgres) {
    let text = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE application_name = 'wharf' AND state = 'active' AND wait_event IN ('PgSleep', 'SyncRep')";
    let began = Instant::now();
    // One that sleeps is awake now and then.
    while server.sql(text) == "0" {
        assert!(began.elapsed() < TIMEOUT, "nobody waits");
        thread::sleep(Duration::from_millis(1));
    }
}
