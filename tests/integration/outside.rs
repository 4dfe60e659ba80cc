//! What handlers expect of their own standard library: the log, time, random numbers, the environment, files.
//! For Rust the engine's tests show the same with the villain.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::{Host, Setup};

/// A plugin that reaches for the world outside as it is told.
struct Reaching {
    guest: &'static str,
    /// QuickJS has no library for files.
    has_files: bool,
}

const PYTHON: Reaching = Reaching { guest: "outside-python", has_files: true };
const JAVASCRIPT: Reaching = Reaching { guest: "outside-js", has_files: false };
const GO: Reaching = Reaching { guest: "outside-go", has_files: true };

impl Reaching {
    fn does(&self, host: &Host, order: &Value) -> Value {
        let job = host.run(&format!("{}/do", self.guest), order.clone());
        assert_eq!(job["state"], "succeeded", "{}, {order}: {job}", self.guest);
        host.result(job["id"].as_str().expect("an id"))
    }

    fn is_refused(&self, host: &Host, order: &Value) -> String {
        let job = host.run(&format!("{}/do", self.guest), order.clone());
        let end = (job["state"].as_str(), job["report"]["outcome"].as_str());
        assert_eq!(end, (Some("failed"), Some("failed")), "{}, {order}: {job}", self.guest);
        job["report"]["text"].as_str().expect("a reason").to_owned()
    }

    fn has_a_log_time_and_random_numbers(&self) {
        let host = Setup::default().plugin(self.guest).start();
        let id = host.enqueue(&format!("{}/do", self.guest), json!({ "do": "say", "text": "hello" }));
        host.finished(&id);
        let mut said: Vec<(String, String)> = host
            .client()
            .events(&id, None)
            .filter(|event| event.kind == "log")
            .map(|event| (event.data["stream"].to_string(), event.data["line"].to_string()))
            .collect();
        said.sort();
        let line = |stream: &str| (format!("\"{stream}\""), "\"hello\"".to_owned());
        assert_eq!(said, [line("stderr"), line("stdout")], "{}", self.guest);

        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let time = self.does(&host, &json!({ "do": "time" })).as_f64().expect("seconds");
        assert!((now.as_secs_f64() - time).abs() < Duration::from_secs(60).as_secs_f64(), "{time} is now");
        // An interpreter begins as a copy of what it was when the plugin was built: its random numbers must not.
        let random = || self.does(&host, &json!({ "do": "random" }));
        let (one, other) = (random(), random());
        for (one, other) in one.as_array().expect("a list").iter().zip(other.as_array().expect("a list")) {
            assert_ne!(one, other, "{}", self.guest);
        }
    }

    fn reaches_what_is_granted_and_nothing_else(&self) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("a.txt"), "hello").expect("a file");
        let grants = format!(
            "[plugins.{0}]\nenv = {{ COLOUR = \"blue\" }}\ndirs = [{{ host = \"{1}\", guest = \"/in\" }}]\n\
             [plugins.{0}.tasks.do]\nretry = {{ attempts = 1 }}",
            self.guest,
            folder.path().display()
        );
        let host = Setup::default().plugin(self.guest).settings(&grants).start();
        assert_eq!(self.does(&host, &json!({ "do": "env" })), json!({ "COLOUR": "blue" }), "{}", self.guest);
        if self.has_files {
            assert_eq!(self.does(&host, &json!({ "do": "list", "path": "/in" })), json!(["a.txt"]));
            assert_eq!(self.does(&host, &json!({ "do": "read", "path": "/in/a.txt" })), json!("hello"));
            self.is_refused(&host, &json!({ "do": "write", "path": "/in/b.txt", "text": "x" }));
            self.is_refused(&host, &json!({ "do": "read", "path": "/etc/passwd" }));
            assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "{}", self.guest);
        }
    }

    fn has_nothing_that_was_not_granted(&self) {
        let host = Setup::default().plugin(self.guest).start();
        assert_eq!(self.does(&host, &json!({ "do": "env" })), json!({}), "{}", self.guest);
        if self.has_files {
            self.is_refused(&host, &json!({ "do": "list", "path": "/" }));
            self.is_refused(&host, &json!({ "do": "write", "path": "b.txt", "text": "x" }));
        }
    }

    fn all(&self) {
        self.has_a_log_time_and_random_numbers();
        self.reaches_what_is_granted_and_nothing_else();
        self.has_nothing_that_was_not_granted();
    }
}

#[test]
fn python_has_what_it_expects_as_granted() {
    PYTHON.all();
}

#[test]
fn javascript_has_what_it_expects_as_granted() {
    JAVASCRIPT.all();
}

#[test]
fn go_has_what_it_expects_as_granted() {
    GO.all();
}
