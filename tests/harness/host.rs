//! One real host: its folder, its process, and what it says.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually::eventually_within;
use super::{Client, MachineClock, component, eventually};

/// The binary under test, without what the caller's environment would add.
pub(crate) fn wharf() -> Command {
    wharf_under(&[])
}

/// The same, started by another program, such as `prlimit`, that puts it in its own place.
pub(crate) fn wharf_under(starter: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_wharf");
    let mut command = match starter {
        [] => Command::new(program),
        [starter, args @ ..] => {
            let mut command = Command::new(starter);
            command.args(args).arg(program);
            command
        }
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHARF")) {
        command.env_remove(name);
    }
    command
}

/// Who reads what a host says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hears {
    #[default]
    Everything,
    /// Stops once the host listens, and leaves the pipe as it is, until the test lets it go on.
    OnlyTheStart,
    /// Goes away once the host listens.
    TheStartAndIsGone,
}

/// What a host is started with.
#[derive(Default)]
pub(crate) struct Setup {
    plugins: Vec<(String, PathBuf)>,
    top: String,
    settings: String,
    token: Option<String>,
    store: Option<PathBuf>,
    database: Option<String>,
    environment: Vec<(&'static str, PathBuf)>,
    starter: &'static [&'static str],
    hears: Hears,
    default_cache: bool,
}

impl Setup {
    /// Puts the component of `plugins/{guest}` into the folder as `{guest}.wasm`.
    pub(crate) fn plugin(self, guest: &str) -> Setup {
        self.plugin_as(guest, guest)
    }

    pub(crate) fn plugin_as(mut self, guest: &str, id: &str) -> Setup {
        self.plugins.push((id.to_owned(), component(guest)));
        self
    }

    /// Puts a component of the test's own into the folder.
    pub(crate) fn plugin_file(mut self, id: &str, file: &Path) -> Setup {
        self.plugins.push((id.to_owned(), file.to_owned()));
        self
    }

    /// Adds lines to `wharf.toml`: tables only, since the top keys stand above them.
    pub(crate) fn settings(mut self, toml: &str) -> Setup {
        self.settings.push_str(toml);
        self.settings.push('\n');
        self
    }

    /// Adds a setting that stands above the tables.
    pub(crate) fn top(mut self, toml: &str) -> Setup {
        self.top.push_str(toml);
        self.top.push('\n');
        self
    }

    /// Listens on this port of loopback at every start.
    pub(crate) fn port(mut self, port: u16) -> Setup {
        self.environment.push(("WHARF__LISTEN", format!("127.0.0.1:{port}").into()));
        self
    }

    /// Requests must bring this token; the host's own client does.
    pub(crate) fn token(mut self, token: &str) -> Setup {
        self.token = Some(token.to_owned());
        self
    }

    /// Keeps the store in another folder.
    pub(crate) fn store_in(mut self, dir: &Path) -> Setup {
        self.store = Some(dir.to_owned());
        self
    }

    /// Keeps the jobs at this address, in place of a file of its own.
    pub(crate) fn database(mut self, address: &str) -> Setup {
        self.database = Some(address.to_owned());
        self
    }

    /// Takes the time of day from this clock.
    pub(crate) fn clock(mut self, clock: &MachineClock) -> Setup {
        self.environment.extend(clock.environment());
        self
    }

    /// Sets a variable of its environment, such as a setting above the tables.
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<PathBuf>) -> Setup {
        self.environment.push((name, value.into()));
        self
    }

    /// Leaves the folder of its cache to the host, in place of the one that all tests share.
    pub(crate) fn default_cache(mut self) -> Setup {
        self.default_cache = true;
        self
    }

    /// Lets another program start it.
    pub(crate) fn under(mut self, starter: &'static [&'static str]) -> Setup {
        self.starter = starter;
        self
    }

    pub(crate) fn heard_by(mut self, hears: Hears) -> Setup {
        self.hears = hears;
        self
    }

    #[track_caller]
    pub(crate) fn start(self) -> Host {
        let dir = TempDir::new().expect("a temporary folder");
        let plugins = dir.path().join("plugins");
        std::fs::create_dir(&plugins).expect("a plugin folder");
        for (id, file) in &self.plugins {
            std::fs::copy(file, plugins.join(format!("{id}.wasm"))).expect("the component can be copied");
        }
        // One cache for all tests: what is compiled once is not compiled again.
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
        let cache = if self.default_cache { String::new() } else { format!("cache-dir = \"{}\"\n", cache.display()) };
        let token = self.token.as_ref().map(|t| format!("token = \"{t}\"\n")).unwrap_or_default();
        let file = self.store.as_deref().unwrap_or(dir.path()).join("wharf.db");
        let store = self.database.unwrap_or_else(|| format!("sqlite:{}", file.display()));
        let top = format!(
            "{token}{}listen = \"127.0.0.1:0\"\nstore = \"{store}\"\nplugins-dir = \"{}\"\n{cache}",
            self.top,
            plugins.display(),
        );
        std::fs::write(dir.path().join("wharf.toml"), top + &self.settings).expect("settings can be written");
        let mut host = Host {
            dir,
            environment: self.environment,
            starter: self.starter,
            hears: self.hears,
            token: self.token,
            child: None,
            said: Arc::default(),
            go_on: None,
            client: None,
        };
        host.start();
        let expected = self.plugins.len();
        // A cold compile of a large plugin, beside other tests, on few cores.
        eventually_within(Duration::from_secs(600), "all plugins are loaded", || {
            let plugins = host.client().get("/v1/plugins").ok();
            let known = plugins.as_array().map_or(0, Vec::len);
            (known >= expected && host.is_ready()).then_some(())
        });
        host
    }
}

pub(crate) struct Host {
    dir: TempDir,
    environment: Vec<(&'static str, PathBuf)>,
    starter: &'static [&'static str],
    hears: Hears,
    token: Option<String>,
    child: Option<Child>,
    said: Arc<Mutex<String>>,
    /// Whoever reads only the start goes on once this is dropped.
    go_on: Option<mpsc::Sender<()>>,
    client: Option<Client>,
}

impl Host {
    /// Starts the process in its folder, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.said = Arc::default();
        let mut child = wharf_under(self.starter)
            .arg("serve")
            .current_dir(self.dir.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        // From here on it ends with the test, whatever becomes of the start.
        self.child = Some(child);
        let (said, hears) = (self.said.clone(), self.hears);
        let (go_on, may_go_on) = mpsc::channel();
        self.go_on = Some(go_on);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut said = said.lock().expect("no panic while it is held");
                said.push_str(&line);
                said.push('\n');
                drop(said);
                if line.contains("listens on http://") {
                    match hears {
                        Hears::Everything => {}
                        Hears::TheStartAndIsGone => return,
                        Hears::OnlyTheStart => _ = may_go_on.recv(),
                    }
                }
            }
        });
        let address = eventually("the host listens", || {
            let child = self.child.as_mut().expect("put there above");
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                panic!("the host ended at once, {status}:\n{}", self.said());
            }
            let said = self.said();
            let at = said.find("http://127.0.0.1:")?;
            let address = said[at..].split_whitespace().next()?.trim_end_matches(|c: char| !c.is_ascii_digit());
            said[at + address.len()..].contains('\n').then(|| address.to_owned())
        });
        self.client = Some(Client::new(&address).with_token(self.token.as_deref()));
    }

    pub(crate) fn client(&self) -> &Client {
        self.client.as_ref().expect("the host was started")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.as_ref().expect("it runs").id() as i32
    }

    /// Waits until the host has said this, and returns all that it said. A line may come after what it tells of can be seen elsewhere.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> String {
        eventually(&format!("the host says `{text}`"), || Some(self.said()).filter(|said| said.contains(text)))
    }

    /// What the host wrote to stderr so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("no panic while it is held").clone()
    }

    /// Whoever read only the start reads everything from here on.
    pub(crate) fn hear_on(&mut self) {
        self.go_on = None;
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.client().try_get("/ready").is_ok_and(|reply| reply.status == 200)
    }

    /// A gauge or a counter without labels, of the host's page of metrics; `None` where it is not there.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let page = self.client().get("/metrics");
        let text = String::from_utf8_lossy(&page.body).into_owned();
        text.lines().find(|line| line.starts_with(name))?.rsplit(' ').next()?.parse().ok()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status().expect("kill runs");
        assert!(status.success(), "kill {signal}");
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    /// SIGTERM, and waits for the end. Returns the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.signal("-TERM");
        self.ended()
    }

    /// Waits for the end. Returns the exit code; none where a signal was the end.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.take().expect("it runs").wait().expect("it can be waited for").code()
    }

    /// A command of the CLI that speaks to this host.
    pub(crate) fn cli(&self, args: &[&str]) -> Command {
        let mut command = wharf();
        command
            .current_dir(self.dir.path())
            .args(args)
            .env("WHARF__HOST", self.client().address())
            .envs(self.token.as_deref().map(|token| ("WHARF__TOKEN", token)));
        command
    }

    /// Puts a component into the folder by rename, as one change.
    pub(crate) fn put_plugin(&self, id: &str, file: &Path) {
        let temporary = self.dir.path().join(format!(".{id}.new"));
        std::fs::copy(file, &temporary).expect("the component can be copied");
        std::fs::rename(&temporary, self.plugin_file(id)).expect("it can be renamed");
    }

    pub(crate) fn plugin_file(&self, id: &str) -> PathBuf {
        self.dir.path().join("plugins").join(format!("{id}.wasm"))
    }

    /// Enqueues one job and returns its id.
    #[track_caller]
    pub(crate) fn enqueue(&self, task: &str, payload: Value) -> String {
        self.enqueue_with(json!({ "task": task, "payload": payload }))
    }

    #[track_caller]
    pub(crate) fn enqueue_with(&self, job: Value) -> String {
        let reply = self.client().post("/v1/jobs", &job).ok();
        reply["id"].as_str().unwrap_or_else(|| panic!("no id in {reply}")).to_owned()
    }

    #[track_caller]
    pub(crate) fn job(&self, id: &str) -> Value {
        self.client().get(&format!("/v1/jobs/{id}")).ok()
    }

    /// The result of a job that succeeded.
    #[track_caller]
    pub(crate) fn result(&self, id: &str) -> Value {
        self.client().get(&format!("/v1/jobs/{id}/result")).ok()
    }

    /// Waits until the job is over, and returns it.
    #[track_caller]
    pub(crate) fn finished(&self, id: &str) -> Value {
        eventually(&format!("job {id} ends"), || {
            let job = self.job(id);
            matches!(job["state"].as_str(), Some("succeeded" | "failed" | "cancelled")).then_some(job)
        })
    }

    /// Waits until the job is in `state`.
    #[track_caller]
    pub(crate) fn in_state(&self, id: &str, state: &str) -> Value {
        eventually(&format!("job {id} is {state}"), || {
            let job = self.job(id);
            let over = matches!(job["state"].as_str(), Some("succeeded" | "failed" | "cancelled"));
            assert!(!over || job["state"] == state, "it is past being {state}: {job}");
            (job["state"] == state).then_some(job)
        })
    }

    /// Runs one job to its end, and returns it.
    #[track_caller]
    pub(crate) fn run(&self, task: &str, payload: Value) -> Value {
        let id = self.enqueue(task, payload);
        self.finished(&id)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the host said:\n{}", self.said());
        }
    }
}
