//! Passwords and tokens: in no log, no answer and no error, wherever they are written.

use std::process::Output;

use serde_json::json;

use crate::harness::{Postgres, Setup, eventually, wharf};

/// As the driver reads it, up to the `@`.
const PASSWORD: &str = "hunter2/and?more";

#[track_caller]
fn tells_no_secret(text: &str) {
    for part in ["hunter2", "and?more"] {
        assert!(!text.contains(part), "{text}");
    }
}

#[test]
fn the_password_of_the_database_is_in_no_log_and_no_answer() {
    let mut server = Postgres::start(false);
    let address = server.address().replacen("//wharf@", &format!("//wharf:{PASSWORD}@"), 1);
    let host = Setup::default().plugin("villain").settings("[log]\nlevel = \"debug\"").database(&address).start();
    assert_eq!(host.run("villain/do", json!({ "do": "echo" }))["state"], "succeeded");
    for args in [&["config"][..], &["config", "--json"]] {
        let Output { stdout, .. } = host.cli(args).output().expect("it runs");
        let shown = String::from_utf8(stdout).expect("text");
        tells_no_secret(&shown);
        assert!(shown.contains("postgres://wharf:***@"), "{shown}");
    }
    server.tell("stop");
    let (job, ready) = (json!({ "task": "villain/do", "payload": { "do": "echo" } }), "/ready");
    eventually("the host is not ready", || (host.client().get(ready).status != 200).then_some(()));
    for reply in [host.client().get(ready), host.client().post("/v1/jobs", &job), host.client().get("/v1/jobs")] {
        assert_ne!(reply.status, 200);
        tells_no_secret(&String::from_utf8_lossy(&reply.body));
    }
    tells_no_secret(&host.says("postgres://wharf:***@"));
}

#[test]
fn no_error_about_an_address_or_a_setting_quotes_a_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |settings: &str, args: &[&str], variable: (&str, &str)| {
        std::fs::write(folder.path().join("wharf.toml"), settings).expect("written");
        let output =
            wharf().current_dir(folder.path()).args(args).env(variable.0, variable.1).output().expect("it runs");
        let text = String::from_utf8(output.stderr).expect("text") + &String::from_utf8_lossy(&output.stdout);
        assert!(!text.is_empty());
        tells_no_secret(&text);
        text
    };
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    for store in [
        "postgres://me:hunter2@db:nowhere/jobs",
        "postgres://me:hunter2@and?more@db/jobs",
        "postgres:me:hunter2@db",
        "postgres://me:hunter2",
        "postgres://me@db/jobs?password=hunter2&pool=none",
        "host=db user=me password=hunter2",
        "Server=db;Password=hunter2",
        "mysql://me:hunter2@db/jobs",
    ] {
        for text in [
            run("", &serve, ("WHARF__STORE", store)),
            run("", &[&serve[..], &["--store", store]].concat(), ("NOTHING", "")),
            run(&format!("store = \"{store}\""), &serve, ("NOTHING", "")),
        ] {
            assert!(text.contains("could not open the store") && text.contains("expected"), "{text}");
        }
        run("", &["config"], ("WHARF__STORE", store));
    }
    run("", &["job", "list"], ("WHARF__TOKEN", "hunter2"));
    run("", &["job", "list"], ("WHARF__HOST", "http://me:hunter2@127.0.0.1:1"));
    run("", &["job", "list"], ("WHARF__HOST", "ftp://me:hunter2@127.0.0.1:1"));
    run("", &["config"], ("WHARF__HOST", "http://me:hunter2@127.0.0.1:1"));
    let number = "[plugins.words.env]\nKEY = [\"hunter2\"]\n[plugins.words.config]\nkey = { a = \"hunter2\" }\n";
    let text = run(number, &["config"], ("NOTHING", ""));
    assert!(
        text.contains("`plugins.words.env.KEY`: expected a string") && text.contains("`plugins.words.config.key`"),
        "{text}"
    );
    for place in ["https://me:hunter2@example.com", "https://example.com?key=hunter2"] {
        let text = run(&format!("[plugins.words]\nhttp = [\"{place}\"]\n"), &["config"], ("NOTHING", ""));
        assert!(text.contains("invalid place"), "{text}");
    }
    run("[plugins.words.env]\nKEY = \"hunter2\"\n", &["config"], ("NOTHING", ""));
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["wharf.toml"], "no address became a file");
}
