//! Load: jobs of a few keys, enqueued by several at once, each again until it is acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Client;

const KEYS: usize = 7;
const LOADERS: usize = 4;

/// Of the hosts that live.
pub(crate) type Addresses = Arc<Mutex<Vec<String>>>;

/// The ids of jobs that were acknowledged.
pub(crate) type Kept = Mutex<Vec<String>>;

pub(crate) fn count(kept: &Kept) -> usize {
    kept.lock().expect("no panic while it is held").len()
}

/// Does something while jobs of a few keys are enqueued, and returns which were acknowledged.
pub(crate) fn under_load<T>(addresses: &Addresses, act: impl FnOnce(&Kept) -> T) -> (T, Vec<String>) {
    let pair = |n: usize| {
        let payload = json!({ "key": format!("k{}", n % KEYS), "do": "span", "ms": n % 13, "log": "/log/spans" });
        json!({ "task": "villain/pair", "payload": payload })
    };
    under_load_of(addresses, pair, act)
}

/// The same with other jobs: `job` makes the one of a number.
pub(crate) fn under_load_of<T>(
    addresses: &Addresses,
    job: impl Fn(usize) -> Value + Sync,
    act: impl FnOnce(&Kept) -> T,
) -> (T, Vec<String>) {
    /// The load ends with what is done under it, also where that panics.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (over, kept) = (AtomicBool::new(false), Kept::default());
    let done = std::thread::scope(|scope| {
        let _end = End(&over);
        for who in 0..LOADERS {
            let (over, kept, job) = (&over, &kept, &job);
            scope.spawn(move || load(addresses, over, kept, job, who));
        }
        act(&kept)
    });
    (done, kept.into_inner().expect("no panic while it is held"))
}

pub(super) fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|number| format!("k{number}"))
}

/// Enqueues one job after another until told to stop, and keeps the ids that were acknowledged.
fn load(addresses: &Addresses, over: &AtomicBool, kept: &Kept, job: impl Fn(usize) -> Value, who: usize) {
    let mut n = who;
    while !over.load(Ordering::Relaxed) {
        n += 1;
        let mut job = job(n);
        job["token"] = json!(format!("{who}-{n}"));
        // The same token until it is acknowledged, at whichever host: a lost answer is no second job.
        for turn in n.. {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let address = {
                let addresses = addresses.lock().expect("no panic while it is held");
                (!addresses.is_empty()).then(|| addresses[turn % addresses.len()].clone())
            };
            // 200 where the answer was lost but the job was not: it stands, by its token.
            if let Some(address) = address
                && let Ok(reply) = Client::new(&address).try_post("/v1/jobs", &job)
                && [200, 202].contains(&reply.status)
            {
                let id = reply.json()["id"].as_str().expect("an id").to_owned();
                kept.lock().expect("no panic while it is held").push(id);
                break;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        // About as fast as they are done: what waits long says nothing of the fault.
        std::thread::park_timeout(Duration::from_millis(4));
    }
}
