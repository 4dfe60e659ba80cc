//! How long each page of the dashboard takes among many jobs, with the worst filters.
//!
//! `cargo bench --workspace --bench pages`, with the variables that `many_jobs` of the store's benches names. All jobs are held, so that
//! the store stays as it was filled. For each page: the median and the longest of its times in milliseconds, as a browser sees them.

#[path = "../harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the harness serves the tests, too")]
mod harness;
#[path = "../../host/store/benches/many_jobs/mod.rs"]
mod many_jobs;

use std::time::Instant;

use harness::{Client, Host, Setup};
use many_jobs::{FILTERS, Filled};
use serde_json::json;
use wharf_core::find::JobOrder;

/// The times that each page is asked for.
const TIMES: usize = 30;
/// Nothing is deleted meanwhile.
const KEPT: &str = "[upkeep]\nkeep-finished = \"365d\"";

/// Returns the address of the list of jobs with a filter, percent-encoded.
fn list(filter: &str, order: JobOrder) -> String {
    let filter: String = filter.bytes().map(|byte| format!("%{byte:02X}")).collect();
    match order {
        JobOrder::Newest => format!("jobs?where={filter}"),
        JobOrder::Finished => format!("jobs?order=finished&where={filter}"),
    }
}

/// Returns the pages, each with the name under which its times are printed.
fn pages(client: &Client) -> Vec<(String, String)> {
    let first = |filter: &str| client.get(&format!("/v1/{}", list(filter, JobOrder::Newest))).ok()["jobs"][0].clone();
    let id = |filter: &str| first(filter)["id"].as_str().unwrap_or("0000000000000").to_owned();
    let operation = client.post("/v1/operations", &json!({"act": "retry", "where": "id:0000000000001"})).ok();
    let operation = operation["id"].as_str().expect("an ID").to_owned();
    let schedule =
        json!({"task": "words/count", "cron": "0 3 * * *", "zone": "Europe/Berlin", "payload": {"text": "a"}});
    client.put("/v1/schedules/nightly", &schedule).ok();
    let mut pages: Vec<String> = [
        "",
        "failures",
        "failures?state=open",
        "failures/f1:0000000000000001",
        "limits",
        "limits/group?group=words/count",
        "schedules",
        "schedules/nightly",
        "plugins",
        "plugins/words",
        "broadcasts",
        "nodes",
        "operations",
        "audit",
        "run?task=words/count",
        "jobs/0000000000000",
        "bulk?act=retry&all=retry&match=state:failed",
        "bulk?act=delete&all=delete&match=key:big",
        "bulk?act=delete&all=delete&match=text:nowhere",
    ]
    .map(str::to_owned)
    .into();
    pages.push(format!("operations/{operation}"));
    pages.extend(["state:failed", "state:succeeded", "state:waiting"].map(|filter| format!("jobs/{}", id(filter))));
    pages.push(format!("run?like={}", id("state:succeeded")));
    let filters = FILTERS.iter().map(|(filter, order)| (format!("jobs {order:?} {filter}"), list(filter, *order)));
    pages.into_iter().map(|page| (page.clone(), page)).chain(filters).collect()
}

fn start(filled: &Filled, folder: &std::path::Path, setup: Setup) -> Host {
    let setup = setup.settings(KEPT);
    match filled {
        Filled::Sqlite => setup.store_in(folder).start(),
        Filled::Postgres(address) => setup.database(address).start(),
    }
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the bench");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let filled = runtime.block_on(many_jobs::fill(folder.path()));
    drop(runtime);
    // Without plugins nothing runs before all is held.
    let mut host = start(&filled, folder.path(), Setup::default());
    host.client().post("/v1/holds", &json!({"all": true, "reason": "a bench"})).ok();
    host.terminate();
    let host = start(&filled, folder.path(), Setup::default().plugin("words"));
    let client = host.client();
    println!("{} jobs; times of one page in ms, of {TIMES}", many_jobs::jobs());
    println!("{:>8} {:>8} {:>6} {:>8}  page", "median", "longest", "status", "bytes");
    let mut worst = (0.0, String::new());
    for (name, page) in pages(client) {
        let mut times = Vec::with_capacity(TIMES);
        let mut last = None;
        for _ in 0..TIMES {
            let begin = Instant::now();
            last = Some(client.get(&format!("/{page}")));
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let (median, longest) = (times[TIMES / 2], times[TIMES - 1]);
        let reply = last.expect("it was asked for");
        println!("{median:>8.1} {longest:>8.1} {:>6} {:>8}  /{name}", reply.status, reply.body.len());
        if longest > worst.0 {
            worst = (longest, name);
        }
    }
    println!("the longest: {:.1} ms, /{}", worst.0, worst.1);
}
