//! Conflicts by their SQLSTATE, and the schema's placeholder, on a real server.

use super::*;
use crate::postgres::PostgresStore;
use crate::postgres::test_server::Postgres;

#[tokio::test(flavor = "multi_thread")]
async fn changed_rows_are_a_conflict_and_a_division_by_zero_is_none() {
    let server = Postgres::start(false);
    let text = server.address();
    let _store = PostgresStore::open(&text).await.unwrap();
    let address = Address::parse(&text).unwrap();
    let session = Sessions::new(&address, 1).unwrap().session().await.unwrap();
    let failed = async |text: &str| session.query(text, &[]).await.unwrap_err();

    session.query("SELECT $schema.require_rows(3, 3)", &[]).await.unwrap();
    let changed = failed("SELECT $schema.require_rows(2, 3)").await;
    assert!(changed.is_conflict() && !changed.is_transient() && !changed.is_lost_connection(), "{changed}");
    assert!(changed.to_string().contains("2 of 3 rows"), "{changed}");
    let division = failed("SELECT 1 / (2 - 2)").await;
    assert!(!division.is_conflict(), "{division}");
    assert!(matches!(division.store_error("here"), StoreError::Broken(_)), "{division}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_put_in_place_of_its_placeholder_and_of_nothing_else() {
    let server = Postgres::start(false);
    // A key word, which must be quoted.
    let text = format!("{}?schema=order", server.address().split_once('?').unwrap().0);
    let _store = PostgresStore::open(&text).await.unwrap();
    let session = Sessions::new(&Address::parse(&text).unwrap(), 1).unwrap().session().await.unwrap();
    let row = session.query_one("SELECT 'wharf.jobs', '$schema.jobs'::regclass::text, count(*) FROM $schema.jobs", &[]);
    let row = row.await.unwrap();
    let values: (&str, &str, i64) =
        (computed(&row, 0).unwrap(), computed(&row, 1).unwrap(), value(&row, "jobs", 2).unwrap());
    assert_eq!(values, ("wharf.jobs", "\"order\".jobs", 0));
}
