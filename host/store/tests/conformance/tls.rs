//! Encrypted connections: a server whose certificate is untrusted, or of another name, is refused.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use wharf_store::PostgresStore;

use crate::server::Postgres;
use crate::stage::{Kind, Stage, block_on};

#[test]
fn certificates_are_checked() {
    let (port, authority, server) = Postgres::start_encrypted();
    let trust = format!("sslrootcert={}", authority.display());
    let address = |host: &str, more: &str| format!("postgres://wharf@{host}:{port}/postgres?schema=tls&{more}");
    block_on(async {
        let clock = Stage::new(Kind::Memory).await.clock;
        let open = async |address: String| PostgresStore::open_with_clock(&address, clock.clone()).await;
        let refused = async |address: String| open(address).await.unwrap_err().to_string();

        let _store = open(address("localhost", &format!("sslmode=require&{trust}"))).await.expect("it is trusted");
        let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                         WHERE application_name = 'wharf'";
        assert_eq!(server.sql_at(port, encrypted), "t");

        let unknown = refused(address("localhost", "sslmode=require")).await;
        assert!(unknown.contains("certificate") && unknown.contains("sslrootcert"), "{unknown}");
        let another = refused(address("127.0.0.1", &format!("sslmode=require&{trust}"))).await;
        assert!(another.contains("certificate") && another.contains("127.0.0.1"), "{another}");
        let absent = refused(address("localhost", "sslmode=require&sslrootcert=/nowhere.pem")).await;
        assert!(absent.contains("/nowhere.pem"), "{absent}");
    });
}

/// The driver has no code for this, so it is recognized by its text.
#[test]
fn a_server_without_tls_is_named_as_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.read_exact(&mut [0; 8]).unwrap();
        client.write_all(b"N").unwrap();
    });
    let address = format!("postgres://wharf@127.0.0.1:{port}/postgres?sslmode=require");
    let refused = block_on(PostgresStore::open(&address)).unwrap_err().to_string();
    assert!(refused.contains("the server doesn't support TLS; enable it, or add ?sslmode=disable"), "{refused}");
    answering.join().unwrap();
}
