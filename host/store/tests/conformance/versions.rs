//! Hosts of two versions on one database: an older one continues until a newer one forbids it, and reports that.

use std::sync::Arc;

use wharf_store::{OpenError, PostgresStore, StoreError};

use crate::server::Postgres;
use crate::stage::{COUNT, Kind, Stage, block_on};

#[test]
fn an_older_host_continues_until_a_newer_one_forbids_it() {
    let server = Postgres::start(false);
    let address = server.address();
    let schema = address.split_once("schema=").unwrap().1.to_owned();
    let newer =
        |oldest: u32| server.sql(&format!("UPDATE {schema}.version SET version = version + 1, oldest = {oldest}"));
    block_on(async {
        let stage = Stage::new(Kind::Memory).await;
        let open = || PostgresStore::open_with_clock(&address, stage.clock.clone());
        let older = Stage { store: Arc::new(open().await.unwrap()), ..Stage::new(Kind::Memory).await };
        older.add(COUNT, "").await;
        newer(1);
        older.add(COUNT, "").await;
        open().await.expect("it may start again");

        newer(99);
        let job = older.new_job(COUNT, "");
        let refused = older.store.insert(vec![job], older.declared.clone()).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Broken(why) if why.contains("newer Wharf")), "{refused}");
        let refused = open().await.unwrap_err();
        assert!(matches!(refused, OpenError::TakeNewerHost { .. }), "{refused}");
    });
}
