//! `wharf new --plain`: in each language a project without a mention of Wharf, built by that language's ordinary command, is a task.

use plugin_kit::language::Language;
use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually};
use crate::project::Project;

const TEXT: &str = "to be\nor not";

/// Makes the project, builds it by the command that says `ordinary`, and drops the file into the folder of a host that runs.
fn dropped(language: Language, ordinary: &str) -> Host {
    let project = Project::plain(language);
    let build =
        ["build.sh", "package.json"].map(|file| std::fs::read_to_string(project.file(file)).unwrap_or_default());
    assert!(build.concat().contains(ordinary), "{language}: {build:?}");
    project.build();
    let host = Setup::default().start();
    project.drop_into(&host);
    host
}

fn assert_counted(host: &Host, job: &Value) {
    assert_eq!(job["state"], "succeeded", "{job}");
    let counted = json!({ "lines": 2, "words": 4, "characters": 12 });
    assert_eq!(host.result(job["id"].as_str().expect("an id")), counted);
}

fn fails_with_its_words(host: &Host, id: &str) {
    eventually("its error is its failure", || host.job(id).to_string().contains("the text is empty").then_some(()));
}

fn a_function_is_a_task(language: Language, ordinary: &str) {
    let host = dropped(language, ordinary);
    assert_counted(&host, &host.run("shout/count", json!({ "text": TEXT })));
    fails_with_its_words(&host, &host.enqueue("shout/count", json!({ "text": "" })));
    let wrong = host.client().post("/v1/jobs", &json!({ "task": "shout/count", "payload": { "text": 1 } }));
    assert_eq!(wrong.status, 422, "{language}: {wrong:?}");
}

fn a_program_is_a_task(language: Language, ordinary: &str) {
    let host = dropped(language, ordinary);
    let enqueue = |input: &[u8]| {
        let reply = host.client().post_bytes("/v1/jobs?task=shout/run", "application/octet-stream", input);
        reply.ok()["id"].as_str().expect("an id").to_owned()
    };
    assert_counted(&host, &host.finished(&enqueue(TEXT.as_bytes())));
    let failing = enqueue(b"");
    fails_with_its_words(&host, &failing);
    assert!(host.job(&failing).to_string().contains("exit status 65"), "{language}: {}", host.job(&failing));
}

#[test]
fn rust_s_function_is_a_task() {
    a_function_is_a_task(Language::Rust, "cargo build --release --target wasm32-wasip2");
}

#[test]
fn javascript_s_function_is_a_task() {
    a_function_is_a_task(Language::JavaScript, "componentize-qjs ");
}

#[test]
fn typescript_s_function_is_a_task() {
    a_function_is_a_task(Language::TypeScript, "tsc && esbuild ");
}

#[test]
fn javascript_s_function_with_the_functions_of_the_web_is_a_task() {
    a_function_is_a_task(Language::JavaScriptWeb, "componentize-js ");
}

#[test]
fn python_s_function_is_a_task() {
    a_function_is_a_task(Language::Python, "componentize-py ");
}

#[test]
fn go_s_program_is_a_task() {
    a_program_is_a_task(Language::Go, "GOOS=wasip1 GOARCH=wasm go build ");
}

#[test]
fn c_s_program_is_a_task() {
    a_program_is_a_task(Language::C, "zig cc");
}
