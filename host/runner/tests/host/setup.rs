//! Builds a host in a folder of its own, with what most tests need of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tempfile::TempDir;
use wharf_core::ids::{JobId, NodeId, PluginId};
use wharf_core::job::StateName;
use wharf_engine::{CacheSettings, Compile, Engine, PluginSettings};
use wharf_runner::{Enqueued, Host, JobUpdate, LiveSettings, Notice, Parts, Request, Settings};
use wharf_store::{JobSnapshot, MemoryStore, SqliteStore, Store, SystemClock};

/// Longer than anything takes, however slow the machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Setup {
    dir: Arc<TempDir>,
    pub(crate) attempts: u32,
    pub(crate) cancel_grace: Duration,
    pub(crate) lease: Duration,
    pub(crate) lease_margin: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) memory_budget: u64,
    settings: BTreeMap<PluginId, PluginSettings>,
}

/// A host, its folder, and all notices that it sent.
pub(crate) struct Running {
    pub(crate) host: Host,
    pub(crate) plugins: PathBuf,
    notices: Arc<Mutex<Vec<Notice>>>,
    /// Removed with the last host that uses it.
    _dir: Arc<TempDir>,
}

impl Setup {
    pub(crate) fn new() -> Setup {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("plugins")).unwrap();
        Setup {
            dir: Arc::new(dir),
            attempts: 32,
            cancel_grace: Duration::from_millis(200),
            lease: Duration::from_secs(30),
            lease_margin: Duration::from_secs(3),
            write_timeout: LONG,
            memory_budget: 4 << 30,
            settings: BTreeMap::new(),
        }
    }

    pub(crate) fn with(self, plugins: &[&str]) -> Setup {
        for name in plugins {
            std::fs::copy(component(name), self.plugins().join(format!("{name}.wasm"))).unwrap();
        }
        self
    }

    /// Sets what an operator writes under `[plugins.NAME]`.
    pub(crate) fn granting(mut self, plugin: &str, toml: &str) -> Setup {
        let settings =
            wharf_engine::spec::toml_diagnostics::read(toml).unwrap_or_else(|problems| panic!("{problems:?}"));
        self.settings.insert(plugin.parse().unwrap(), settings);
        self
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.dir.path().join("plugins")
    }

    pub(crate) fn sqlite(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(self.dir.path().join("wharf.db"), Arc::new(SystemClock)).unwrap())
    }

    pub(crate) async fn start(&self, store: Arc<dyn Store>) -> Running {
        // One after the other: they share the cache folder.
        static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _starting = STARTING.lock().await;
        let engine = Engine::new(wharf_engine::Settings {
            attempts: self.attempts,
            broadcast_calls: self.attempts,
            guest_threads: 2,
            // Shared by all tests, so that each component is compiled once.
            cache: CacheSettings::in_folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")),
            compile: Compile::InProcess,
            memory_budget: self.memory_budget,
            extra_ca: None,
        })
        .unwrap();
        let settings = Settings {
            name: "here".to_owned(),
            version: "0".to_owned(),
            node: NodeId(rand()),
            plugins_dir: self.plugins(),
            attempts: self.attempts,
            broadcasts: 8,
            lease: self.lease,
            lease_margin: self.lease_margin,
            write_timeout: self.write_timeout,
            cancel_grace: self.cancel_grace,
            upkeep_interval: Duration::from_secs(300),
            rescan: Duration::from_millis(500),
            live: LiveSettings { generations_max: 100, plugins: self.settings.clone(), ..LiveSettings::default() },
        };
        let notices = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&notices);
        let on_notice = move |notice: &Notice| listener.lock().unwrap().push(notice.clone());
        let host = Host::start(Parts { store, engine }, settings, on_notice).await.unwrap();
        tokio::time::timeout(LONG, host.ready()).await.expect("the first scan ends");
        Running { host, plugins: self.plugins(), notices, _dir: Arc::clone(&self.dir) }
    }
}

fn rand() -> u64 {
    fastrand::u64(1..)
}

pub(crate) fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::open(Arc::new(SystemClock)))
}

pub(crate) fn component(name: &str) -> PathBuf {
    plugins::build(name).unwrap_or_else(|error| panic!("could not build plugins/{name}: {error:#}"))
}

/// A job for the villain.
pub(crate) fn order(task: &str, payload: &str) -> Request {
    Request { task: format!("villain/{task}"), payload: payload.as_bytes().to_vec(), ..Request::default() }
}

impl Running {
    pub(crate) fn notices(&self) -> Vec<Notice> {
        self.notices.lock().unwrap().clone()
    }

    pub(crate) async fn enqueue(&self, request: Request) -> JobId {
        match self.host.enqueue(vec![request]).await.unwrap().remove(0) {
            Enqueued::Added(id) => id,
            other => panic!("not added: {other:?}"),
        }
    }

    pub(crate) async fn finished(&self, id: JobId) -> JobSnapshot {
        let seen = self.host.wait(id, LONG).await.unwrap().unwrap();
        assert!(seen.job.status.state.name().is_final(), "{id} does not end: {seen:?}");
        seen
    }

    /// Runs one job to its success and returns its result.
    pub(crate) async fn result(&self, request: Request) -> Value {
        let id = self.enqueue(request).await;
        let seen = self.finished(id).await;
        assert_eq!(seen.job.status.state.name(), StateName::Succeeded, "{:?}", seen.job.report);
        serde_json::from_slice(&seen.job.result.unwrap()).unwrap()
    }

    pub(crate) async fn until_running(&self, id: JobId) {
        self.until(id, StateName::Running).await;
    }

    pub(crate) async fn until(&self, id: JobId, state: StateName) {
        let mut life = Box::pin(self.host.follow(id, u64::MAX));
        let seen = tokio::time::timeout(LONG, async {
            while let Some(followed) = life.next().await {
                if let JobUpdate::State(seen) = followed.unwrap()
                    && seen.job.status.state.name() == state
                {
                    return;
                }
            }
            panic!("{id} ended and never was {state:?}");
        });
        seen.await.unwrap_or_else(|_| panic!("{id} does not come to be {state:?}"));
    }

    /// Keeps whoever has a notice waiting until what this returns is dropped.
    pub(crate) fn hold_notices(&self) -> mpsc::Sender<()> {
        let notices = Arc::clone(&self.notices);
        let ((is_held, held), (release, released)) = (mpsc::channel(), mpsc::channel());
        std::thread::spawn(move || {
            let _notices = notices.lock().unwrap();
            is_held.send(()).unwrap();
            let _: Result<(), _> = released.recv();
        });
        held.recv().unwrap();
        release
    }

    /// Waits until a notice after the first `known` ones reports that the store has recovered.
    pub(crate) async fn until_recovered(&self, known: usize) {
        let poll = async {
            while !self.notices()[known..].iter().any(|notice| matches!(notice, Notice::StoreRecovered)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, poll).await.expect("the store recovers");
    }

    /// Waits for a notice for which `is` returns true.
    pub(crate) async fn until_notified(&self, what: &str, is: impl Fn(&Notice) -> bool) {
        let poll = async {
            while !self.notices.lock().unwrap().iter().any(&is) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(LONG, poll).await;
        found.unwrap_or_else(|_| panic!("there was no notice that {what}: {:?}", self.notices()));
    }
}
