//! Public packages of three registries, each wrapped in a few lines as functions with types: what a team does with a library that it has.
//! The build of each project fetches its package. No source mentions Wharf.

use std::time::Duration;

use plugin_kit::language::Language;
use serde_json::{Value, json};

use crate::harness::{Setup, eventually, eventually_within};
use crate::project::Project;

/// A call of a function of the plugin.
type Call<'a> = (&'a str, Value);

/// From a build to a result, and through a crash of the host. `right` succeeds with a value, `wrong` fails with words.
fn is_proven(project: &Project, source: &str, right: (Call<'_>, Value), wrong: (Call<'_>, &str)) {
    for file in [source, "wit/world.wit"] {
        let text = std::fs::read_to_string(project.file(file)).expect("it is there");
        assert!(!text.to_lowercase().contains("wharf"), "{file}: {text}");
        assert!(text.lines().filter(|line| !line.trim().is_empty()).count() <= 22, "{file}: {text}");
    }
    project.build();
    let ((right, payload), result) = right;
    let ((wrong, unfit), words) = wrong;
    // Enough attempts for a slow start after the crash.
    let settings = format!("[plugins.shout.tasks.{wrong}]\nretry = {{ attempts = 1000, backoff = \"1s..1s\" }}");
    let mut host = Setup::default().settings(&settings).start();
    project.drop_into(&host);
    let checked = host.cli(&["check", &host.plugin_file("shout").display().to_string()]).output().expect("it starts");
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.status.success() && said.contains(&format!("task shout/{right}")), "{said}");

    let input = payload.to_string();
    let enqueued = host.cli(&["job", "enqueue", &format!("shout/{right}"), "--input", &input, "--wait"]).output();
    let enqueued = enqueued.expect("it starts");
    let printed = String::from_utf8_lossy(&enqueued.stdout).into_owned();
    assert!(enqueued.status.success(), "{}", String::from_utf8_lossy(&enqueued.stderr));
    assert_eq!(serde_json::from_str::<Value>(&printed).expect("JSON"), result);

    let failing = host.enqueue(&format!("shout/{wrong}"), unfit);
    eventually("its error is its failure", || host.job(&failing).to_string().contains(words).then_some(()));
    let later = host.enqueue_with(json!({ "task": format!("shout/{right}"), "payload": payload, "delay": "1s" }));
    host.kill();
    host.start();
    eventually_within(Duration::from_secs(600), "it is ready", || host.is_ready().then_some(()));
    assert_eq!(host.finished(&later)["state"], "succeeded");
    assert_eq!(host.result(&later), result);
    let before = host.job(&failing)["failures"].as_u64();
    eventually("it is tried again", || (host.job(&failing)["failures"].as_u64() > before).then_some(()));
}

#[test]
fn a_crate_becomes_a_function() {
    let project = Project::plain(Language::Rust);
    project.replace("Cargo.toml", "[dependencies]\n", "[dependencies]\ncsv = \"=1.4.0\"\n");
    project.put(
        "wit/world.wit",
        "package example:functions;\n\nworld functions {\n    \
         export rows: func(text: string, delimiter: option<char>) -> result<list<list<string>>, string>;\n}\n",
    );
    project.put(
        "src/lib.rs",
        r#"wit_bindgen::generate!({ path: "wit" });

struct Functions;

impl Guest for Functions {
    fn rows(text: String, delimiter: Option<char>) -> Result<Vec<Vec<String>>, String> {
        let delimiter = u8::try_from(delimiter.unwrap_or(',')).map_err(|error| error.to_string())?;
        let mut reader = csv::ReaderBuilder::new().has_headers(false).delimiter(delimiter).from_reader(text.as_bytes());
        reader.deserialize().collect::<Result<_, _>>().map_err(|error| error.to_string())
    }
}

export!(Functions);
"#,
    );
    is_proven(
        &project,
        "src/lib.rs",
        (("rows", json!({ "text": "a;\"b;c\"\nd;e\n", "delimiter": ";" })), json!([["a", "b;c"], ["d", "e"]])),
        (("rows", json!({ "text": "a,b\nc\n" })), "found record with 1 fields"),
    );
}

#[test]
fn a_package_of_npm_becomes_functions() {
    let project = Project::plain(Language::JavaScript);
    project.run("npm install diff@8.0.2");
    project.put(
        "wit/world.wit",
        "package example:functions;\n\ninterface texts {\n  enum kind { kept, added, removed }\n  \
         record change { kind: kind, text: string }\n  \
         changes: func(before: string, after: string) -> list<change>;\n  \
         patched: func(text: string, patch: string) -> result<string, string>;\n}\n\n\
         world functions {\n  export texts;\n}\n",
    );
    project.put(
        "functions.js",
        r#"import { applyPatch, diffLines } from "diff";

const kind = ({ added, removed }) => (added ? "added" : removed ? "removed" : "kept");

export const texts = {
  changes: (before, after) => diffLines(before, after).map((part) => ({ kind: kind(part), text: part.value })),
  patched(text, patch) {
    const result = applyPatch(text, patch);
    if (result === false) throw "the patch does not fit the text";
    return result;
  },
};
"#,
    );
    is_proven(
        &project,
        "functions.js",
        (
            ("changes", json!({ "before": "a\nb\n", "after": "a\nc\n" })),
            json!([
                { "kind": "kept", "text": "a\n" }, { "kind": "removed", "text": "b\n" }, { "kind": "added", "text": "c\n" }
            ]),
        ),
        (
            ("patched", json!({ "text": "x\n", "patch": "--- a\n+++ a\n@@ -1,1 +1,1 @@\n-b\n+c\n" })),
            "the patch does not fit the text",
        ),
    );
}

#[test]
fn a_package_of_pypi_becomes_a_function() {
    let project = Project::plain(Language::Python);
    project.append("requirements.txt", "sqlparse==0.5.3\n");
    project.put(
        "wit/world.wit",
        "package example:functions;\n\nworld functions {\n  \
         export tidied: func(sql: string, indent: option<u8>) -> result<list<string>, string>;\n}\n",
    );
    project.put(
        "app.py",
        r#"import sqlparse
import wit_world
from componentize_py_types import Err


class WitWorld(wit_world.WitWorld):
    def tidied(self, sql: str, indent: int | None) -> list[str]:
        if not sql.strip():
            raise Err("there is no statement")
        style = {"reindent": True, "keyword_case": "upper", "indent_width": indent or 2}
        return [sqlparse.format(statement, **style) for statement in sqlparse.split(sql)]
"#,
    );
    is_proven(
        &project,
        "app.py",
        (("tidied", json!({ "sql": "select a from b; drop table c" })), json!(["SELECT a\nFROM b;", "DROP TABLE c"])),
        (("tidied", json!({ "sql": " " })), "there is no statement"),
    );
}
