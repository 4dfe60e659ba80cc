//! The commands of the README and of each page run as they stand, on a host with the example plugins that are checked in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plugin_kit::language::Language;

use crate::harness::{Host, Setup, component, eventually};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A fenced block: what stands behind the fence, and its lines.
struct Block {
    fence: String,
    text: String,
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(page).expect("the page can be read");
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim_start);
    while let Some(line) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else { continue };
        let inner = lines.by_ref().take_while(|line| !line.starts_with("```")).flat_map(|line| [line, "\n"]).collect();
        found.push(Block { fence: fence.to_owned(), text: inner });
    }
    found
}

/// Starts a host with the plugins that a fresh checkout has, in a folder that looks like one to the commands.
fn checkout() -> Host {
    let mut setup = Setup::default();
    for entry in std::fs::read_dir(root().join("plugins")).expect("the plugins are there") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let id = path.file_stem().expect("a name").to_string_lossy().into_owned();
            setup = setup.plugin_file(&id, &path);
        }
    }
    let host = setup.start();
    let program = Path::new(env!("CARGO_BIN_EXE_wharf"));
    std::fs::create_dir_all(host.dir().join("target")).expect("a folder");
    std::fs::create_dir_all(host.dir().join("tests")).expect("a folder");
    let link = |from: &Path, to: &str| std::os::unix::fs::symlink(from, host.dir().join(to)).expect("a link");
    link(program.parent().expect("a folder"), "target/release");
    link(&root().join("tests/data"), "tests/data");
    host
}

/// Runs a block, and returns all that it wrote.
#[track_caller]
fn run(host: &Host, block: &str) -> String {
    // A page says the address that a host has by default.
    let block = block.replace("localhost:7070", host.client().address().trim_start_matches("http://"));
    let programs = Path::new(env!("CARGO_BIN_EXE_wharf")).parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-euc", &block]).current_dir(host.dir()).env("PATH", format!("{programs}:{path}"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHARF")) {
        command.env_remove(name);
    }
    command.env("WHARF__HOST", host.client().address()).stdin(Stdio::null());
    let output = command.output().expect("a shell starts");
    let wrote = [output.stderr, output.stdout].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{block}\n{}\n{wrote}", output.status);
    wrote
}

/// Returns true if a block is to be run here. One that is not says why behind its fence; cargo's commands run all of this.
fn is_run(block: &Block) -> bool {
    let is_shell = block.fence == "sh" || block.fence.starts_with("sh ");
    is_shell && !block.fence.contains("not-run=\"") && !block.text.starts_with("cargo ")
}

fn has_curl() -> bool {
    Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok()
}

#[test]
fn every_command_of_the_pages_runs() {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(root().join("host/docs"))
        .expect("the pages are there")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    let (mut found, curl) = (0, has_curl());
    for page in pages {
        let blocks: Vec<Block> = blocks(&page).into_iter().filter(is_run).collect();
        if blocks.is_empty() {
            continue;
        }
        // Each page begins with a host of its own, so that it can be read by itself.
        let host = checkout();
        for block in blocks {
            if block.text.contains("curl ") && !curl {
                println!("{}: not run, as there is no curl", page.display());
                continue;
            }
            found += 1;
            run(&host, &block.text);
        }
    }
    assert!(found > 12, "the blocks are found: {found}");
}

#[test]
fn the_quickstart_shows_what_comes() {
    let host = checkout();
    let blocks = blocks(&root().join("README.md"));
    let quickstart = blocks.iter().find(|block| is_run(block)).expect("the README has commands besides cargo's");
    let wrote = run(&host, &quickstart.text);
    let thumbnail = std::fs::read(host.dir().join("thumb.png")).expect("the picture is there");
    assert!(thumbnail.starts_with(b"\x89PNG"), "a picture");
    // What differs from run to run: IDs, times, lengths of columns, and the order in which replies come.
    let is_steady = |word: &&str| !word.chars().any(|c| c.is_ascii_digit()) || word.contains(['{', '"', ':']);
    let words: Vec<&str> = wrote.split_whitespace().collect();
    let mut compared = 0;
    for block in blocks.iter().filter(|block| block.fence == "text") {
        for word in block.text.split_whitespace().filter(is_steady) {
            compared += 1;
            assert!(words.contains(&word), "the README shows {word:?}, and this came:\n{wrote}");
        }
    }
    assert!(compared > 30, "the output is found: {compared}");
    // By now the host has numbers of most kinds.
    let page = std::fs::read_to_string(root().join("host/docs/metrics.md")).expect("the page of the metrics");
    let metrics = String::from_utf8_lossy(&host.client().get("/metrics").body).into_owned();
    let names: Vec<&str> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() > 30, "the metrics are found: {names:?}");
    for name in names {
        let is_row = |end: &str| page.contains(&format!("| `{name}{end}` |"));
        assert!(["", "_total", "_info"].iter().any(|end| is_row(end)), "host/docs/metrics.md has no row for {name}");
    }
}

#[test]
fn the_readmes_plugin_is_a_task() {
    // So that its dependencies are there.
    component("functions");
    let host = Setup::default().start();
    let program = Path::new(env!("CARGO_BIN_EXE_wharf"));
    let made =
        Command::new(program).args(["new", "shout", "--language", "rust", "--plain"]).current_dir(host.dir()).output();
    assert!(made.expect("the binary starts").status.success());
    let blocks = blocks(&root().join("README.md"));
    let code = blocks.iter().find(|block| block.fence == "rust").expect("the README has a plugin");
    assert!(code.text.lines().count() <= 6, "six lines:\n{}", code.text);
    std::fs::write(host.dir().join("shout/src/lib.rs"), &code.text).expect("it can be written");
    let world = blocks.iter().find(|block| block.fence == "wit").expect("the README has the plugin's world");
    std::fs::write(host.dir().join("shout/wit/world.wit"), &world.text).expect("it can be written");
    let mut shell = Command::new("sh");
    shell.arg("shout/build.sh").current_dir(host.dir()).env_remove("CARGO_TARGET_DIR");
    let built = shell.envs(plugins::environment(Language::Rust).expect("the tools are there")).output();
    let built = built.expect("a shell starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    host.put_plugin("shout", &host.dir().join("shout/shout.wasm"));
    let loaded = || host.client().get("/v1/plugins").ok().to_string().contains("shout/shout").then_some(());
    eventually("it is loaded", loaded);
    let session = blocks.iter().find(|block| block.fence == "console").expect("the README calls it");
    let (command, shown) = session.text.split_once('\n').expect("a command and its output");
    let wrote = run(&host, command.strip_prefix("$ ").expect("a prompt"));
    assert_eq!(wrote.trim(), shown.trim());
}
