//! The Containerfile, step by step, without a container engine: its last stage becomes a root of its own, in which a host runs as an
//! engine with a read-only root would run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::deployment::has_namespaces;
use crate::harness::{Host, Setup};

/// The grace of engines between SIGTERM and SIGKILL, unless they are told another one.
const GRACE_SECONDS: u64 = 10;

/// Prepares a root like that of the image before its first step: the programs of this machine, and empty folders. `/usr/local/bin` is not
/// this machine's, since a step copies into it.
const BASE: &str = "\
set -eu
root=$PWD/root
mkdir \"$root\"
mount -t tmpfs -o mode=755 none \"$root\"
mkdir \"$root/usr\" \"$root/etc\" \"$root/proc\" \"$root/dev\" \"$root/tmp\" \"$root/var\"
mount --rbind /usr \"$root/usr\"
mount -t tmpfs -o mode=755 none \"$root/usr/local/bin\"
for part in /bin /sbin /lib /lib32 /lib64 /libx32; do
    if [ -L $part ]; then cp -P $part \"$root$part\"; elif [ -d $part ]; then mkdir \"$root$part\"; mount --bind $part \"$root$part\"; fi
done
mount --rbind /proc \"$root/proc\"
mount --rbind /dev \"$root/dev\"
mount -t tmpfs -o mode=1777 none \"$root/tmp\"
";

/// The steps of a file: a word and what follows it. Lines that end in a backslash go on.
fn steps(text: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let words = joined.lines().filter_map(|line| line.trim().split_once(' '));
    words.map(|(word, rest)| (word.to_owned(), rest.trim().to_owned())).collect()
}

fn containerfile() -> Vec<(String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy/Containerfile");
    steps(&fs::read_to_string(file).expect("the Containerfile"))
}

/// The steps of its first and of its last stage.
fn stages() -> (Vec<(String, String)>, Vec<(String, String)>) {
    let mut first = containerfile();
    let last = first.iter().rposition(|(word, _)| word == "FROM").expect("a stage");
    let last = first.split_off(last);
    (first, last)
}

fn all<'a>(steps: &'a [(String, String)], word: &str) -> Vec<&'a str> {
    steps.iter().filter(|(of, _)| of == word).map(|(_, rest)| rest.as_str()).collect()
}

fn one<'a>(steps: &'a [(String, String)], word: &str) -> &'a str {
    let [step] = all(steps, word)[..] else { panic!("one {word}: {steps:?}") };
    step
}

fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).expect("a list in JSON")
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout == b"0\n"
}

/// What a shell runs to walk through the steps of the last stage, and then through what `podman run` does. With `switches` the host runs
/// as the user of the image; without, as the only user that the namespace has.
fn script(steps: &[(String, String)], switches: bool) -> String {
    let mut script = BASE.to_owned();
    let mut then = String::new();
    for (word, rest) in &steps[1..] {
        match word.as_str() {
            "COPY" => {
                let target = rest.rsplit(' ').next().expect("a target");
                assert_eq!(rest, &format!("--from=build /src/target/release/wharf {target}"));
                script += &format!("cp \"$0\" \"$root{target}\"\n");
            }
            "RUN" => {
                let rest = if switches { rest.clone() } else { rest.replace("10001", "0") };
                script += &format!("chroot \"$root\" /bin/sh -ec '{rest}'\n");
            }
            // What is set from outside wins.
            "ENV" => {
                let (name, value) = rest.split_once('=').expect("a variable");
                then += &format!(": \"${{{name}:={value}}}\"; export {name}\n");
            }
            // A new volume belongs to whom its folder belongs.
            "VOLUME" => {
                for folder in list(rest) {
                    script += &format!(
                        "owner=$(stat -c uid=%u,gid=%g,mode=%a \"$root{folder}\"); mount -t tmpfs -o \"$owner\" none \"$root{folder}\"\n"
                    );
                }
            }
            "WORKDIR" => {
                script += "touch \"$root/etc/wharf/wharf.toml\"\nmount --bind wharf.toml \"$root/etc/wharf/wharf.toml\"\n\
                           mount --bind plugins \"$root/plugins\"\nmount -o remount,bind,ro \"$root/plugins\"\n\
                           mount -o remount,bind,ro \"$root/usr\"\nmount -o remount,bind,ro \"$root\"\n";
                then += &format!("cd {rest}\n");
            }
            "USER" => assert_eq!(rest, "10001:10001"),
            "EXPOSE" | "STOPSIGNAL" | "ENTRYPOINT" | "CMD" => {}
            other => panic!("a step that this test does not know: {other}"),
        }
    }
    let entry = list(one(steps, "ENTRYPOINT")).join(" ");
    let user =
        if switches { "--reuid=10001 --regid=10001 --clear-groups --inh-caps=-all --bounding-set=-all" } else { "" };
    script
        + &format!(
            "exec chroot \"$root\" setpriv --no-new-privs {user} /bin/sh -ec '{then}exec {entry} \"$@\"' sh \"$@\"\n"
        )
}

fn status(host: &Host, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a line");
    line.trim().to_owned()
}

/// Whether what is mounted at `point`, as the host sees it, is read-only.
fn is_read_only(host: &Host, point: &str) -> bool {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", host.pid())).expect("it runs");
    let mut parts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    // The last that was mounted there is the one that is seen; its options or those of its file system may say so.
    let last = parts.rfind(|parts| parts[4] == point).unwrap_or_else(|| panic!("{point}: {mounts}"));
    [last[5], last[last.len() - 1]].iter().any(|options| options.split(',').any(|option| option == "ro"))
}

#[test]
fn a_host_runs_in_the_container_as_its_steps_make_it() {
    if !has_namespaces() {
        return;
    }
    let switches = is_root();
    if !switches {
        eprintln!("SKIPPED: not root, so that the host does not run as the user of the image");
    }
    let (_, steps) = stages();
    assert_eq!(list(one(&steps, "CMD")), ["serve"], "what the test starts");
    let script: &'static str = Box::leak(script(&steps, switches).into_boxed_str());
    let starter: Vec<&'static str> = vec!["unshare", if switches { "-m" } else { "-rm" }, "sh", "-c", script];
    let setup = Setup::default().plugin("words").plugin("villain").token("secret-of-the-test");
    let mut host = setup.port(0).under(Vec::leak(starter)).start();

    let job = host.run("words/count", json!({ "text": "a b" }));
    assert_eq!(job["state"], "succeeded", "{job}\n{}", host.said());
    assert!(is_read_only(&host, "/") && is_read_only(&host, "/plugins"));
    assert_eq!(status(&host, "NoNewPrivs:"), "1");
    if switches {
        assert_eq!(status(&host, "Uid:"), "10001\t10001\t10001\t10001");
        assert_eq!(status(&host, "Gid:"), "10001\t10001\t10001\t10001");
        assert_eq!((status(&host, "Groups:"), status(&host, "CapEff:")), (String::new(), "0".repeat(16)));
    }
    // Settings of the image, and a log of documents.
    let settings = host.client().get("/v1/config").ok();
    let of = |key: &str| settings.to_string().contains(key);
    assert!(of("sqlite:/var/lib/wharf/wharf.db") && of("/var/cache/wharf"), "{settings}");
    let said = host.said();
    assert!(said.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{said}");

    // It stops by itself, though a job would go on for long.
    let long = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 600_000 }));
    host.in_state(&long, "running");
    assert_eq!(host.terminate(), Some(0), "{}", host.said());
}

#[test]
fn the_drain_of_the_container_is_shorter_than_the_grace_of_engines() {
    let (_, steps) = stages();
    let drain = all(&steps, "ENV").into_iter().find_map(|step| step.strip_prefix("WHARF__ATTEMPTS__DRAIN_TIMEOUT="));
    let drain: u64 =
        drain.and_then(|drain| drain.strip_suffix('s')).and_then(|drain| drain.parse().ok()).expect("seconds");
    // What follows a drain, the end of connections among it, takes a few seconds at most.
    assert!(drain + 4 < GRACE_SECONDS, "{drain}");
    assert_eq!(one(&steps, "STOPSIGNAL"), "SIGTERM");
}

#[test]
fn the_first_stage_copies_what_is_there_and_builds_with_the_toolchain_of_the_workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (first, _) = stages();
    let workspace: toml::Table = fs::read_to_string(root.join("Cargo.toml")).expect("it").parse().expect("TOML");
    let version = workspace["workspace"]["package"]["rust-version"].as_str().expect("a version");
    assert_eq!(all(&first, "FROM"), [format!("docker.io/library/rust:{version}-bookworm AS build")]);
    let copied: Vec<&str> = all(&first, "COPY").into_iter().flat_map(|step| step.split(' ').rev().skip(1)).collect();
    for file in &copied {
        assert!(root.join(file).exists(), "{file}");
    }
    // Each package of the workspace is in a folder that is copied, so that cargo finds them.
    for member in workspace["workspace"]["members"].as_array().expect("packages") {
        let member = PathBuf::from(member.as_str().expect("a folder"));
        let folder = member.iter().next().expect("a folder").to_str().expect("text");
        assert!(copied.contains(&folder), "{member:?}");
    }
    assert_eq!(all(&first, "RUN"), ["cargo build --release --locked"]);
}
