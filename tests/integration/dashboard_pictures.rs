//! Pictures of the pages of the dashboard, for people to look at: each at three widths, light and dark.
//!
//! `cargo test --release --workspace pictures -- --ignored` writes them into `target/tmp/pictures`.

use std::path::Path;

use base64::Engine as _;
use serde_json::json;

use crate::harness::{Browser, Client, Setup, eventually};

fn enqueue(client: &Client, task: &str, payload: &serde_json::Value) -> String {
    let reply = client.post("/v1/jobs", &json!({"task": task, "payload": payload})).ok();
    reply["id"].as_str().expect("an ID").to_owned()
}

#[test]
#[ignore = "it makes pictures for people, and checks nothing"]
fn pictures() {
    let host = Setup::default()
        .plugin("words")
        .plugin("summary")
        .plugin("thumbnail")
        .plugin("word-index")
        .plugin("program")
        .start();
    let client = host.client();
    let suggestions = "[schedules.nightly]\ntask = \"run\"\ncron = \"0 3 * * *\"\nzone = \"Europe/Berlin\"\npayload = { days = 1 }\n\
                       [schedules.every-quarter-of-an-hour]\ntask = \"run\"\nevery = \"15m\"\n\
                       [schedules.odd]\ntask = \"run\"\ncron = \"0 3 * *\"\n";
    std::fs::write(host.plugin_file("program").with_extension("toml"), suggestions).expect("written");
    for (at, tenant) in ["acme", "globex", "hooli", "initech", "umbrella"].iter().cycle().take(60).enumerate() {
        let fail = match at % 12 {
            3 => json!({"tenant": tenant, "text": "x", "fail": "discard"}),
            7 => json!({"tenant": tenant, "text": "x", "fail": "retry"}),
            _ => json!({"tenant": tenant, "text": "to be\nor not to be, that is the question"}),
        };
        enqueue(client, "words/count", &fail);
    }
    let photo = std::fs::read(crate::harness::photo("hubble_deep_field.jpg")).expect("the photo can be read");
    let picture = client.post_bytes("/v1/jobs?task=thumbnail%2Fmake", "image/jpeg", &photo).ok();
    let picture = picture["id"].as_str().expect("an ID").to_owned();
    eventually("jobs failed", || {
        let jobs = client.get("/v1/jobs?state=failed").ok();
        jobs["jobs"].as_array().is_some_and(|jobs| jobs.len() > 3).then_some(())
    });
    client.post("/v1/holds", &json!({"key": "globex", "reason": "stripe answers 429", "for": "2h"})).ok();
    let held = enqueue(client, "words/count", &json!({"tenant": "globex", "text": "x"}));
    let running: Vec<String> = (0..6)
        .map(|_| enqueue(client, "words/count", &json!({"tenant": "acme", "text": "a\nb", "pause-ms": 10_000})))
        .collect();
    let group = client.get("/v1/failures").ok()["failures"][0]["fingerprint"].as_str().expect("a group").to_owned();
    let batch = client.post(
        "/v1/broadcasts/document.saved",
        &json!({"payload": {"path": "a.md", "text": "# To be"}, "durable": true}),
    );
    let batch = batch.ok()["id"].as_str().expect("an ID").to_owned();
    let operation = client.post("/v1/operations", &json!({"act": "retry", "where": "state:failed", "try": 2})).ok();
    let operation = operation["id"].as_str().expect("an ID").to_owned();
    // The operation has tried some of them again.
    let failed = eventually("it has halted, and a job failed", || {
        let state = client.get(&format!("/v1/operations/{operation}")).ok()["state"].clone();
        let jobs = client.get("/v1/jobs?where=state:failed%20key:acme").ok();
        (state == "halted").then(|| jobs["jobs"][0]["id"].as_str().map(str::to_owned)).flatten()
    });
    eventually("the picture is made", || {
        (client.get(&format!("/v1/jobs/{picture}")).ok()["state"] == "succeeded").then_some(())
    });

    let slow = json!({"task": "words/count", "cron": "30 2 * * *", "zone": "Europe/Berlin", "spread": "5m", "payload": {"text": "a"}});
    client.put("/v1/schedules/nightly-report", &slow).ok();
    client
        .put("/v1/schedules/health-check", &json!({"task": "words/count", "every": "1h", "payload": {"text": "a"}}))
        .ok();
    client.post("/v1/schedules/health-check/pause", &json!({"reason": "the upstream moves", "for": "2h"})).ok();

    // Ticks that are skipped while a job runs, and jobs of those that are not.
    let pausing = json!({"tenant": "initech", "text": "to be", "pause-ms": 2500});
    let often = json!({"task": "words/count", "every": "1s", "overlap": "skip", "payload": pausing});
    client.put("/v1/schedules/sync-orders", &often).ok();
    let tick_job = eventually("it ticked", || {
        let recent = client.get("/v1/schedules/sync-orders").ok()["recent"].clone();
        let fired: Vec<&serde_json::Value> =
            recent.as_array()?.iter().filter(|tick| tick["outcome"] == "fired").collect();
        (fired.len() > 3).then(|| fired[1]["job"].as_str().map(str::to_owned))?
    });
    client.post("/v1/schedules/sync-orders/pause", &json!({"reason": "the shop moves"})).ok();
    let accepted = json!({"task": "program/run", "every": "15m", "payload": null});
    client.put("/v1/schedules/every-quarter-of-an-hour", &accepted).ok();

    let pages = [
        ("overview", String::new()),
        ("jobs", "jobs".into()),
        ("job-failed", format!("jobs/{failed}")),
        ("job-picture", format!("jobs/{picture}")),
        ("job-held", format!("jobs/{held}")),
        ("job-waiting", format!("jobs/{}", running[5])),
        ("failures", "failures?state=open".into()),
        ("failure", format!("failures/{group}")),
        ("limits", "limits".into()),
        ("limit-group", "limits/group?group=words/count".into()),
        ("schedules", "schedules".into()),
        ("schedule", "schedules/nightly-report".into()),
        ("schedule-paused", "schedules/health-check".into()),
        ("schedule-ticks", "schedules/sync-orders".into()),
        ("job-of-tick", format!("jobs/{tick_job}")),
        ("jobs-none", "jobs?where=key:nobody".into()),
        ("plugin-suggesting", "plugins/program".into()),
        ("plugins", "plugins".into()),
        ("plugin", "plugins/words".into()),
        ("run", "run?task=words/count".into()),
        ("bulk", "bulk?act=retry&where=state:failed".into()),
        ("broadcasts", "broadcasts".into()),
        ("broadcast", format!("broadcasts/{batch}")),
        ("nodes", "nodes".into()),
        ("operations", "operations".into()),
        ("operation", format!("operations/{operation}")),
        ("audit", "audit".into()),
        ("problem", "jobs/0000000000000".into()),
    ];
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    std::fs::create_dir_all(&folder).expect("a folder");
    let browser = Browser::start();
    for (width, height) in [(1600, 1000), (1280, 800), (360, 800)] {
        for dark in [false, true] {
            browser.look(width, height, dark);
            for (name, page) in &pages {
                browser.open(&format!("{}/{page}", client.address()));
                browser.until_true("the page is complete", "return document.readyState === 'complete'");
                let bytes = base64::engine::general_purpose::STANDARD.decode(browser.picture()).expect("base64");
                let scheme = if dark { "dark" } else { "light" };
                std::fs::write(folder.join(format!("{name}-{width}-{scheme}.png")), bytes).expect("it can be written");
            }
        }
    }
    eprintln!("the pictures are in {}", folder.display());
}
