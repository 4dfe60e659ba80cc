//! Tests subscribers and failures in each language; `tests/integration/languages.rs` tests the jobs from outside.

use wharf_core::outcome::{Failure, Outcome};

use crate::scene::{Scene, assert_returned, call, message};

async fn answers(plugin: &'static str, language: &str) {
    let scene = Scene::new(4);
    let words = scene.load(plugin).await;
    assert_eq!(words.manifest.topics.iter().map(|topic| topic.as_str()).collect::<Vec<_>>(), ["text.written"]);
    let receive = async |payload: &str| scene.run(&words, message(&words, "text.written", payload)).await.0;
    let shown = assert_returned(&receive(r#"{"text": "to be\nor not\u3000to be"}"#).await);
    assert_eq!(shown, format!("{{\"words\":6,\"language\":\"{language}\"}}\n"));
    for wrong in ["", "[]", r#"{"text": 7}"#, r#"{"txet": "a"}"#, "{\"text\": \"a\"", "no JSON"] {
        let ended = receive(wrong).await;
        let Outcome::Failed(Failure::Discard(why)) = &ended.outcome else {
            panic!("{plugin}: {wrong} is no text: {:?}", ended.outcome)
        };
        assert!(why.starts_with(r#"the payload is not {"text": "..."}: "#), "{plugin}, {wrong}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_answers_its_topic() {
    answers("words", "rust").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_answers_its_topic() {
    answers("words-js", "javascript").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_answers_its_topic() {
    answers("words-ts", "typescript").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_answers_its_topic() {
    answers("words-python", "python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn go_answers_its_topic() {
    answers("words-go", "go").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c_answers_its_topic() {
    answers("words-c", "c").await;
}

/// Checks that the report of an unexpected failure starts with the guest's own words, and has the trap in the second
/// line.
async fn explains(plugin: &'static str, order: &str, first: &str) {
    let scene = Scene::new(4);
    let words = scene.load(plugin).await;
    let (ended, _) = scene.run(&words, call(&words, "count", order)).await;
    let Outcome::Trapped(report) = &ended.outcome else { panic!("{plugin}: {:?}", ended.outcome) };
    let mut lines = report.lines();
    let own = lines.next().unwrap_or_default();
    assert!(own.starts_with(first), "{plugin}: {report}");
    assert!(lines.next().is_some_and(|line| line.starts_with("trapped: ")), "{plugin}: {report}");
    println!("{plugin}: {own}");
}

const PANIC: &str = r#"{"text": "a", "fail": "panic"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_rust_is_told_first() {
    explains("words", PANIC, "panicked at words/src/lib.rs:").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_of_python_is_told_first() {
    explains("words-python", PANIC, "RuntimeError: asked to panic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_of_javascript_is_told_first() {
    explains("words-js", PANIC, "cannot read property 'length' of null at fail (/build/words.js:").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_go_is_told_first() {
    explains("words-go", PANIC, "panic: asked to panic").await;
}
