//! The steps of `host/docs/dashboard.md`, taken by the words on the pages: each leads where the page of the docs says.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Browser, Client, Setup, eventually, eventually_within};

/// Presses the link or the button that a person sees under this text.
#[track_caller]
fn press(browser: &Browser, text: &str) {
    let quoted = json!(text);
    let script = format!(
        "const seen = (e) => e.checkVisibility() && e.textContent.trim().startsWith({quoted});
         const found = [...document.querySelectorAll('a, button')].find(seen);
         found?.click(); return found !== undefined"
    );
    browser.until_true(&format!("{text:?} can be pressed"), &script);
}

/// Writes into the field that has this text beside it.
#[track_caller]
fn write(browser: &Browser, label: &str, text: &str) {
    let quoted = json!(label);
    let script = format!(
        "const of = [...document.querySelectorAll('label')].find((e) => e.textContent.trim().startsWith({quoted}));
         const field = of?.control; field?.setAttribute('data-field', {quoted}); return field !== undefined"
    );
    browser.until_true(&format!("there is a field {label:?}"), &script);
    browser.fill(&format!("[data-field={quoted}]"), text);
}

/// Waits until the browser has come to a page: another one may have a link of the same text.
#[track_caller]
fn comes_to(browser: &Browser, page: &str) {
    browser.until_true(&format!("the page {page}"), &format!("return location.pathname === '{page}'"));
}

fn enqueue(client: &Client, task: &str, payload: &Value) -> String {
    let job = client.post("/v1/jobs", &json!({ "task": task, "payload": payload })).ok();
    job["id"].as_str().expect("an ID").to_owned()
}

#[test]
fn an_operator_who_follows_the_docs_gets_there() {
    let long = "[plugins.villain.tasks.keyed]\ntimeout = \"1h\"\n";
    let host = Setup::default().plugin("villain").plugin("words").settings(long).start();
    let client = host.client();
    // Of a host that has just started, nobody knows what fails in a minute.
    eventually_within(Duration::from_secs(180), "the host has run for a minute", || {
        (client.get("/v1/summary").ok()["covers_s"].as_u64() >= Some(60)).then_some(())
    });
    let hour = json!({ "do": "sleep", "ms": 600_000, "key": "acme" });
    let holder = enqueue(client, "villain/keyed", &hour);
    host.in_state(&holder, "running");
    enqueue(client, "villain/keyed", &hour);
    // The first page shows what failed within a minute, so the browser is there before the jobs are.
    let browser = Browser::start();
    // What fails is mended by the second attempt.
    let failing: Vec<String> =
        (0..8).map(|_| enqueue(client, "villain/do", &json!({ "do": "fail-until", "attempt": 2 }))).collect();
    for id in &failing {
        host.in_state(id, "failed");
    }

    // Find what fails, and read why.
    browser.open(&format!("{}/", client.address()));
    browser.until("villain/do fails: ");
    press(&browser, "Look at the failures");
    comes_to(&browser, "/failures");
    press(&browser, "villain/do");
    browser.until("Last jobs");
    browser.click("td a.mono");
    browser.until("Report of the last attempt");
    browser.until("Failed: ");

    // Retry five, then the rest.
    press(&browser, "All that failed this way");
    press(&browser, "Retry its jobs…");
    browser.until("Retry 8 jobs");
    write(&browser, "Try a few first", "5");
    press(&browser, "Retry 8 jobs");
    for id in &failing {
        eventually(&format!("{id} is tried again"), || (host.job(id)["state"] == "succeeded").then_some(()));
    }
    let operation = client.get("/v1/operations").ok()["operations"][0].clone();
    assert_eq!(operation["try"], 5, "{operation}");
    press(&browser, "Failures");
    comes_to(&browser, "/failures");
    press(&browser, "villain/do");
    press(&browser, "Resolve");
    browser.until("Reopen");

    // Find a tenant's stuck job, and say why it waits.
    press(&browser, "Jobs");
    comes_to(&browser, "/jobs");
    browser.fill("#search", "key:acme state:waiting");
    press(&browser, "Filter");
    browser.until_true("one job is left", "return document.querySelectorAll('tbody tr').length === 1");
    press(&browser, "villain/keyed");
    browser.until("Why it waits: ");
    browser.until(&holder);

    // Hold the tenant.
    press(&browser, "Limits and holds");
    browser.until("Nothing is held.");
    write(&browser, "Its name", "acme");
    write(&browser, "Why", "their disk is full");
    browser.click("#holds button.primary");
    browser.until("their disk is full");
    let second = enqueue(client, "words/count", &json!({ "tenant": "acme", "text": "x" }));
    browser.open(&format!("{}/jobs/{second}", client.address()));
    browser.until("an operator holds key `acme`: their disk is full");
    press(&browser, "Limits and holds");
    press(&browser, "Release");
    browser.until("Nothing is held.");
    host.finished(&second);

    // Run one job by hand.
    press(&browser, "Jobs");
    comes_to(&browser, "/jobs");
    press(&browser, "Run a job");
    browser.until("Choose");
    browser.run("document.querySelector('select[name=task]').value = 'words/count'");
    press(&browser, "Choose");
    write(&browser, "text", "to be or not");
    write(&browser, "tenant", "globex");
    press(&browser, "Run words/count");
    browser.until("succeeded");
    browser.until("globex");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
