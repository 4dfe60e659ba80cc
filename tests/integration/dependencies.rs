//! Ordinary dependencies: each language's project takes a package of somebody else's the way the language does it.

use std::path::Path;

use plugin_kit::language::Language;
use serde_json::{Value, json};

use crate::harness::{Host, Setup, component, eventually};
use crate::project::Project;

/// The result of a job whose text is Markdown.
fn result_of(host: &Host, text: &str) -> Value {
    let job = host.run("shout/count", json!({ "text": text }));
    assert_eq!(job["state"], "succeeded", "{job}");
    host.result(job["id"].as_str().expect("an id"))
}

const MARKDOWN: &str = "# to *be*";
const HTML: &str = "<h1>to <em>be</em></h1>";

#[test]
fn python_takes_a_package_of_pypi_and_imports_what_it_needs_late() {
    let project = Project::new(Language::Python);
    project.append("requirements.txt", "Markdown==3.9\n");
    project.replace("app.py", "import late_imports", "import markdown\nimport late_imports");
    project.replace(
        "app.py",
        "return line_of(count(order))",
        "import datetime\n        day = datetime.datetime.strptime('2024-05-01', '%Y-%m-%d').day\n        \
         return line_of({'html': markdown.markdown(order['text']), 'day': day, 'host': 'b\u{fc}cher.de'.encode('idna').decode()})",
    );
    let host = project.host("");
    assert_eq!(result_of(&host, MARKDOWN), json!({ "html": HTML, "day": 1, "host": "xn--bcher-kva.de" }));
    // What nobody imported at build time is explained where it fails.
    project.replace("app.py", "import datetime", "import sqlite3 as datetime");
    project.build();
    host.put_plugin("late", &project.file("shout.wasm"));
    eventually("it is loaded", || host.client().get("/v1/plugins/late").json()["loaded"].is_object().then_some(()));
    let id = host.enqueue("late/count", json!({ "text": MARKDOWN }));
    let report = eventually("it fails", || host.job(&id)["report"]["text"].as_str().map(str::to_owned));
    assert!(report.contains("No module named") && report.contains("imported while it was built"), "{report}");
}

#[test]
fn javascript_takes_packages_of_npm_that_expect_the_web() {
    let project = Project::new(Language::JavaScript);
    project.run("npm install marked@16.4.1 nanoid@5.1.6");
    project.replace(
        "words.js",
        "import attempt",
        "import { marked } from \"marked\";\nimport { nanoid } from \"nanoid\";\nimport attempt",
    );
    project.replace(
        "words.js",
        "return json(count(order));",
        "if (order.text === \"large\") attempt.emit(new Uint8Array(2_000_000));\n    \
         if (order.text === \"web\") fetch(\"https://example.com/\");\n    \
         if (order.text === \"later\") return Promise.resolve(json(1));\n    \
         console.log(new URL(\"../x?y=1\", \"https://a.b/c/d\").href);\n    \
         return json({ html: marked.parse(order.text), id: nanoid().length, \
         text: new TextDecoder().decode(new TextEncoder().encode(\"\u{fc}\")) });",
    );
    let host = project.host("");
    let html = format!("{HTML}\n");
    assert_eq!(result_of(&host, MARKDOWN), json!({ "html": html, "id": 21, "text": "\u{fc}" }));
    // The words of a host call that failed, and of a handler that cannot be, arrive.
    for (text, why) in [
        ("large", "uncaught: the chunk is 2000000 bytes"),
        ("later", "a promise was returned"),
        ("web", "there is no `fetch` in QuickJS"),
    ] {
        let id = host.enqueue("shout/count", json!({ "text": text }));
        let report = eventually("it fails", || host.job(&id)["report"]["text"].as_str().map(str::to_owned));
        assert!(report.contains(why), "{report}");
    }
    // A handler that is not there ends the build.
    project.replace("words.js", "export const handler", "const handling");
    let said = project.run(&format!("({}) 2>&1 || true", project.language.command()));
    assert!(said.contains("No matching export") && said.contains("handler"), "{said}");
}

#[test]
fn rust_takes_a_crate() {
    let project = Project::new(Language::Rust);
    project.replace(
        "Cargo.toml",
        "[dependencies]\n",
        "[dependencies]\npulldown-cmark = { version = \"0.13\", default-features = false, features = [\"html\"] }\n",
    );
    project.replace(
        "src/lib.rs",
        "None => Ok(json(&count(&order)?)),",
        "None => {\n                let mut html = String::new();\n                \
         pulldown_cmark::html::push_html(&mut html, pulldown_cmark::Parser::new(&order.text));\n                \
         count(&order)?;\n                Ok(json(&html))\n            }",
    );
    assert_eq!(result_of(&project.host(""), MARKDOWN), json!(format!("{HTML}\n")));
}

#[test]
fn go_takes_a_module_by_its_path() {
    let project = Project::new(Language::Go);
    let module = project.dir.path().join("loud");
    std::fs::create_dir(&module).expect("a folder");
    let write = |path: &Path, text: &str| std::fs::write(path, text).expect("it can be written");
    write(&module.join("go.mod"), "module example.com/loud\n\ngo 1.24\n");
    write(
        &module.join("loud.go"),
        "package loud\n\nimport \"strings\"\n\nfunc Loud(text string) string { return strings.ToUpper(text) + \"!!!\" }\n",
    );
    project.append("go.mod", "\nrequire example.com/loud v0.0.0\n\nreplace example.com/loud => ../loud\n");
    project.replace("words.go", "import (", "import (\n\t\"example.com/loud\"");
    project.replace("words.go", "RuneCountInString(*order.Text)", "RuneCountInString(loud.Loud(*order.Text))");
    assert_eq!(result_of(&project.host(""), "a b")["characters"], 6);
}

/// A failed job runs again on its author's machine, from its file, and nothing happens on the host.
#[test]
fn a_failed_job_is_called_again_by_its_id() {
    let host = Setup::default().plugin("words").start();
    let id = host.enqueue("words/count", json!({ "text": "to be", "fail": "discard", "tenant": "ada" }));
    let before = host.finished(&id);
    let call = |args: &[&str]| {
        let output = host.cli(&[&["call", "--job", &id], args].concat()).output().expect("the binary starts");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let file = component("words").display().to_string();
    for args in [vec![], vec![file.as_str()]] {
        let (code, said) = call(&args);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("asked to fail") && said.contains("failing on request"), "{said}");
    }
    assert_eq!(host.job(&id), before);
    let (code, said) = call(&["words/other"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the job is of the task `words/count`"), "{said}");
}
