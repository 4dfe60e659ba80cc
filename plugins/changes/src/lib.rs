//! Says whether a page is another than when it was last looked at: what it keeps of each page is one small value.

use exports::wharf::plugin::{
    handler::{self, Failure, Job},
    manifest,
};
use serde::{Deserialize, Serialize};
use wharf::plugin::{attempt, kv};

wit_bindgen::generate!({
    path: "../../wit",
    inline: "package mine:changes; world changes { include wharf:plugin/handler-plugin@0.1.0; import wharf:plugin/kv@0.1.0; }",
    world: "mine:changes/changes",
    generate_all,
});

/// Keys of one question to the host.
const PAGE: u32 = 500;

#[derive(Deserialize)]
struct Look {
    page: String,
    text: String,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    prefix: String,
}

/// What is kept of a page.
#[derive(Default, Serialize, Deserialize)]
struct Known {
    digest: u64,
    checks: u64,
    changes: u64,
}

#[derive(Serialize)]
struct Found {
    change: &'static str,
    checks: u64,
    changes: u64,
}

#[derive(Default, Serialize)]
struct Pages {
    pages: u64,
    checks: u64,
    changes: u64,
    changed: Vec<String>,
}

/// FNV-1a: the same in every version of every toolchain, since it is kept.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn check(look: &Look) -> Result<Found, Failure> {
    let digest = digest(&look.text);
    // The store may be out of reach for a moment: then it is tried again.
    let before = kv::get(&look.page).map_err(Failure::Retry)?;
    let (change, mut known) = match before {
        None => ("first", Known::default()),
        Some(bytes) => {
            let known: Known = serde_json::from_slice(&bytes).map_err(|e| Failure::Discard(e.to_string()))?;
            (if known.digest == digest { "none" } else { "changed" }, known)
        }
    };
    known.checks += 1;
    known.changes += u64::from(change == "changed");
    known.digest = digest;
    kv::set(&look.page, &json(&known)).map_err(Failure::Retry)?;
    Ok(Found { change, checks: known.checks, changes: known.changes })
}

fn list(listing: &Listing) -> Result<Pages, Failure> {
    let mut all = Pages::default();
    let mut last = None;
    loop {
        let keys = kv::keys(&listing.prefix, last.as_deref(), PAGE).map_err(Failure::Retry)?;
        let Some(end) = keys.last() else { return Ok(all) };
        last = Some(end.clone());
        for page in keys {
            if attempt::cancelled() {
                return Err(Failure::Discard(format!("cancelled after {} pages", all.pages)));
            }
            // It may have been taken away since.
            let Some(bytes) = kv::get(&page).map_err(Failure::Retry)? else { continue };
            let known: Known = serde_json::from_slice(&bytes).map_err(|e| Failure::Discard(e.to_string()))?;
            all.pages += 1;
            all.checks += known.checks;
            all.changes += known.changes;
            if known.changes > 0 {
                all.changed.push(page);
            }
        }
    }
}

fn parsed<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(payload).map_err(|e| Failure::Discard(format!("the payload does not fit: {e}")))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers and texts always fit JSON")
}

struct Changes;

impl manifest::Guest for Changes {
    fn describe() -> String {
        include_str!("../manifest.toml").into()
    }
}

impl handler::Guest for Changes {
    fn handle(job: Job) -> Result<Vec<u8>, Failure> {
        match job.task.as_str() {
            "check" => Ok(json(&check(&parsed(&job.payload)?)?)),
            _ => Ok(json(&list(&parsed(&job.payload)?)?)),
        }
    }
}

export!(Changes);
