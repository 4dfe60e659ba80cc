//! The dashboard in a real browser: every page with real jobs, every act with its effect, what is live, who sees what.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::harness::{Browser, Client, Host, Postgres, ReverseProxy, Setup, eventually};

/// Text that would run, if any page took it for markup.
pub(crate) const HOSTILE: &str =
    "</pre></textarea>\"'><script>window.hit=1</script><img src=x onerror=window.hit=1>\u{202e}";
/// The token of hosts that ask for one.
const TOKEN: &str = "a-token-of-some-length";

fn start() -> Host {
    Setup::default().plugin("words").plugin("summary").plugin("thumbnail").start()
}

/// Enqueues a job of `words/count` and returns its ID.
#[track_caller]
pub(crate) fn words(client: &Client, payload: &Value) -> String {
    let reply = client.post("/v1/jobs", &json!({"task": "words/count", "payload": payload})).ok();
    reply["id"].as_str().expect("an ID").to_owned()
}

#[track_caller]
pub(crate) fn until_state(client: &Client, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), || {
        (client.get(&format!("/v1/jobs/{id}")).ok()["state"] == state).then_some(())
    });
}

/// Enqueues jobs that fail, waits for their ends, and returns their IDs.
#[track_caller]
pub(crate) fn failed(client: &Client, count: usize) -> Vec<String> {
    let ids: Vec<String> =
        (0..count).map(|_| words(client, &json!({"tenant": "acme", "text": "x", "fail": "discard"}))).collect();
    ids.iter().for_each(|id| until_state(client, id, "failed"));
    ids
}

/// Checks that the page has no barrier, ran no script of others, and broke no rule of its own policy.
#[track_caller]
pub(crate) fn is_sound(browser: &Browser, page: &str) {
    assert_eq!(browser.complaints(), Vec::<String>::new(), "{page}");
    assert_eq!(browser.run("return window.hit ?? null"), Value::Null, "{page}");
    let wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert!(wide.as_i64().unwrap_or(1) <= 0, "{page} scrolls sideways by {wide}");
    assert_eq!(browser.barriers(), Vec::<String>::new(), "{page}");
}

#[test]
fn every_page_is_whole_and_open_to_all() {
    let host = start();
    let client = host.client();
    let done = words(client, &json!({"tenant": "acme", "text": "to be\nor not"}));
    until_state(client, &done, "succeeded");
    let failed = failed(client, 3);
    let photo = std::fs::read(crate::harness::photo("hubble_deep_field.jpg")).expect("the photo can be read");
    let picture = client.post_bytes("/v1/jobs?task=thumbnail%2Fmake", "image/jpeg", &photo).ok();
    let picture = picture["id"].as_str().expect("an ID").to_owned();
    until_state(client, &picture, "succeeded");
    client.post("/v1/holds", &json!({"key": "globex", "reason": "stripe 429"})).ok();
    let held = words(client, &json!({"tenant": "globex", "text": "x"}));
    let batch =
        client.post("/v1/broadcasts/document.saved", &json!({"payload": {"path": "a", "text": "b"}, "durable": true}));
    let batch = batch.ok()["id"].as_str().expect("an ID").to_owned();
    let group = client.get("/v1/failures").ok()["failures"][0]["fingerprint"].as_str().expect("a group").to_owned();
    let bulk = client.post("/v1/operations", &json!({"act": "retry", "where": "state:cancelled"})).ok();
    let operation = bulk["id"].as_str().expect("an ID").to_owned();
    let times = json!({"task": "words/count", "cron": "30 2 * * *", "zone": "Europe/Berlin", "payload": {"text": "a"}});
    client.put("/v1/schedules/nightly", &times).ok();

    let browser = Browser::start();
    let pages = [
        (String::new(), "Overview"),
        ("jobs".into(), "words/count"),
        ("jobs?where=state:failed".into(), "asked to fail"),
        (format!("jobs/{done}"), "Timeline"),
        (format!("jobs/{}", failed[0]), "All that failed this way"),
        (format!("jobs/{picture}"), "Result"),
        (format!("jobs/{held}"), "stripe 429"),
        ("failures?state=open".into(), "words/count"),
        (format!("failures/{group}"), "Last jobs"),
        ("limits".into(), "stripe 429"),
        ("limits/group?group=words/count".into(), "Who holds the slots"),
        ("schedules".into(), "nightly"),
        ("schedules/nightly".into(), "Where the clock changes"),
        ("plugins".into(), "words"),
        ("plugins/words".into(), "Schema of its payload"),
        ("broadcasts".into(), "document.saved"),
        (format!("broadcasts/{batch}"), "document.saved"),
        ("nodes".into(), "Running"),
        ("operations".into(), "Retry"),
        (format!("operations/{operation}"), "Filter"),
        ("audit".into(), "hold-set"),
        ("run?task=words/count".into(), "pause-ms"),
        ("bulk?act=retry&where=state:failed".into(), "3 jobs"),
        ("jobs/0000000000000".into(), "Unknown job"),
        ("no/such/page".into(), "unknown page"),
    ];
    for (width, dark) in [(1280, false), (360, true)] {
        browser.look(width, 900, dark);
        for (page, says) in &pages {
            browser.open(&format!("{}/{page}", client.address()));
            browser.until(says);
            if ["jobs/0000000000000", "no/such/page"].contains(&page.as_str()) {
                // The browser itself logs that the answer is an error.
                browser.complaints();
            }
            is_sound(&browser, page);
        }
    }
    browser.open(&format!("{}/jobs/{picture}", client.address()));
    browser.until_true("the picture is shown", "return document.querySelector('img.picture')?.naturalWidth > 0");
}

#[test]
fn each_act_has_its_effect() {
    let host = start();
    let client = host.client();
    let failed = failed(client, 2);
    let browser = Browser::start();
    let at = |page: &str| browser.open(&format!("{}/{page}", client.address()));

    at(&format!("jobs/{}", failed[0]));
    browser.click(".acts button.primary");
    eventually("the job was tried again", || {
        (client.get(&format!("/v1/jobs/{}", failed[0])).ok()["attempt"].as_u64() >= Some(2)).then_some(())
    });
    until_state(client, &failed[0], "failed");

    at("limits");
    browser.fill("input[name=name]", "acme");
    browser.fill("input[name=reason]", "because");
    browser.click("#holds form button.primary");
    browser.until("because");
    assert_eq!(client.get("/v1/holds").ok()["holds"][0]["key"], "acme");
    let held = words(client, &json!({"tenant": "acme", "text": "x"}));
    at(&format!("jobs/{held}"));
    browser.until("an operator holds key `acme`: because");
    browser.click(".acts button.danger");
    until_state(client, &held, "cancelled");
    at("limits");
    browser.click("#holds table button");
    browser.until("Nothing is held.");
    assert_eq!(client.get("/v1/holds").ok()["holds"], json!([]));

    browser.fill("[id='words/count'] input[name=per_key]", "7");
    browser.click("[id='words/count'] form button");
    browser.until("Clear");
    let per_key = || {
        let limits = client.get("/v1/limits").ok();
        let mut all = limits.as_array().expect("a list").iter();
        all.find(|limit| limit["group"] == "words/count").expect("the group")["per_key"].clone()
    };
    assert_eq!(per_key(), 7);
    let set = "return document.querySelector(\"[id='words/count'] input[name=per_key]\").value";
    assert_eq!(browser.run(set), "7", "what is set is there, so that the next change keeps it");
    browser.click("[id='words/count'] button[name=clear]");
    eventually("the limit is the declared one", || (per_key() == 2).then_some(()));

    at("run?task=words/count");
    browser.fill("[name='json.text']", "by hand");
    browser.fill("[name='json.tenant']", "initech");
    browser.click("form.fields button.primary");
    browser.until("initech");
    browser.until("succeeded");
    let jobs = client.get("/v1/jobs?key=initech").ok();
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1), "{jobs}");

    at("jobs?where=state:failed");
    browser.click("#all");
    browser.click("button[name=act][value=retry]");
    browser.until("Retry 2 jobs");
    browser.fill("input[name=try]", "1");
    browser.click("form.fields button.primary");
    browser.until("halted");
    let operation = &client.get("/v1/operations").ok()["operations"][0];
    assert_eq!((&operation["act"], &operation["try"]), (&json!("retry"), &json!(1)), "{operation}");

    let group = client.get("/v1/failures").ok()["failures"][0]["fingerprint"].as_str().expect("a group").to_owned();
    at(&format!("failures/{group}"));
    browser.click("form[action$=resolve] button");
    browser.until("Reopen");
    assert_eq!(client.get(&format!("/v1/failures/{group}")).ok()["state"], "resolved");

    client
        .put("/v1/schedules/nightly", &json!({"task": "words/count", "every": "366d", "payload": {"text": "a"}}))
        .ok();
    at("schedules");
    browser.click("a.job");
    browser.until("None yet.");
    browser.fill("input[name=reason]", "a migration");
    browser.click("#pause button");
    browser.until("a migration");
    let schedule = || client.get("/v1/schedules/nightly").ok();
    assert_eq!((&schedule()["state"], &schedule()["pause"]["reason"]), (&json!("paused"), &json!("a migration")));
    browser.click("form[action$=resume] button");
    eventually("it goes on", || (schedule()["state"] == "active").then_some(()));
    browser.until("active");
    browser.click("form[action$=run] button");
    eventually("it leads to the job", || browser.address().contains("/jobs/").then_some(()));
    browser.until("succeeded");

    at("broadcasts");
    browser.fill("input[name=topic]", "document.saved");
    browser.fill("textarea[name=payload]", "{\"path\": \"a.md\", \"text\": \"# To be\"}");
    browser.click("form.fields button.primary");
    browser.until("replied");
    browser.until("To be");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let authors = client.get("/v1/audit").ok();
    assert!(authors["acts"].as_array().is_some_and(|acts| acts.len() >= 7), "each act is in the audit log: {authors}");
}

#[test]
fn an_open_page_shows_what_happens_and_outlives_a_restart() {
    // A port that was just free: the host comes back where it was.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let mut host = Setup::default().plugin("words").port(port).start();
    let client = host.client().clone();
    let browser = Browser::start();
    browser.open(&format!("{}/jobs", client.address()));
    browser.until("No jobs yet.");
    let slow = words(&client, &json!({"tenant": "acme", "text": "a b", "pause-ms": 3000}));
    browser.until("1 new");
    browser.click("#fresh");
    browser.until(&slow);
    browser.open(&format!("{}/jobs/{slow}", client.address()));
    browser.until("succeeded");
    browser.until("Result");

    browser.open(&format!("{}/jobs", client.address()));
    browser.until("succeeded");
    let row = format!("return document.querySelector('#j{slow} .st').innerText");
    browser.run(&format!("document.querySelector('#j{slow} input').click()"));
    host.kill();
    browser.until("not connected");
    host.start();
    browser.until("live");
    assert_eq!(browser.run(&row), "succeeded");
    let checked = format!("return document.querySelector('#j{slow} input').checked");
    assert_eq!(browser.run(&checked), true, "a selected row stays selected");
    // The forms have the mark of the process that is there now.
    let failed = failed(&client, 1);
    browser.open(&format!("{}/jobs/{}", client.address(), failed[0]));
    browser.until("live");
    host.kill();
    browser.until("not connected");
    host.start();
    browser.until("live");
    browser.click(".acts button.primary");
    eventually("the job was tried again", || {
        (client.get(&format!("/v1/jobs/{}", failed[0])).ok()["attempt"].as_u64() >= Some(2)).then_some(())
    });
}

#[test]
fn all_works_without_scripts_and_by_the_keyboard_alone() {
    let host = start();
    let client = host.client();
    let failed = failed(client, 2);
    let browser = Browser::start();
    browser.scripts(false);
    browser.open(&format!("{}/jobs?where=state:failed", client.address()));
    browser.until(&failed[0]);
    browser.click(&format!("input[value='{}']", failed[0]));
    browser.click("button[name=act][value=delete]");
    browser.until("Delete 1 job");
    browser.click("form.fields button.danger");
    eventually("the job is deleted", || (client.get(&format!("/v1/jobs/{}", failed[0])).status == 404).then_some(()));
    browser.open(&format!("{}/jobs/{}", client.address(), failed[1]));
    browser.click(".acts button.primary");
    eventually("the job was tried again", || {
        (client.get(&format!("/v1/jobs/{}", failed[1])).ok()["attempt"].as_u64() >= Some(2)).then_some(())
    });
    until_state(client, &failed[1], "failed");

    browser.scripts(true);
    browser.open(&format!("{}/jobs", client.address()));
    browser.until("live");
    browser.keys("/");
    browser.until_true("the filter has the focus", "return document.activeElement.id === 'search'");
    browser.keys("state:failed\u{e007}");
    browser.until_true("the filter is in the address", "return location.search.includes('state%3Afailed')");
    browser.until("live");
    browser.keys("jx");
    browser.until("1 selected");
    browser.keys("r");
    browser.until("Retry 1 job");
    browser.keys("gf");
    browser.until("Failures");
    browser.until_true("the page of failures", "return location.pathname === '/failures'");
    browser.keys("?");
    browser.until_true("the keys are shown", "return document.querySelector('#help').open");
}

#[test]
fn below_a_prefix_a_token_is_asked_for_once() {
    let host = Setup::default().plugin("words").token(TOKEN).start();
    let client = host.client();
    let failed = failed(client, 1);
    let proxy = ReverseProxy::before(client.address(), "/tools/wharf");
    let root = format!("{}/tools/wharf", proxy.address());
    let browser = Browser::start();
    browser.open(&format!("{root}/jobs/{}", failed[0]));
    browser.until("Token");
    browser.fill("#token", "wrong");
    browser.click("button.primary");
    browser.until("Wrong token");
    browser.complaints();
    browser.fill("#token", TOKEN);
    browser.click("button.primary");
    browser.until("Failed:");
    assert_eq!(browser.address(), format!("{root}/jobs/{}", failed[0]), "it leads to the page that was asked for");
    browser.until("live");
    browser.click(".acts button.primary");
    eventually("the job was tried again", || {
        (client.get(&format!("/v1/jobs/{}", failed[0])).ok()["attempt"].as_u64() >= Some(2)).then_some(())
    });
    for page in ["", "jobs", "failures", "limits", "plugins/words", "nodes", "operations", "audit"] {
        browser.open(&format!("{root}/{page}"));
        browser.until("Sign out");
        assert_eq!(browser.complaints(), Vec::<String>::new(), "{page}");
    }
    let api = browser.run(&format!(
        "const r = new XMLHttpRequest(); r.open('GET', '{root}/v1/jobs', false); r.send(); return r.status"
    ));
    assert_eq!(api, 401, "the cookie does not open the API");
    browser.open(&format!("{root}/jobs"));
    browser.click(".leave button");
    browser.until("Token");
    browser.open(&format!("{root}/jobs"));
    browser.until("Token");
}

#[test]
fn hostile_text_is_text_in_every_place() {
    let host = start();
    let client = host.client();
    // A payload, a key, a token, a log and a report: the plugin writes what it was given.
    let text = format!("{HOSTILE}\n{HOSTILE}");
    let body = json!({"task": "words/count", "payload": {"tenant": HOSTILE.replace('\u{202e}', ""), "text": text}, "token": "<script>x"});
    let id = client.post("/v1/jobs", &body).ok()["id"].as_str().expect("an ID").to_owned();
    until_state(client, &id, "succeeded");
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>window.hit=1</script></svg>";
    let odd = client.post_bytes("/v1/jobs?task=thumbnail%2Fmake", "application/octet-stream", svg).ok();
    let odd = odd["id"].as_str().expect("an ID").to_owned();
    until_state(client, &odd, "failed");
    client.post("/v1/holds", &json!({"key": "<script>window.hit=1</script>", "reason": HOSTILE})).ok();
    let browser = Browser::start();
    let query: String = HOSTILE.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let pages = [
        String::new(),
        "jobs".into(),
        format!("jobs?where=text:%22{query}%22"),
        format!("jobs?key={query}"),
        format!("jobs/{id}"),
        format!("jobs/{odd}"),
        "limits".into(),
        "failures".into(),
        "audit".into(),
        format!("audit?author={query}"),
        format!("run?like={id}"),
        format!("login?to={query}"),
        format!("bulk?act=retry&where=text:%22{query}%22"),
    ];
    for page in &pages {
        browser.open(&format!("{}/{page}", client.address()));
        browser.until_true("the page is complete", "return document.readyState === 'complete'");
        let severe = browser.complaints();
        assert!(!severe.iter().any(|line| line.contains("Content Security Policy")), "{page}: {severe:?}");
        assert_eq!(browser.run("return window.hit ?? null"), Value::Null, "{page}");
        assert_eq!(
            browser.run("return document.querySelectorAll('img:not(.picture), main script').length"),
            0,
            "{page}"
        );
    }
    for bytes in [format!("jobs/{odd}/payload"), format!("jobs/{odd}/payload?as=picture"), format!("jobs/{id}/payload")]
    {
        browser.open(&format!("{}/{bytes}", client.address()));
        assert_eq!(browser.run("return window.hit ?? null"), Value::Null, "{bytes}");
    }
}

#[test]
fn a_slow_store_is_a_page_that_says_so() {
    const LOCKED: &str = "select pg_sleep(90)";
    let postgres = Postgres::start(false);
    let address = postgres.address();
    let schema = address.split("schema=").nth(1).expect("a schema");
    let host = Setup::default().plugin("words").database(&address).start();
    let client = host.client();
    let id = words(client, &json!({"tenant": "acme", "text": "a"}));
    until_state(client, &id, "succeeded");
    let lock = format!("begin; lock table {schema}.jobs in access exclusive mode; {LOCKED}");
    std::thread::scope(|threads| {
        let locking = threads.spawn(|| postgres.sql(&lock));
        let page = eventually("the store is slow, and the page says so", || {
            let page = client.get(&format!("/jobs/{id}"));
            let text = String::from_utf8_lossy(&page.body).into_owned();
            // No advice from what is not known.
            (page.status == 503 && text.contains("the store does not answer")).then_some((page.content_type, text))
        });
        assert!(page.0.starts_with("text/html") && page.1.contains("Try again"), "{}", page.1);
        postgres.sql(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like '%{LOCKED}%' and pid <> pg_backend_pid()"
        ));
        // It was ended: its statements have failed.
        assert!(locking.join().is_err());
    });
    eventually("the page is there again", || (client.get(&format!("/jobs/{id}")).status == 200).then_some(()));
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
    let host = Setup::default().plugin("words").start();
    let client = host.client();
    let id = failed(client, 1).remove(0);
    let page = client.get(&format!("/jobs/{id}"));
    let text = String::from_utf8_lossy(&page.body).into_owned();
    let mark = text.split("name=\"mark\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a mark");
    let send = |mark: &str, site: &str| {
        let address = format!("{}/jobs/{id}/retry", client.address());
        let sent = agent.post(&address).header("sec-fetch-site", site).send_form([("mark", mark)]);
        sent.expect("an answer").status().as_u16()
    };
    let attempt = || client.get(&format!("/v1/jobs/{id}")).ok()["attempt"].clone();
    assert_eq!(
        [send(mark, "cross-site"), send(mark, "same-site"), send("", "same-origin"), send("x", "none")],
        [403; 4]
    );
    assert_eq!(attempt(), 1, "nothing was changed");
    assert_eq!(send(mark, "same-origin"), 303);
    eventually("the job was tried again", || (attempt() == 2).then_some(()));

    // A link on another site comes without a strict cookie: the page loads itself once, and then comes with it.
    let host = Setup::default().plugin("words").token(TOKEN).start();
    let open = |site: &str| {
        let address = format!("{}/jobs", host.client().address());
        let link = agent.get(&address).header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
        let mut answer = link.header("sec-fetch-site", site).call().expect("an answer");
        let location = answer.headers().get("location").map(|to| to.to_str().expect("text").to_owned());
        (answer.status().as_u16(), location, answer.body_mut().read_to_string().expect("text"))
    };
    let (status, _, text) = open("cross-site");
    assert!(status == 200 && text.contains("http-equiv=\"refresh\"") && !text.contains("words"), "{text}");
    let (status, location, _) = open("same-origin");
    assert_eq!((status, location.as_deref()), (303, Some("./login?to=jobs")));

    // A page of another site gets nothing to read, and holds no stream.
    let fetched = agent.get(format!("{}/live/jobs", client.address())).header("sec-fetch-site", "cross-site").call();
    assert_eq!(fetched.expect("an answer").status(), 403);
    // The sign-in of a proxy is no token: it does not keep anyone from the page that asks for one.
    let login = |authorization: &str| {
        let address = format!("{}/login", host.client().address());
        agent.get(&address).header("authorization", authorization).call().expect("an answer").status().as_u16()
    };
    assert_eq!([login("Basic eDp5"), login("Bearer wrong-token-of-some-length")], [200; 2]);
}
