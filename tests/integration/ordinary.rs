//! Components that know nothing of Wharf, from outside: an existing program or function, copied into the folder, is a task.

use serde_json::{Value, json};

use crate::harness::{Host, Setup, component, eventually, wharf};

fn said(host: &Host, args: &[&str]) -> String {
    let output = host.cli(args).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "wharf {args:?}: {said}");
    said
}

fn again(host: &mut Host) {
    host.start();
    eventually("it is ready", || host.is_ready().then_some(()));
}

#[test]
fn a_program_that_is_copied_into_the_folder_runs_as_a_task() {
    let mut host = Setup::default().settings("[plugins.program.tasks.run]\nretry = { backoff = \"1s..1s\" }").start();
    std::fs::copy(component("program"), host.plugin_file("program")).expect("it is copied");
    eventually("it is loaded", || host.client().get("/v1/plugins/program").json()["loaded"].is_object().then_some(()));
    let result = said(&host, &["job", "enqueue", "program/run", "--input", "\"to be\"", "--wait"]);
    assert!(result.contains("\"TO BE\""), "{result}");
    let shown = said(&host, &["plugin", "show", "program"]);
    assert!(shown.contains("a program: the payload is standard input, standard output is the result"), "{shown}");
    assert!(shown.contains("set: retry by wharf.toml"), "{shown}");
    let document = host.client().get("/v1/plugins/program").ok();
    assert_eq!(document["loaded"]["tasks"][0]["kind"], "program", "{document}");
    // What was accepted is done after a crash.
    let id = host.enqueue_with(json!({ "task": "program/run", "payload": "later", "delay": "1s" }));
    host.kill();
    again(&mut host);
    let job = host.finished(&id);
    assert_eq!((job["state"].as_str(), job["result"].clone()), (Some("succeeded"), job["result"].clone()), "{job}");
    assert_eq!(host.result(&id), json!("LATER"));
}

/// Core modules of two compilers, as they come from these: nothing is packed.
#[test]
fn a_program_of_preview_1_runs_as_it_is() {
    let mut host = Setup::default()
        .settings("[plugins.program-go.tasks.run]\nargs = [\"--status\", \"75\"]\nretry = { backoff = \"1s..1s\" }")
        .start();
    for name in ["program-c", "program-go"] {
        std::fs::copy(component(name), host.plugin_file(name)).expect("it is copied");
        eventually("it is loaded", || {
            host.client().get(&format!("/v1/plugins/{name}")).json()["loaded"].is_object().then_some(())
        });
    }
    let result = said(&host, &["job", "enqueue", "program-c/run", "--input", "\"to be\"", "--wait"]);
    assert!(result.contains("\"TO BE\""), "{result}");
    let id = host.enqueue("program-go/run", json!("to be"));
    eventually("its first attempt ended", || host.job(&id).to_string().contains("exit status 75").then_some(()));
    let later = host.enqueue_with(json!({ "task": "program-c/run", "payload": "later", "delay": "1s" }));
    host.kill();
    again(&mut host);
    assert_eq!(host.finished(&later)["state"], "succeeded");
    assert_eq!(host.result(&later), json!("LATER"));
    eventually("it is tried again after the crash", || (host.job(&id)["failures"].as_u64() >= Some(2)).then_some(()));
}

/// In each language by its ordinary command, without a mention of Wharf.
#[test]
fn functions_of_other_languages_run_as_tasks() {
    let host = Setup::default().plugin("functions-js").plugin("functions-python").start();
    for name in ["functions-js", "functions-python"] {
        let job = host.run(&format!("{name}/count"), json!({ "text": "to be\nor not" }));
        assert_eq!(job["state"], "succeeded", "{job}");
        let counted = json!({ "lines": 2, "words": 4, "characters": 12 });
        assert_eq!(host.result(job["id"].as_str().expect("an id")), counted, "{name}");
        let id = host.enqueue(&format!("{name}/count"), json!({ "text": "" }));
        eventually("its error is its failure", || {
            host.job(&id).to_string().contains("the text is empty").then_some(())
        });
    }
}

#[test]
fn a_function_that_is_copied_into_the_folder_runs_as_a_task() {
    let mut host = Setup::default().plugin("functions").start();
    let run = |host: &Host, task: &str, payload: Value| {
        let job = host.run(task, payload);
        assert_eq!(job["state"], "succeeded", "{job}");
        job["id"].as_str().expect("an id").to_owned()
    };
    let id = run(&host, "functions/add", json!({ "a": 1, "b": 2 }));
    assert_eq!(host.result(&id), json!(3));
    // A task's name may have a dot, and bytes are bytes.
    let id = run(&host, "functions/world.reverse", json!({ "bytes": "/wBh" }));
    assert_eq!(host.client().get(&format!("/v1/jobs/{id}/result")).body, b"a\0\xff");
    let refused = host.client().post("/v1/jobs", &json!({ "task": "functions/add", "payload": { "a": "1", "b": 2 } }));
    assert_eq!(refused.status, 422, "{refused:?}");
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(text.contains("at `/a`: expected an integer from 0 to 4294967295"), "{text}");
    let document = host.client().get("/v1/plugins/functions").ok();
    let tasks = document["loaded"]["tasks"].as_array().expect("tasks");
    let area = tasks.iter().find(|task| task["task"] == "functions/area").expect("it is there");
    assert_eq!((&area["kind"], &area["result_schema"]["type"]), (&json!("function"), &json!("number")), "{area}");
    assert!(area["payload_schema"]["properties"]["of"].is_object(), "{area}");
    // An error is a failure with its text.
    let failing = host.enqueue("functions/area", json!({ "of": { "tag": "circle", "val": -1 } }));
    let job = host.in_state(&failing, "waiting");
    eventually("its first attempt ended", || {
        host.job(&failing).to_string().contains("the radius -1 is negative").then_some(())
    });
    host.kill();
    again(&mut host);
    assert_eq!(host.job(&failing)["id"], job["id"]);
    let id = run(&host, "functions/divide", json!({ "a": 1, "b": 4 }));
    assert_eq!(host.result(&id), json!(0.25));
}

#[test]
fn a_check_says_what_a_file_would_be() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let check = |name: &str| {
        let file = component(name).display().to_string();
        let output = wharf().args(["check", &file]).current_dir(dir.path()).output().expect("the binary starts");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let program = check("program");
    assert!(program.contains("would be loaded as `program`") && program.contains("task program/run"), "{program}");
    assert!(program.contains("note: its exit status does not reach the host"), "{program}");
    let functions = check("functions");
    for part in
        ["task functions/rows.reverse", "a function: payload and result are JSON", "result: bytes", "\"minimum\":0"]
    {
        assert!(functions.contains(part), "{part}: {functions}");
    }
    let call = |target: &str, input: &str| {
        let file = component("functions").display().to_string();
        let args = ["call", &format!("{file}#{target}"), "--input", input];
        wharf().args(args).current_dir(dir.path()).output().expect("the binary starts")
    };
    assert_eq!(call("world.reverse", r#"{"bytes": "/wBh"}"#).stdout, b"a\0\xff");
    let wrong = call("add", r#"{"a": 1}"#);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("the parameter `b` is missing"), "{wrong:?}");
}

#[test]
fn a_component_and_the_manifest_beside_it_are_one_version() {
    let host = Setup::default().start();
    let beside = host.plugin_file("program").with_extension("toml");
    let put = |text: &str| std::fs::write(&beside, text).expect("it can be written");
    let document = || host.client().get("/v1/plugins/program").json();
    let version = || document()["loaded"]["version"].as_str().map(str::to_owned);
    // Alone it does nothing.
    put("version = '1'\n[tasks.run]\nargs = ['--env', 'NONE']\n");
    std::fs::copy(component("program"), host.plugin_file("program")).expect("it is copied");
    eventually("the pair is loaded", || (version().as_deref() == Some("1")).then_some(()));
    let run = || {
        let job = host.run("program/run", json!("to be"));
        assert_eq!(job["state"], "succeeded", "{job}");
        host.client().get(&format!("/v1/jobs/{}/result", job["id"].as_str().expect("an id"))).body
    };
    assert_eq!(run(), b"none\n");
    let first = document()["loaded"]["digest"].clone();
    assert_eq!(document()["loaded"]["tasks"][0]["set_by"]["args"], "program.toml");
    // A half that is bad keeps the pair that runs.
    put("version = '2'\n[tasks.rum]\nargs = []\n");
    let refused = eventually("it is refused", || document()["refused"]["problems"][0].as_str().map(str::to_owned));
    assert!(
        refused.contains("program.toml: unknown task `rum`") && refused.contains("did you mean `run`?"),
        "{refused}"
    );
    assert_eq!((run(), document()["loaded"]["digest"].clone()), (b"none\n".to_vec(), first.clone()));
    put("version = '3'\n");
    eventually("the new pair is loaded", || (version().as_deref() == Some("3")).then_some(()));
    assert_eq!(run(), b"\"TO BE\"");
    assert_ne!(document()["loaded"]["digest"], first);
    // Without it the component is a version of its own.
    std::fs::remove_file(&beside).expect("it is there");
    eventually("it is loaded alone", || {
        let document = document();
        let (version, digest) = (document["loaded"]["version"].as_str()?, document["loaded"]["digest"].as_str()?);
        (version == &digest[..12]).then_some(())
    });
}
