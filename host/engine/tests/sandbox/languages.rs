//! Subscribers in the languages; what their jobs do is held from outside, in `tests/integration/languages.rs`.

use wharf_core::outcome::{Failure, Outcome};

use crate::scene::{Scene, assert_returned, message};

async fn answers(plugin: &'static str, language: &str) {
    let scene = Scene::new(4);
    let words = scene.load(plugin).await;
    assert_eq!(words.manifest.topics.iter().map(|topic| topic.as_str()).collect::<Vec<_>>(), ["text.written"]);
    let receive = async |payload: &str| scene.run(&words, message(&words, "text.written", payload)).await.0;
    let told = assert_returned(&receive(r#"{"text": "to be\nor not\u3000to be"}"#).await);
    assert_eq!(told, format!("{{\"words\":6,\"language\":\"{language}\"}}\n"));
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
