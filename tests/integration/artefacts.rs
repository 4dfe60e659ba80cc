//! Programs that nobody here wrote, as registries have them: an interpreter, a bundler, renderers. Each goes the way of a user: copied
//! into the folder, checked, enqueued, through a crash of the host, and tried again where it fails.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, eventually_within};

/// A program, how it is called, and what comes out.
struct Program<'a> {
    id: &'a str,
    /// The arguments, as TOML.
    args: &'a str,
    input: &'a [u8],
    /// What a check says of the file.
    said: &'a str,
    is_right: fn(&[u8]) -> bool,
}

fn artefact(name: &str) -> PathBuf {
    plugins::artefacts::artefact(name).unwrap_or_else(|error| panic!("could not get {name}: {error:#}"))
}

fn enqueue(host: &Host, id: &str, input: &[u8]) -> String {
    let reply = host.client().post_bytes(&format!("/v1/jobs?task={id}/run"), "application/octet-stream", input);
    reply.ok()["id"].as_str().expect("an id").to_owned()
}

impl Program<'_> {
    fn assert_right(&self, host: &Host, job: &str) {
        let ended = host.finished(job);
        assert_eq!(ended["state"], "succeeded", "{}: {ended}", self.id);
        let result = host.client().get(&format!("/v1/jobs/{job}/result")).body;
        assert!((self.is_right)(&result), "{}: {}", self.id, String::from_utf8_lossy(&result));
    }

    /// The way of a user, from `cp` to a result.
    fn is_proven(&self) {
        let file = artefact(&format!("{}.wasm", self.id));
        let (id, args) = (self.id, self.args);
        let settings = format!(
            "[plugins.{id}.tasks.run]\nargs = {args}\ntimeout = \"5m\"\ncpu = \"2m\"\n\
             [plugins.{id}-wrong.tasks.run]\nargs = [\"--no-such-option\"]\nretry = {{ backoff = \"1s..1s\" }}\n"
        );
        let mut host = Setup::default().settings(&settings).start();
        for id in [id, &format!("{id}-wrong")] {
            std::fs::copy(&file, host.plugin_file(id)).expect("it is copied");
            // A cold compile of a large program, beside other tests, on few cores.
            eventually_within(Duration::from_secs(600), "it is loaded", || {
                host.client().get(&format!("/v1/plugins/{id}")).json()["loaded"].is_object().then_some(())
            });
        }
        let checked = host.cli(&["check", &host.plugin_file(id).display().to_string()]).output().expect("it starts");
        let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
        assert!(checked.status.success() && said.contains(self.said), "{id}: {said}");
        self.assert_right(&host, &enqueue(&host, id, self.input));
        let wrong = enqueue(&host, &format!("{id}-wrong"), b"");
        let status = || host.job(&wrong)["report"]["text"].as_str().map(str::to_owned);
        let report = eventually("it fails", status);
        assert!(report.contains("the program ended with exit status"), "{id}: {report}");
        // Whatever they are doing when the host dies.
        let jobs = [(); 3].map(|()| enqueue(&host, id, self.input));
        host.kill();
        host.start();
        eventually_within(Duration::from_secs(600), "it is ready", || host.is_ready().then_some(()));
        let before = failures(&host.job(&wrong));
        for job in &jobs {
            self.assert_right(&host, job);
        }
        eventually("it is tried again", || (failures(&host.job(&wrong)) > before.max(1)).then_some(()));
    }
}

fn failures(job: &Value) -> u64 {
    job["failures"].as_u64().unwrap_or_default()
}

const SVG: &[u8] = br#"<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle cx="32" cy="32" r="30" fill="teal"/></svg>"#;
const STATUS_LOST: &str = "note: its exit status does not reach the host";

#[test]
fn python_runs_a_script_that_is_the_payload() {
    Program {
        id: "python",
        args: r#"["-"]"#,
        input: b"import decimal, json, sys\nprint(json.dumps({'sum': str(sum(map(decimal.Decimal, ['0.1'] * 3))), 'version': sys.version_info[0]}))\n",
        said: "task python/run",
        is_right: |result| result == b"{\"sum\": \"0.3\", \"version\": 3}\n",
    }
    .is_proven();
}

#[test]
fn quickjs_runs_a_script_over_the_payload() {
    Program {
        id: "quickjs",
        args: r#"["--std", "-e", "const words = std.in.readAsString().split(' '); print(JSON.stringify(words.toSorted()))"]"#,
        input: b"to be or not",
        said: "task quickjs/run",
        is_right: |result| result == b"[\"be\",\"not\",\"or\",\"to\"]\n",
    }
    .is_proven();
}

/// Go's own program of 20 MB, which breaks behind the adapter for preview 1.
#[test]
fn esbuild_bundles_a_library_of_npm() {
    let library = std::fs::read(artefact("marked.esm.js")).expect("it is there");
    Program {
        id: "esbuild",
        args: r#"["--bundle", "--minify", "--format=iife", "--global-name=marked", "--legal-comments=none"]"#,
        input: &library,
        said: "task esbuild/run",
        is_right: |result| result.len() > 20_000 && result.windows(11).any(|part| part == b"var marked="),
    }
    .is_proven();
}

#[test]
fn usvg_simplifies_a_picture() {
    Program {
        id: "usvg",
        args: r#"["-", "-c"]"#,
        input: SVG,
        said: "task usvg/run",
        is_right: |result| result.starts_with(b"<svg") && result.windows(5).any(|part| part == b"<path"),
    }
    .is_proven();
}

#[test]
fn htmlq_finds_elements() {
    Program {
        id: "htmlq",
        args: r#"["-t", "p.a"]"#,
        input: br#"<html><p>no</p><p class="a">yes</p></html>"#,
        said: STATUS_LOST,
        is_right: |result| result == b"yes\n",
    }
    .is_proven();
}

#[test]
fn pulldown_cmark_renders_markdown() {
    Program {
        id: "pulldown-cmark",
        args: "[]",
        input: b"# To *be*\n",
        said: STATUS_LOST,
        is_right: |result| result == b"<h1>To <em>be</em></h1>\n",
    }
    .is_proven();
}

#[test]
fn resvg_draws_a_picture() {
    Program {
        id: "resvg",
        args: r#"["-", "-c"]"#,
        input: SVG,
        said: STATUS_LOST,
        is_right: |result| result.starts_with(b"\x89PNG\r\n\x1a\n") && result.len() > 400,
    }
    .is_proven();
}

/// A component whose functions are methods of a resource, which one function makes of a configuration.
#[test]
fn a_codec_is_made_for_each_job() {
    let mut host = Setup::default().settings("[plugins.zlib.tasks.encode]\nretry = { backoff = \"1s..1s\" }").start();
    std::fs::copy(artefact("zlib.wasm"), host.plugin_file("zlib")).expect("it is copied");
    eventually_within(Duration::from_secs(600), "it is loaded", || {
        host.client().get("/v1/plugins/zlib").json()["loaded"].is_object().then_some(())
    });
    let checked = host.cli(&["check", &host.plugin_file("zlib").display().to_string()]).output().expect("it starts");
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(
        checked.status.success() && said.contains("task zlib/encode") && said.contains("task zlib/decode"),
        "{said}"
    );
    let result = |host: &Host, task: &str, payload: &Value| {
        let job = host.run(task, payload.clone());
        assert_eq!(job["state"], "succeeded", "{job}");
        host.result(job["id"].as_str().expect("an id"))
    };
    let bytes = STANDARD.encode([7; 3000]);
    let array = json!({ "data": { "tag": "u8", "val": bytes }, "shape": [3000] });
    let encode = json!({ "config": "{\"level\": 6}", "data": array });
    let encoded = result(&host, "zlib/encode", &encode);
    assert!(encoded["shape"][0].as_u64().is_some_and(|length| length < 100), "{encoded}");
    let wrong = host.enqueue("zlib/encode", json!({ "config": "{\"level\": 77}", "data": array }));
    let report = eventually("it fails", || host.job(&wrong)["report"]["text"].as_str().map(str::to_owned));
    assert!(report.contains("\"message\""), "the error of what makes the codec: {report}");
    let later = host.enqueue_with(json!({ "task": "zlib/encode", "payload": encode, "delay": "1s" }));
    host.kill();
    host.start();
    eventually_within(Duration::from_secs(600), "it is ready", || host.is_ready().then_some(()));
    assert_eq!(host.finished(&later)["state"], "succeeded");
    assert_eq!(host.result(&later), encoded);
    assert_eq!(result(&host, "zlib/decode", &json!({ "config": "{\"level\": 6}", "encoded": encoded })), array);
}
