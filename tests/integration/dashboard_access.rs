//! Who gets into the dashboard and how: names behind proxies, tokens with few scopes, sessions, and addresses that have no page.

use std::io::Read as _;

use serde_json::{Value, json};

use crate::dashboard::{failed, until_state, words};
use crate::harness::{Browser, Client, Host, ReverseProxy, Setup, eventually, wharf};

const TOKEN: &str = "a-token-of-some-length";
/// The name under which users know the host.
const NAME: &str = "jobs.example.com";

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into()
}

/// An answer of a host: its status, its type, where it leads, and its text.
struct Page {
    status: u16,
    kind: String,
    location: Option<String>,
    cookie: Option<String>,
    text: String,
}

/// Sends a request as a browser does that has this cookie; with a form it is a POST.
fn browse(address: &str, cookie: Option<&str>, form: Option<&[(&str, &str)]>) -> Page {
    let (accept, cookie) = ("text/html,application/xhtml+xml;q=0.9", cookie.unwrap_or("none=1"));
    let sent = match form {
        Some(form) => agent().post(address).header("accept", accept).header("cookie", cookie).send_form(form.to_vec()),
        None => agent().get(address).header("accept", accept).header("cookie", cookie).call(),
    };
    let mut answer = sent.expect("an answer");
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
    let (kind, location) = (header("content-type").unwrap_or_default(), header("location"));
    let cookie = header("set-cookie").and_then(|cookie| Some(cookie.split(';').next()?.to_owned()));
    let text = answer.body_mut().read_to_string().expect("text");
    Page { status: answer.status().as_u16(), kind, location, cookie, text }
}

/// The mark of the forms of a page.
#[track_caller]
fn mark(page: &Page) -> &str {
    page.text.split("name=\"mark\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a mark")
}

/// Signs in, and returns the cookie.
#[track_caller]
fn sign_in(host: &Host, token: &str) -> String {
    let address = format!("{}/login", host.client().address());
    let asked = browse(&address, None, None);
    let signed_in = browse(&address, None, Some(&[("mark", mark(&asked)), ("token", token), ("to", "")]));
    assert_eq!(signed_in.status, 303, "{}", signed_in.text);
    signed_in.cookie.expect("a cookie")
}

/// Signs a browser in that knows the host by its public name, and returns what the browser knows of the cookie.
#[track_caller]
fn cookie_of(proxy: &ReverseProxy) -> Value {
    let root = proxy.address().replace("127.0.0.1", NAME) + "/wharf/";
    let browser =
        Browser::start_with(&[&format!("--host-resolver-rules=MAP {NAME} 127.0.0.1"), "--ignore-certificate-errors"]);
    browser.open(&root);
    browser.until("Token");
    browser.fill("#token", TOKEN);
    browser.click("button.primary");
    browser.until("Overview");
    browser.until("live");
    assert_eq!(browser.address(), root);
    let cookies = browser.command("Network.getCookies", json!({}))["cookies"].clone();
    // An act, too: its form comes from the name that the browser knows.
    browser.open(&format!("{root}limits"));
    browser.fill("input[name=name]", "acme");
    browser.click("#holds form button.primary");
    browser.until("no end");
    cookies[0].clone()
}

#[test]
fn behind_an_encrypted_public_name_the_cookie_stays_on_encrypted_connections() {
    let host =
        Setup::default().plugin("words").token(TOKEN).top("public-url = 'https://jobs.example.com/wharf'").start();
    let proxy = ReverseProxy::encrypted_before(host.client().address(), "/wharf");
    let cookie = cookie_of(&proxy);
    let of = |name: &str| cookie[name].clone();
    assert_eq!(
        [of("secure"), of("httpOnly"), of("sameSite"), of("path")],
        [json!(true), json!(true), json!("Strict"), json!("/wharf")]
    );
}

#[test]
fn behind_a_public_name_without_encryption_forms_are_known_by_what_the_proxy_passes_on() {
    let host = Setup::default().plugin("words").token(TOKEN).start();
    let proxy = ReverseProxy::of_dashboard_before(host.client().address(), "/wharf");
    assert_eq!(cookie_of(&proxy)["secure"], false, "a browser would not send it");
}

#[test]
fn an_address_without_a_page_is_a_page_for_browsers_and_a_document_for_programs() {
    let host = Setup::default().plugin("words").start();
    let at = |path: &str| browse(&format!("{}{path}", host.client().address()), None, None);
    for (path, status) in [("/no/such/page", 404), ("/jobs/%FF", 400), ("/live/operations/%FF", 400), ("/login/x", 404)]
    {
        let page = at(path);
        assert_eq!((page.status, page.kind.as_str()), (status, "text/html; charset=utf-8"), "{path}");
    }
    assert!(at("/no/such/page").text.contains("href=\"../../jobs\""), "the page leads on");
    let posted = browse(&format!("{}/nodes", host.client().address()), None, Some(&[("a", "b")]));
    assert_eq!((posted.status, posted.kind.as_str()), (405, "text/html; charset=utf-8"));
    for path in ["/v1/nothing", "/v1", "/v1/jobs/0000000000000"] {
        assert_eq!(at(path).kind, "application/problem+json", "{path}");
    }
    assert_eq!(host.client().get("/no/such/page").json()["code"], "route-unknown", "a program did not ask for a page");

    // Who must sign in does not learn which addresses there are.
    let host = Setup::default().plugin("words").token(TOKEN).start();
    let stranger = browse(&format!("{}/no/such/page", host.client().address()), None, None);
    assert_eq!((stranger.status, stranger.location.as_deref()), (303, Some("../../login?to=no%2Fsuch%2Fpage")));
    assert_eq!(Client::new(host.client().address()).get("/no/such/page").status, 401);
}

#[test]
fn a_sign_out_ends_the_streams_of_the_session_and_its_cookie() {
    let host = Setup::default().plugin("words").token(TOKEN).start();
    let (cookie, other) = (sign_in(&host, TOKEN), sign_in(&host, TOKEN));
    let at = |path: &str| format!("{}{path}", host.client().address());
    let page = browse(&at("/jobs"), Some(&cookie), None);
    assert_eq!(page.status, 200);
    let stream = agent().get(at("/live/health")).header("cookie", &cookie).call().expect("a stream");
    assert_eq!(stream.status(), 200);
    let reading = std::thread::spawn(move || {
        let mut all = String::new();
        // Without an end it would read for ever, and the test would not end.
        stream.into_body().into_reader().read_to_string(&mut all).map(|_| all)
    });
    let out = browse(&at("/logout"), Some(&cookie), Some(&[("mark", mark(&page))]));
    assert_eq!(out.status, 303, "{}", out.text);
    let events = reading.join().expect("no panic").expect("the stream ended in order");
    assert!(events.starts_with("event: hello"), "{events}");
    assert_eq!(browse(&at("/jobs"), Some(&cookie), None).status, 303, "it leads to the sign-in");
    assert_eq!(browse(&at("/jobs"), Some(&other), None).status, 200, "another session of the same token goes on");
    // A form that came too late was not done, and the page says so.
    let late = browse(&at("/holds"), Some(&cookie), Some(&[("mark", mark(&page)), ("kind", "all")]));
    assert_eq!(late.location.as_deref(), Some("./login?undone=yes"));
    assert!(browse(&at("/login?undone=yes"), None, None).text.contains("was not done"));
    assert_eq!(host.client().get("/v1/holds").ok()["holds"], json!([]));
}

#[test]
fn a_token_with_few_scopes_is_led_to_what_it_may_open_and_nowhere_else() {
    let (mut settings, mut tokens) = (String::new(), Vec::new());
    for (name, rights) in [
        ("runner", "can = ['enqueue:words/count']"),
        ("caller", "can = ['broadcast:document.*']"),
        ("tenant", "can = ['read']\nkey = 'acme'"),
    ] {
        let made = wharf().args(["token", "new", name, "--json"]).output().expect("the command runs");
        let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
        settings.push_str(&format!("[[tokens]]\nname = '{name}'\nhash = {}\n{rights}\n", made["hash"]));
        tokens.push(made["token"].as_str().expect("a token").to_owned());
    }
    let host = Setup::default().plugin("words").plugin("summary").settings(&settings).token(TOKEN).start();
    let at = |path: &str| format!("{}{path}", host.client().address());
    let pages =
        ["jobs", "failures", "limits", "schedules", "plugins", "nodes", "operations", "audit", "run", "broadcasts"];
    // What the navigation names, of what there is; each is open.
    let named = |cookie: &str, page: &str| {
        let shown = browse(&at(page), Some(cookie), None);
        assert_eq!(shown.status, 200, "{page}: {}", shown.text);
        let side = shown
            .text
            .split("<nav class=\"side\"")
            .nth(1)
            .and_then(|rest| rest.split("</nav>").next())
            .expect("a side");
        let is_named =
            |name: &&&str| side.contains(&format!("href=\"./{name}\"")) || side.contains(&format!("href=\"./{name}?"));
        let named: Vec<&str> = pages.iter().filter(is_named).copied().collect();
        for name in &named {
            assert_eq!(browse(&at(&format!("/{name}")), Some(cookie), None).status, 200, "{name}");
        }
        named.join(" ")
    };
    let [runner, caller, tenant] = [0, 1, 2].map(|at| sign_in(&host, &tokens[at]));
    assert_eq!(browse(&at("/"), Some(&runner), None).location.as_deref(), Some("./run"));
    assert_eq!(named(&runner, "/run"), "run");
    assert_eq!(browse(&at("/"), Some(&caller), None).location.as_deref(), Some("./broadcasts"));
    assert_eq!(named(&caller, "/broadcasts"), "broadcasts");
    assert_eq!(browse(&at("/"), Some(&tenant), None).location.as_deref(), Some("./jobs"));
    assert_eq!(named(&tenant, "/jobs"), "jobs");

    let page = browse(&at("/broadcasts"), Some(&caller), None);
    assert!(!page.text.contains("Subscribers"), "which plugins there are is not its matter: {}", page.text);
    let payload = "{\"path\": \"a\", \"text\": \"b\"}";
    let form = [("mark", mark(&page)), ("topic", "document.saved"), ("how", "durable"), ("payload", payload)];
    let sent = browse(&at("/broadcasts"), Some(&caller), Some(&form));
    assert!(sent.status == 200 && sent.text.contains("enqueued"), "{}", sent.text);
    for path in ["/jobs", "/limits", "/live/overview", "/schedules"] {
        let refused = browse(&at(path), Some(&caller), None);
        assert!(refused.status == 403 && !refused.text.contains("To the jobs"), "{path}: {}", refused.text);
    }
}

#[test]
fn the_stream_of_an_operation_ends_with_the_operation() {
    let host = Setup::default().plugin("words").start();
    let client = host.client();
    let started = client.post("/v1/operations", &json!({"act": "retry", "where": "state:cancelled"})).ok();
    let id = started["id"].as_str().expect("an ID");
    eventually("it is done", || (client.get(&format!("/v1/operations/{id}")).ok()["state"] == "done").then_some(()));
    // It is read to its end.
    let stream = client.get(&format!("/live/operations/{id}"));
    let events = String::from_utf8_lossy(&stream.body).into_owned();
    assert!(events.contains("\"id\":\"operation\"") && events.ends_with("event: end\ndata: null\n\n"), "{events}");
}

/// A visitor clicks twice: the same form comes twice.
#[test]
fn a_form_for_many_jobs_that_is_sent_twice_starts_one_operation() {
    let host = Setup::default().plugin("words").start();
    let at = |path: &str| format!("{}{path}", host.client().address());
    host.enqueue_with(json!({ "task": "words/count", "payload": { "text": "a" }, "delay": "1h" }));
    let page = browse(&at("/bulk?act=cancel&where=plugin:words"), None, None);
    let field = |name: &str| {
        let value =
            page.text.split(&format!("name=\"{name}\" value=\"")).nth(1).and_then(|rest| rest.split('"').next());
        value.unwrap_or_else(|| panic!("no {name} in {}", page.text)).to_owned()
    };
    let (filter, once) = (field("where"), field("once"));
    let form = [("mark", mark(&page)), ("act", "cancel"), ("where", filter.as_str()), ("once", once.as_str())];
    let sent: Vec<Option<String>> = (0..2).map(|_| browse(&at("/operations"), None, Some(&form)).location).collect();
    assert!(sent[0].is_some() && sent[0] == sent[1], "{sent:?}");
    let operations = host.client().get("/v1/operations").ok();
    assert_eq!(operations["operations"].as_array().map(Vec::len), Some(1), "{operations}");
    let other = browse(&at("/bulk?act=cancel&where=plugin:words"), None, None);
    assert!(!other.text.contains(&once), "the next form is another one");
}

#[test]
fn a_token_sees_and_does_what_its_scopes_say() {
    let (mut settings, mut tokens) = (String::new(), Vec::new());
    for (name, rights) in [("reader", "can = ['read']"), ("tenant", "can = ['operate']\nkey = 'acme'")] {
        let made = wharf().args(["token", "new", name, "--json"]).output().expect("the command runs");
        let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
        settings.push_str(&format!("[[tokens]]\nname = '{name}'\nhash = {}\n{rights}\n", made["hash"]));
        tokens.push(made["token"].as_str().expect("a token").to_owned());
    }
    let host = Setup::default().plugin("words").settings(&settings).token(TOKEN).start();
    let client = host.client();
    let own = failed(client, 1).remove(0);
    let other = words(client, &json!({"tenant": "globex", "text": "x", "fail": "discard"}));
    until_state(client, &other, "failed");
    let as_token = |token: &str| Client::new(client.address()).with_token(Some(token));
    let (reader, tenant) = (as_token(&tokens[0]), as_token(&tokens[1]));
    let page = |client: &Client, path: &str| {
        let reply = client.get(path);
        (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
    };
    let (status, text) = page(&reader, &format!("/jobs/{own}"));
    assert!(status == 200 && !text.contains("/retry\"") && !text.contains("Audit"), "{text}");
    let (_, text) = page(&reader, "/plugins/words");
    assert!(text.contains("shown to a token that is `admin`"), "{text}");
    let (status, text) = page(&reader, "/limits");
    assert!(status == 200 && !text.contains("<form class=\"fields\""), "{text}");
    assert_eq!(page(&reader, "/audit").0, 403);
    assert_eq!(page(&reader, "/run").0, 403);
    assert_eq!(page(&tenant, &format!("/jobs/{own}")).0, 200);
    assert_eq!(page(&tenant, &format!("/jobs/{other}")).0, 404);
    assert_eq!(page(&tenant, &format!("/jobs/{other}/payload")).0, 404);
    let (_, list) = page(&tenant, "/jobs");
    assert!(list.contains(&own) && !list.contains(&other) && !list.contains("globex"), "{list}");
    for path in ["/failures", "/limits", "/plugins", "/nodes", "/operations", "/broadcasts", "/live/overview"] {
        assert_eq!(page(&tenant, path).0, 403, "{path}");
    }
    // Without the mark of a form, nothing is changed.
    let bare = client.post_bytes(&format!("/jobs/{own}/retry"), "application/x-www-form-urlencoded", b"");
    assert_eq!(bare.status, 403);
    assert_eq!(client.get(&format!("/v1/jobs/{own}")).ok()["attempt"], 1);
}
