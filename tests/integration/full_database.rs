//! A database that lets nobody in: a host that starts waits for it, says so, and goes on by itself.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::json;

use crate::harness::{Host, Postgres, Setup, eventually};

/// Few, so that they can all be taken.
const CONNECTIONS: u32 = 25;

/// Takes every connection that is to be had, as another program would; they end with what is returned.
fn crowd(server: &Postgres) -> Vec<UnixStream> {
    let parameters = b"user\0wharf\0database\0postgres\0\0";
    let length = 8 + parameters.len() as u32;
    // A start-up message of protocol 3.0.
    let hello = [&length.to_be_bytes()[..], &(3_u32 << 16).to_be_bytes(), parameters].concat();
    let mut taken = Vec::new();
    loop {
        let mut stream = UnixStream::connect(server.dir().join(".s.PGSQL.5432")).expect("the server listens");
        stream.write_all(&hello).expect("it hears");
        let mut answer = [0];
        stream.read_exact(&mut answer).expect("it answers");
        match answer[0] {
            b'R' => taken.push(stream),
            b'E' => return taken,
            other => panic!("it answered with `{}`", char::from(other)),
        }
        assert!(taken.len() <= CONNECTIONS as usize, "it has no end");
    }
}

fn because(host: &Host) -> String {
    let ready = host.client().get("/ready");
    assert_eq!(ready.status, 503, "{ready:?}");
    ready.json()["reasons"][0].as_str().unwrap_or_default().to_owned()
}

fn echoes(host: &Host) {
    assert_eq!(host.run("villain/do", json!({ "do": "echo" }))["state"], "succeeded");
}

#[test]
fn a_host_that_starts_at_a_full_database_waits_says_so_and_goes_on() {
    let postgres = Postgres::start_small(CONNECTIONS);
    let mut host = Setup::default().plugin("villain").database(&postgres.address()).start();
    echoes(&host);
    assert_eq!(host.terminate(), Some(0));

    let taken = eventually("others have taken all connections", || {
        let taken = crowd(&postgres);
        (taken.len() >= CONNECTIONS as usize - 1).then_some(taken)
    });
    host.start();
    let why = because(&host);
    assert!(why.contains("too many clients"), "{why}");
    assert_eq!(host.client().get("/health").status, 200);
    let refused = host.client().post("/v1/jobs", &json!({ "task": "villain/do", "payload": { "do": "echo" } }));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("store-busy")), "{refused:?}");
    drop(taken);
    eventually("it is ready by itself", || host.is_ready().then_some(()));
    echoes(&host);
}

#[test]
fn a_host_whose_role_may_not_connect_yet_waits_and_can_be_stopped() {
    let postgres = Postgres::start(false);
    // A role with nothing but its schema.
    postgres.sql("CREATE ROLE app LOGIN; CREATE SCHEMA own AUTHORIZATION app; REVOKE ALL ON SCHEMA public FROM PUBLIC");
    let mut host = Setup::default().plugin("villain").database(&postgres.address_of("app", "own")).start();
    echoes(&host);
    let limit = |max: i32| postgres.sql(&format!("ALTER ROLE app CONNECTION LIMIT {max}"));

    // While it runs: what it has is taken away, and it gets one in place of many.
    limit(1);
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
    let why = eventually("it says so", || {
        let ready = host.client().get("/ready");
        (ready.status == 503).then(|| ready.json()["reasons"][0].as_str().unwrap_or_default().to_owned())
    });
    assert!(why.contains("the store"), "{why}");
    limit(-1);
    eventually("it is ready again by itself", || host.is_ready().then_some(()));
    echoes(&host);

    // While it starts.
    assert_eq!(host.terminate(), Some(0));
    limit(0);
    host.start();
    assert!(because(&host).contains("too many connections for role"), "{}", because(&host));
    assert_eq!(host.terminate(), Some(0), "it can be stopped while it waits");
    host.start();
    limit(-1);
    eventually("it is ready by itself", || host.is_ready().then_some(()));
    echoes(&host);
}
