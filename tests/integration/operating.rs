//! The page for operators and the files to deploy: each command of the page is run, and each file is tried as far as it says.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Client, Hears, ReverseProxy, Setup, eventually, resolve};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

#[test]
fn every_command_of_the_page_for_operators_runs() {
    let page = std::fs::read_to_string(docs().join("operating.md")).expect("the page");
    let blocks = page.split("```").skip(1).step_by(2);
    let lines: Vec<&str> = blocks.flat_map(str::lines).filter(|line| line.starts_with("wharf ")).collect();
    assert!(lines.len() > 8, "{lines:?}");
    let host = Setup::default().plugin("words").start();
    host.run("words/count", json!({ "text": "a" }));
    let program = Path::new(env!("CARGO_BIN_EXE_wharf")).parent().expect("its folder").display().to_string();
    for line in lines {
        let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(host.dir())
            .env("PATH", path)
            .env("WHARF__HOST", host.client().address())
            .output()
            .expect("sh runs");
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{line}\n{told}");
    }
}

#[test]
fn every_file_to_deploy_says_what_was_tried() {
    for file in std::fs::read_dir(docs().join("deploy")).expect("the folder") {
        let file = file.expect("an entry").path();
        let text = std::fs::read_to_string(&file).expect("a text");
        let head: String = text.lines().take(6).collect();
        assert!(head.contains("Tried: "), "{}", file.display());
    }
}

/// The program that the unit names is not there, and all else has to be right.
#[test]
fn systemd_has_no_complaint_about_the_unit() {
    let unit = docs().join("deploy/wharf.service");
    let text = std::fs::read_to_string(&unit).expect("the unit");
    let stops_after = text.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).expect("a time");
    assert!(stops_after.parse::<u64>().expect("seconds") >= 30, "longer than `attempts.drain-timeout`, 20 s");
    let Ok(checked) = Command::new("systemd-analyze").arg("verify").arg(&unit).output() else {
        eprintln!("SKIPPED: systemd-analyze is not there");
        return;
    };
    let told = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    let complaints: Vec<&str> = told.lines().filter(|line| !line.contains("is not executable")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_site_for_nginx_serves_a_host() {
    let host = Setup::default()
        .plugin("words")
        .token("secret-of-the-test")
        .top("public-url = \"http://jobs.example.com\"")
        .heard_by(Hears::Everything)
        .start();
    let site = std::fs::read_to_string(docs().join("deploy/nginx.conf")).expect("the site");
    let proxy = ReverseProxy::with_site(&site, host.client().address());
    let client = Client::new(proxy.address()).with_token(Some("secret-of-the-test"));
    let large = "a ".repeat(1 << 20);
    let job = client.post("/v1/jobs", &json!({ "task": "words/count", "payload": { "text": large } })).ok();
    let id = job["id"].as_str().expect("an ID").to_owned();
    assert_eq!(host.finished(&id)["state"], "succeeded");
    let states: Vec<_> = client.events(&id, None).filter(|event| event.kind == "state").collect();
    assert!(states.last().is_some_and(|event| event.data["state"] == "succeeded"), "{states:?}");
    let page = client.get("/v1/jobs?limit=1").ok();
    eventually("the next page is found through the proxy", || {
        let next = page["next"].as_str().map(|next| resolve("/v1/jobs", next));
        next.is_none_or(|next| client.get(&next).status == 200).then_some(())
    });
}
