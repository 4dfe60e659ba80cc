//! What handlers expect of their own standard library, in Python: the log, time, random numbers, the environment, files.
//! For Rust the engine's tests show the same with the villain.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::{Host, Setup};

fn does(host: &Host, order: &Value) -> Value {
    let job = host.run("outside-python/do", order.clone());
    assert_eq!(job["state"], "succeeded", "{order}: {job}");
    host.result(job["id"].as_str().expect("an id"))
}

fn is_refused(host: &Host, order: &Value) -> String {
    let job = host.run("outside-python/do", order.clone());
    assert_eq!((job["state"].as_str(), job["report"]["outcome"].as_str()), (Some("failed"), Some("failed")), "{job}");
    job["report"]["text"].as_str().expect("a reason").to_owned()
}

#[test]
fn python_has_a_log_time_and_random_numbers() {
    let host = Setup::default().plugin("outside-python").start();
    let id = host.enqueue("outside-python/do", json!({ "do": "say", "text": "hello" }));
    host.finished(&id);
    let mut said: Vec<(String, String)> = host
        .client()
        .events(&id, None)
        .filter(|event| event.kind == "log")
        .map(|event| (event.data["stream"].to_string(), event.data["line"].to_string()))
        .collect();
    said.sort();
    let line = |stream: &str| (format!("\"{stream}\""), "\"hello\"".to_owned());
    assert_eq!(said, [line("stderr"), line("stdout")]);

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let time = does(&host, &json!({ "do": "time" })).as_f64().expect("seconds");
    assert!((now.as_secs_f64() - time).abs() < Duration::from_secs(60).as_secs_f64(), "{time} is now");
    // A plugin in Python begins as a copy of what it was when it was built: its random numbers must not.
    let random = || does(&host, &json!({ "do": "random" }));
    assert_ne!(random(), random());
}

#[test]
fn python_reaches_what_is_granted_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("a.txt"), "hello").expect("a file");
    let grants = format!(
        "[plugins.outside-python]\nenv = {{ COLOUR = \"blue\" }}\n\
         dirs = [{{ host = \"{}\", guest = \"/in\" }}]\n[plugins.outside-python.tasks.do]\nretry = {{ attempts = 1 }}",
        folder.path().display()
    );
    let host = Setup::default().plugin("outside-python").settings(&grants).start();
    assert_eq!(does(&host, &json!({ "do": "env" })), json!({ "COLOUR": "blue" }));
    assert_eq!(does(&host, &json!({ "do": "list", "path": "/in" })), json!(["a.txt"]));
    assert_eq!(does(&host, &json!({ "do": "read", "path": "/in/a.txt" })), json!("hello"));
    is_refused(&host, &json!({ "do": "write", "path": "/in/b.txt", "text": "x" }));
    is_refused(&host, &json!({ "do": "read", "path": "/etc/passwd" }));
}

#[test]
fn python_has_nothing_that_was_not_granted() {
    let host = Setup::default().plugin("outside-python").start();
    assert_eq!(does(&host, &json!({ "do": "env" })), json!({}));
    is_refused(&host, &json!({ "do": "list", "path": "/" }));
    is_refused(&host, &json!({ "do": "write", "path": "b.txt", "text": "x" }));
    assert!(is_refused(&host, &json!({ "do": "get", "url": "http://127.0.0.1:1/" })).contains("RequestDenied"));
}
