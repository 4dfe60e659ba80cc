//! A project as `wharf new` writes it, changed and built as its author does it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use plugin_kit::language::Language;
use tempfile::TempDir;

use crate::harness::{Host, Setup, component, eventually_within, wharf};

/// A project with the name `shout`.
pub(crate) struct Project {
    pub(crate) dir: TempDir,
    pub(crate) language: Language,
}

impl Project {
    pub(crate) fn new(language: Language) -> Project {
        // So that its tools and packages are there.
        component(language.example());
        Project::made(language, &[])
    }

    /// One without a mention of Wharf.
    pub(crate) fn plain(language: Language) -> Project {
        Project::made(language, &["--plain"])
    }

    fn made(language: Language, more: &[&str]) -> Project {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let args = [&["new", "shout", "--language", language.name()], more].concat();
        let made = wharf().args(args).current_dir(dir.path()).output().expect("the binary starts");
        assert!(made.status.success(), "{made:?}");
        Project { dir, language }
    }

    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.dir.path().join("shout").join(path)
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        std::fs::write(self.file(path), text).expect("it can be written");
    }

    pub(crate) fn append(&self, path: &str, text: &str) {
        let before = std::fs::read_to_string(self.file(path)).expect("it is there");
        self.put(path, &(before + text));
    }

    pub(crate) fn replace(&self, path: &str, from: &str, to: &str) {
        let before = std::fs::read_to_string(self.file(path)).expect("it is there");
        assert!(before.contains(from), "{path} has {from}: {before}");
        self.put(path, &before.replacen(from, to, 1));
    }

    pub(crate) fn run(&self, line: &str) -> String {
        run_as_its_author(self.language, line, &self.dir.path().join("shout"))
    }

    pub(crate) fn build(&self) {
        self.run(self.language.command());
    }

    /// Copies the plugin into the folder of a host that runs, and waits until it is loaded.
    pub(crate) fn drop_into(&self, host: &Host) {
        host.put_plugin("shout", &self.file("shout.wasm"));
        // A cold compile of an interpreter, beside other tests, on few cores.
        eventually_within(Duration::from_secs(600), "it is loaded", || {
            host.client().get("/v1/plugins/shout").json()["loaded"].is_object().then_some(())
        });
    }

    /// Builds the project, and starts a host with its plugin and these settings.
    pub(crate) fn host(&self, settings: &str) -> Host {
        self.build();
        Setup::default().plugin_file("shout", &self.file("shout.wasm")).settings(settings).start()
    }
}

/// Runs a command line with the tools of a language, and with `wharf`. Returns what it said.
#[track_caller]
pub(crate) fn run_as_its_author(language: Language, line: &str, dir: &Path) -> String {
    let wharf_dir = Path::new(env!("CARGO_BIN_EXE_wharf")).parent().expect("a folder");
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(dir).env_remove("CARGO_TARGET_DIR");
    for (name, value) in plugins::environment(language).expect("its tools") {
        shell.env(name, value);
    }
    let tools = shell.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path.map(OsString::from));
    let path = tools.or_else(|| std::env::var_os("PATH")).expect("a PATH");
    let folders = [wharf_dir.to_owned()].into_iter().chain(std::env::split_paths(&path));
    shell.env("PATH", std::env::join_paths(folders).expect("a path"));
    let built = shell.output().expect("a shell");
    let said = String::from_utf8_lossy(&[built.stdout, built.stderr].concat()).into_owned();
    assert!(built.status.success(), "{language}: `{line}`:\n{said}");
    said
}
