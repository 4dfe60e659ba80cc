//! Finding jobs on a running host: by what they are, by why they failed, by what is in their payload.

use serde_json::{Value, json};

use crate::harness::{Client, Host, Setup, resolve};

/// Returns the IDs of all jobs that meet a filter, page by page.
fn find(client: &Client, query: &str) -> Vec<String> {
    let (mut path, mut found) = (format!("/v1/jobs?{query}"), Vec::new());
    loop {
        let page = client.get(&path).ok();
        assert!(page["looked_at"].is_u64(), "{page}");
        let jobs = page["jobs"].as_array().expect("a list");
        found.extend(jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()));
        match page["next"].as_str() {
            Some(next) => path = resolve(&path, next),
            None => return found,
        }
    }
}

fn enqueue(host: &Host, key: &str, payload: Value) -> String {
    host.enqueue_with(json!({ "task": "villain/do", "key": key, "payload": payload }))
}

#[test]
fn jobs_are_found_by_filters_on_the_page_and_on_the_command_line() {
    let host = Setup::default().plugin("villain").start();
    let trapped = enqueue(&host, "acme", json!({ "do": "trap", "tenant": 42 }));
    let done = enqueue(&host, "acme", json!({ "do": "sleep", "ms": 0, "tenant": 42 }));
    let other = enqueue(&host, "other", json!({ "do": "sleep", "ms": 0, "tenant": 7 }));
    for id in [&trapped, &done, &other] {
        host.finished(id);
    }
    let later = host.enqueue_with(json!({ "task": "villain/do", "payload": {}, "delay": "1h" }));
    host.client().post("/v1/holds", &json!({ "key": "held" })).ok();
    let held = enqueue(&host, "held", json!({ "do": "sleep", "ms": 0 }));
    let all = [&held, &later, &other, &done, &trapped].map(Clone::clone);

    assert_eq!(find(host.client(), "limit=2"), all);
    for (query, found) in [
        ("where=payload.%2Ftenant%3D42", vec![&done, &trapped]),
        ("where=payload.%2Ftenant%3D42%20state:failed", vec![&trapped]),
        ("outcome=trapped", vec![&trapped]),
        ("state=failed,succeeded&key=acme", vec![&done, &trapped]),
        ("state=held", vec![&held]),
        ("state=delayed,ready", vec![&later]),
        ("plugin=villain&since=2h&state=waiting", vec![&held, &later]),
        ("until=2h", vec![]),
        ("text=UNREACHABLE&limit=1", vec![&trapped]),
        ("where=id:0000000000001", vec![]),
    ] {
        assert_eq!(find(host.client(), query).iter().collect::<Vec<_>>(), found, "{query}");
    }
    let digest =
        host.client().get("/v1/plugins/villain").ok()["loaded"]["digest"].as_str().expect("a digest").to_owned();
    for (query, found) in [
        (format!("digest={}", &digest[..12]), vec![&trapped]),
        (format!("where=digest:{digest}%20state:succeeded"), vec![]),
        ("digest=0000000000000000".to_owned(), vec![]),
    ] {
        assert_eq!(find(host.client(), &query).iter().collect::<Vec<_>>(), found, "{query}");
    }
    let short = host.client().get("/v1/jobs?digest=abc");
    assert!(
        short.status == 400 && short.json()["detail"].as_str().is_some_and(|why| why.contains("8 to 64")),
        "{short:?}"
    );
    let mut ended = find(host.client(), "order=finished&limit=1");
    ended.sort();
    let mut finished = vec![trapped.clone(), done.clone(), other.clone()];
    finished.sort();
    assert_eq!(ended, finished);

    let list = |args: &[&str]| {
        let output = host.cli(&[&["job", "list"], args].concat()).output().expect("the command runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().skip(1).map(|line| line.split(' ').next().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(&["--where", "payload./tenant=42 state:failed"]), std::slice::from_ref(&trapped));
    assert_eq!(list(&["--state", "held,delayed", "--limit", "1"]), std::slice::from_ref(&held));
    let wrong = host.cli(&["job", "list", "--where", "stat:failed"]).output().expect("the command runs");
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("did you mean `state`?"), "{said}");
    let mixed = host.client().get(&format!("/v1/jobs?order=finished&before={done}"));
    assert_eq!((mixed.status, mixed.json()["code"].as_str()), (400, Some("bad-request")), "{mixed:?}");
}
