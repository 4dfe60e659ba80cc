//! The answer to a commit is lost: what was written is neither written twice nor taken for lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use wharf_core::job::{Entry, StateName};
use wharf_core::lifecycle::Event;
use wharf_store::PostgresStore;

use crate::server::Postgres;
use crate::stage::{COUNT, Kind, Stage, block_on};

fn says(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// Carries one connection. Where `lose` is set, the next commit reaches the server and its answer reaches nobody.
async fn carry(mut client: UnixStream, mut server: UnixStream, lose: Arc<AtomicBool>) -> std::io::Result<()> {
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let said = &from_client[..read?];
                losing |= lose.load(Ordering::SeqCst) && says(said, b"COMMIT\0");
                if said.is_empty() {
                    return Ok(());
                }
                server.write_all(said).await?;
            }
            read = server.read(&mut from_server) => {
                let said = &from_server[..read?];
                if said.is_empty() || (losing && says(said, b"COMMIT\0")) {
                    lose.store(false, Ordering::SeqCst);
                    return Ok(());
                }
                if !losing {
                    client.write_all(said).await?;
                }
            }
        }
    }
}

#[test]
fn a_lost_answer_to_a_commit_is_found_out() {
    let server = Postgres::start(false);
    let address = server.address();
    let (before, after) = address.split_once("%2F").unwrap();
    let (socket, after) = after.split_once("/postgres").unwrap();
    let real = PathBuf::from(format!("/{}", socket.replace("%2F", "/"))).join(".s.PGSQL.5432");
    let folder = tempfile::tempdir().unwrap();
    let through = folder.path().display().to_string().replace('/', "%2F");
    let lossy = format!("{before}{through}/postgres{after}");

    block_on(async {
        let lose = Arc::new(AtomicBool::new(false));
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let arm = lose.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&real).await.unwrap();
                tokio::spawn(carry(client, server, arm.clone()));
            }
        });
        let stage = Stage::new(Kind::Memory).await;
        let store = PostgresStore::open_with_clock(&lossy, stage.clock.clone()).await.unwrap();
        let stage = Stage { store: Arc::new(store), ..stage };
        let lose_next = || lose.store(true, Ordering::SeqCst);
        let was_lost = || assert!(!lose.load(Ordering::SeqCst), "an answer was lost");

        lose_next();
        let id = stage.add(COUNT, "").await;
        was_lost();
        lose_next();
        let leased = stage.claim_one().await;
        was_lost();
        assert_eq!((leased.lease.job, leased.lease.attempt), (id, 1));
        lose_next();
        let entries = vec![Entry::Chunk(b"one".as_slice().into()), Entry::Chunk(b"two".as_slice().into())];
        stage.record(id, Event::Wrote { attempt: 1, entries }).await.unwrap();
        was_lost();
        assert_eq!(stage.store.entries(id, 0, 10).await.unwrap().len(), 2, "nothing is written twice");
        lose_next();
        assert_eq!(stage.succeed(&leased).await.unwrap().state, StateName::Succeeded);
        was_lost();
        let seen = stage.seen(id).await;
        assert_eq!((seen.job.standing.attempt, seen.entries), (1, 2));
    });
}
