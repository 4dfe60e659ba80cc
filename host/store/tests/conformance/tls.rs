//! Encrypted connections: a server whose certificate is untrusted, or of another name, is refused.

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
