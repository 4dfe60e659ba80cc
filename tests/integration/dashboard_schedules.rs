//! Schedules in the dashboard: those that plugins suggest, and what they and their jobs say of each other.

use serde_json::{Value, json};

use crate::dashboard::{HOSTILE, is_sound};
use crate::harness::{Browser, Client, Host, Setup, eventually};

/// Three suggestions: one of them can never be accepted.
fn manifest(cron: &str) -> String {
    let odd = toml_text(HOSTILE);
    format!(
        "[schedules.nightly]\ntask = \"run\"\ncron = \"{cron}\"\nzone = \"Europe/Berlin\"\npayload = {{ days = 1 }}\n\
         [schedules.hourly]\ntask = \"run\"\nevery = \"1h\"\n\
         [schedules.odd]\ntask = \"run\"\ncron = {odd}\n"
    )
}

fn toml_text(text: &str) -> String {
    // The escapes of JSON are those of TOML.
    json!(text).to_string()
}

/// Starts a host whose plugin suggests schedules.
fn suggesting(setup: Setup) -> Host {
    let mut host = setup.plugin("program").plugin("words").start();
    host.terminate();
    std::fs::write(host.plugin_file("program").with_extension("toml"), manifest("0 3 * * *")).expect("written");
    host.start();
    host
}

fn cron_of_suggestion(client: &Client) -> Option<String> {
    let plugin = client.get("/v1/plugins/program").json();
    let all = plugin["loaded"]["schedules"].as_array()?;
    let nightly = all.iter().find(|suggested| suggested["name"] == "nightly")?;
    nightly["definition"]["cron"].as_str().map(str::to_owned)
}

fn schedules(client: &Client) -> Vec<Value> {
    client.get("/v1/schedules").ok()["schedules"].as_array().expect("a list").clone()
}

/// The form that accepts a suggestion.
fn form(name: &str) -> String {
    format!("form:has(input[value='program/{name}'])")
}

#[test]
fn what_a_plugin_suggests_is_accepted_without_scripts() {
    let host = suggesting(Setup::default());
    let client = host.client();
    eventually("the plugin is loaded", || cron_of_suggestion(client));
    let browser = Browser::start();
    browser.scripts(false);
    let at = |page: &str| browser.open(&format!("{}/{page}", client.address()));

    at("schedules");
    browser.until("program/nightly");
    browser.until("0 3 * * * Europe/Berlin");
    browser.until("Not valid: ");
    assert_eq!(schedules(client), Vec::<Value>::new(), "a suggestion does nothing");
    browser.click(&format!("{} button", form("nightly")));
    eventually("it leads to the schedule", || browser.address().ends_with("/schedules/nightly").then_some(()));
    browser.until("the store");
    let made = client.get("/v1/schedules/nightly").ok();
    assert_eq!((&made["cron"], &made["zone"]), (&json!("0 3 * * *"), &json!("Europe/Berlin")));
    assert_eq!((&made["payload"], &made["task"]), (&json!({ "days": 1 }), &json!("program/run")));
    let acts = client.get("/v1/audit").ok();
    assert_eq!(acts["acts"][0]["act"], "schedule-set", "it is in the audit log: {acts}");

    at("plugins/program");
    browser.until("Accepted as nightly");
    browser.until("they wait to be accepted");
    // Another schedule has the name: it is not replaced, and another name is asked for.
    let other = json!({ "task": "words/count", "every": "2h", "payload": { "text": "a" } });
    client.put("/v1/schedules/hourly", &other).ok();
    at("plugins/program");
    browser.until("Another schedule has its name");
    browser.fill(&format!("{} input[name=id]", form("hourly")), "hourly");
    browser.click(&format!("{} button", form("hourly")));
    browser.until("there is another schedule");
    assert_eq!(client.get("/v1/schedules/hourly").ok()["task"], "words/count");
    at("plugins/program");
    browser.fill(&format!("{} input[name=id]", form("hourly")), "each-hour");
    browser.click(&format!("{} button", form("hourly")));
    eventually("it leads to the schedule", || browser.address().ends_with("/schedules/each-hour").then_some(()));
    assert_eq!(client.get("/v1/schedules/each-hour").ok()["every_ms"], 3_600_000.0);

    // What was shown is accepted, and nothing else.
    client.delete("/v1/schedules/nightly");
    at("schedules");
    browser.until("program/nightly");
    std::fs::write(host.plugin_file("program").with_extension("toml"), manifest("* * * * *")).expect("written");
    eventually("the plugin is loaded anew", || (cron_of_suggestion(client)? == "* * * * *").then_some(()));
    browser.click(&format!("{} button", form("nightly")));
    browser.until("otherwise; look at it again");
    assert_eq!(client.get("/v1/schedules/nightly").status, 404);

    browser.scripts(true);
    // The page of a problem is an error to the browser's log.
    browser.complaints();
    for (width, dark) in [(1280, false), (360, true)] {
        browser.look(width, 900, dark);
        for page in ["schedules", "plugins/program"] {
            at(page);
            browser.until("program/nightly");
            is_sound(&browser, page);
        }
    }

    // Once all is accepted, nothing waits.
    browser.look(1280, 900, false);
    let only = "[schedules.nightly]\ntask = \"run\"\ncron = \"0 4 * * *\"\n";
    std::fs::write(host.plugin_file("program").with_extension("toml"), only).expect("written");
    eventually("the plugin is loaded anew", || (cron_of_suggestion(client)? == "0 4 * * *").then_some(()));
    at("plugins/program");
    browser.until("they wait to be accepted");
    browser.click(&format!("{} button", form("nightly")));
    eventually("it leads to the schedule", || browser.address().ends_with("/schedules/nightly").then_some(()));
    at("plugins/program");
    browser.until("Accepted as nightly");
    let waits = browser.run("return document.body.innerText.includes('they wait to be accepted')");
    assert_eq!(waits, false);
}

#[test]
fn a_suggestion_is_accepted_by_who_may_operate_and_enqueue_its_task() {
    let tokens = "[[tokens]]\nname = \"reader\"\nfrom = \"env:READER\"\ncan = [\"read\"]\n\
                  [[tokens]]\nname = \"ops\"\nfrom = \"env:OPS\"\ncan = [\"operate\"]\n\
                  [[tokens]]\nname = \"both\"\nfrom = \"env:BOTH\"\ncan = [\"operate\", \"enqueue:program/*\"]\n";
    let host = suggesting(
        Setup::default()
            .settings(tokens)
            .token("everything-everything")
            .variable("READER", "reader-reader-reader")
            .variable("OPS", "operator-operator-1")
            .variable("BOTH", "operator-operator-2"),
    );
    let client = host.client();
    eventually("the plugin is loaded", || cron_of_suggestion(client));
    let browser = Browser::start();
    let at = |page: &str| browser.open(&format!("{}/{page}", client.address()));
    for (token, may) in [("reader-reader-reader", false), ("operator-operator-1", false), ("operator-operator-2", true)]
    {
        at("schedules");
        browser.until("Token");
        browser.fill("#token", token);
        browser.click("button.primary");
        browser.until("program/nightly");
        let forms = browser.run("return document.querySelectorAll('#suggested form').length");
        assert_eq!(forms, if may { 2 } else { 0 }, "{token}");
        if may {
            browser.click(&format!("{} button", form("nightly")));
            browser.until("the store");
            assert_eq!(client.get("/v1/schedules/nightly").ok()["author"], "both");
        }
        browser.click(".leave button");
        browser.until("Token");
    }
}

#[test]
fn a_schedule_shows_its_jobs_and_each_job_its_schedule() {
    let host = Setup::default().plugin("words").start();
    let client = host.client();
    let every = json!({ "task": "words/count", "every": "1s", "payload": { "tenant": "acme", "text": "a" } });
    eventually("it is defined", || (client.put("/v1/schedules/tick", &every).status == 201).then_some(()));
    let ticks = || client.get("/v1/schedules/tick").ok()["ticks"]["fired"].as_u64();
    eventually("it ticked", || (ticks() >= Some(2)).then_some(()));
    client.post("/v1/schedules/tick/pause", &json!({})).ok();
    let last = client.get("/v1/schedules/tick").ok()["recent"][0]["job"].as_str().expect("a job").to_owned();
    host.finished(&last);
    let browser = Browser::start();
    browser.open(&format!("{}/schedules/tick", client.address()));
    browser.until("succeeded");
    browser.click(&format!("a[href$='jobs/{last}']"));
    browser.until("Tick before");
    browser.click("a[href$='schedules/tick']");
    browser.until("Last ticks");
    client.post("/v1/operations", &json!({ "act": "delete", "where": format!("id:{last}") })).ok();
    eventually("it is deleted", || (client.get(&format!("/v1/jobs/{last}")).status == 404).then_some(()));
    // The open page learns of it.
    browser.until("deleted");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
