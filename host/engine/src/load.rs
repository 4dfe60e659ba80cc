//! From bytes to a plugin, and for people: what would happen on the way.

use std::sync::Arc;

use wasmtime::component::Component;
use wharf_core::ids::PluginId;

use crate::attempt::describe::describe;
use crate::compile::cache;
use crate::compile::child::{self, Failed, Files};
use crate::compile::exports_check;
use crate::compile::linked::Linked;
use crate::engine::{Engine, ROOM_LOOKS_MAX, Side};
use crate::inspect::contract;
use crate::inspect::description::Description;
use crate::inspect::grants_check::Granted;
use crate::plugin::Plugin;
use crate::sandbox::plugin_env::Premises;
use crate::spec::grants::PluginSettings;
use crate::spec::manifest::Manifest;
use crate::spec::problem::{LoadError, Problem, Problems};
use crate::wasmtime_config::{self, Kind};

/// How far loading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Checking,
    /// Others are being compiled.
    WaitingToCompile,
    Compiling,
    /// It was compiled before.
    Cached,
    Describing,
}

/// What `wharf check` says of a file, and what loading it would do.
#[derive(Debug)]
pub struct CheckReport {
    /// SHA-256 of the file, in hex.
    pub digest: String,
    pub bytes: u64,
    pub is_async: bool,
    /// Interfaces, with their versions.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Languages, SDKs and tools that say they made it, with their versions.
    pub makers: Vec<String>,
    /// Why it is not loaded; empty if it is.
    pub problems: Vec<Problem>,
    /// What its operator may want to know: what it can use only with a grant.
    pub notes: Vec<Problem>,
    /// There is one exactly if there is no problem.
    pub plugin: Option<Arc<Plugin>>,
}

/// Someone who is told how far loading is.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

impl Engine {
    /// Makes a plugin of a component: checked, compiled or taken from the cache, linked, described.
    ///
    /// # Errors
    /// Every problem that was found.
    pub async fn load(
        self: &Arc<Self>,
        id: PluginId,
        bytes: Arc<[u8]>,
        settings: &PluginSettings,
        progress: OnProgress<'_>,
    ) -> Result<Arc<Plugin>, LoadError> {
        let started = std::time::Instant::now();
        let checked = self.check(id.as_str(), bytes, settings, progress).await;
        tracing::debug!(
            plugin = %id,
            digest = checked.digest,
            problems = checked.problems.len(),
            elapsed = ?started.elapsed(),
            "component checked, compiled or found in the cache, and linked"
        );
        checked.plugin.ok_or(LoadError { problems: checked.problems })
    }

    /// Does all that loading does, and says all that was found on the way. `id` is the file's stem.
    pub async fn check(
        self: &Arc<Self>,
        id: &str,
        bytes: Arc<[u8]>,
        settings: &PluginSettings,
        progress: OnProgress<'_>,
    ) -> CheckReport {
        progress(Progress::Checking);
        let its_bytes = Arc::clone(&bytes);
        let looked = aside(move || (cache::digest_of(&its_bytes), contract::is_wasm(&its_bytes)));
        let mut checked = CheckReport::refused(String::new(), bytes.len(), Vec::new());
        let is_wasm = match looked.await {
            Ok((digest, is_wasm)) => {
                checked.digest = digest;
                is_wasm
            }
            Err(problem) => Err(problem),
        };
        let reading = Reading { engine: self, digest: &checked.digest, bytes: &bytes, progress };
        let found = match is_wasm {
            Ok(()) => reading.known().await,
            Err(problem) => Err(problem),
        };
        let mut problems = Vec::new();
        match found {
            Err(problem) => problems.push(problem),
            Ok(found) => {
                let description = found.description();
                checked.is_async = description.kind == Kind::Async;
                (checked.imports, checked.exports) = (description.imports.clone(), description.exports.clone());
                checked.makers = description.makers.clone();
                problems.extend(description.problems.iter().cloned());
                let granted = Granted { id, imports: &checked.imports, settings };
                problems.extend(granted.problems());
                checked.notes = granted.notes();
                let parsed = id.parse::<PluginId>().map_err(|bad| {
                    problems.push(
                        Problem::new(format!("the file's name: {bad}"))
                            .hint("rename the file: its name without .wasm is the plugin's id"),
                    )
                });
                if let (Ok(id), true) = (parsed, problems.is_empty()) {
                    let loading = Loading { engine: self, id, settings, progress };
                    match loading.plugin(found, &checked).await {
                        Ok(plugin) => {
                            checked.notes.extend(exports_check::notes(&plugin.manifest, (&*plugin.linked).into()));
                            checked.plugin = Some(Arc::new(plugin));
                        }
                        Err(found) => problems = Problems::from(found).told(),
                    }
                }
            }
        }
        checked.problems = problems;
        checked
    }
}

impl CheckReport {
    fn refused(digest: String, bytes: usize, problems: Vec<Problem>) -> CheckReport {
        CheckReport {
            digest,
            bytes: bytes as u64,
            is_async: false,
            imports: Vec::new(),
            exports: Vec::new(),
            makers: Vec::new(),
            problems,
            notes: Vec::new(),
            plugin: None,
        }
    }

    pub fn manifest(&self) -> Option<&Manifest> {
        self.plugin.as_ref().map(|plugin| &plugin.manifest)
    }
}

/// What is known of a file, and what of it is at hand.
enum Found {
    /// A plugin of the same bytes is loaded.
    Linked(Arc<Linked>),
    Compiled(Description, Component),
    Refused(Description),
}

impl Found {
    fn description(&self) -> &Description {
        match self {
            Found::Linked(linked) => &linked.description,
            Found::Compiled(description, _) | Found::Refused(description) => description,
        }
    }
}

/// Finds out what a file is: from memory, from the cache, or from a process that reads it.
struct Reading<'a> {
    engine: &'a Arc<Engine>,
    digest: &'a str,
    bytes: &'a Arc<[u8]>,
    progress: OnProgress<'a>,
}

impl Reading<'_> {
    async fn known(&self) -> Result<Found, Problem> {
        if let Some(linked) = self.engine.alike.find(self.digest) {
            return Ok(Found::Linked(linked));
        }
        if let Some(found) = self.cached().await?.filter(|found| found.description().is_final()) {
            if let Found::Compiled(..) = &found {
                (self.progress)(Progress::Cached);
            }
            return Ok(found);
        }
        (self.progress)(Progress::WaitingToCompile);
        let _permit = self.engine.compiling.acquire().await;
        // Someone else may have compiled the same in the meantime.
        let before = match self.cached().await? {
            Some(found) if found.description().is_final() => return Ok(found),
            Some(found) => found.description().interrupted,
            None => 0,
        };
        (self.progress)(Progress::Compiling);
        self.read(before).await
    }

    /// What is in the cache: a description, and the code that it speaks of.
    async fn cached(&self) -> Result<Option<Found>, Problem> {
        let (engine, digest) = (Arc::clone(self.engine), self.digest.to_owned());
        let look = aside(move || {
            let place = engine.cache.description_place(&digest, engine.compiler());
            let described = engine.cache.described(&place)?;
            let Some(code) = described.code.clone() else { return Some(Ok(Found::Refused(described))) };
            let side = match engine.side_for(described.kind) {
                Ok(side) => side,
                Err(problem) => return Some(Err(problem)),
            };
            let place = engine.cache.place(&digest, described.kind, &side.pool.engine);
            let component = engine.cache.load(&place, &code, &side.pool.engine)?;
            Some(Ok(Found::Compiled(described, component)))
        });
        look.await?.transpose()
    }

    /// Has the file read and compiled. `before` says how often its reader was ended from outside.
    async fn read(&self, before: u32) -> Result<Found, Problem> {
        let disk =
            |error: std::io::Error| Problem::new(format!("the cache folder does not take what is compiled: {error}"));
        let cache = &self.engine.cache;
        let files = Files {
            component: cache.temporary("component"),
            code: cache.temporary("compiled"),
            description: cache.temporary("description"),
        };
        let bytes = Arc::clone(self.bytes);
        let files = aside(move || files.component.write(&bytes).map(|()| files)).await?.map_err(disk)?;
        let (engine, digest) = (Arc::clone(self.engine), self.digest.to_owned());
        match child::compile(&self.engine.compile, files).await {
            Ok((described, files)) => {
                let kept = aside(move || {
                    let place = engine.cache.description_place(&digest, engine.compiler());
                    let code = match described.code {
                        Some(_) => {
                            let side = engine.side_for(described.kind)?;
                            Some(engine.cache.place(&digest, described.kind, &side.pool.engine))
                        }
                        None => None,
                    };
                    let code = code.as_deref().map(|place| (&files.code, place));
                    engine.cache.keep(code, (&files.description, &place)).map_err(disk)
                });
                kept.await??;
            }
            Err(Failed::Here(problem)) => return Err(problem),
            Err(Failed::Ended(problem)) => return self.refused(problem, 0).await,
            Err(Failed::Interrupted(problem)) => return self.refused(problem, before + 1).await,
        }
        self.cached().await?.ok_or_else(|| {
            Problem::new("what was compiled of it cannot be read back")
                .hint("see the host's log; the disk of the cache folder may be failing")
        })
    }

    /// Remembers that the file ended its reader: it is not read again until it changes.
    async fn refused(&self, problem: Problem, interrupted: u32) -> Result<Found, Problem> {
        let description = Description { interrupted, ..Description::refused(Problems::from(vec![problem]).told()) };
        let (engine, digest, its) = (Arc::clone(self.engine), self.digest.to_owned(), description.clone());
        aside(move || {
            let place = engine.cache.description_place(&digest, engine.compiler());
            if let Err(error) = engine.cache.remember(&its, &place) {
                tracing::warn!(file = %place.display(), "the cache folder does not take what is known of a plugin, which is read again at the next start: {error}");
            }
        })
        .await?;
        Ok(Found::Refused(description))
    }
}

/// A component whose contract is in order.
struct Loading<'a> {
    engine: &'a Arc<Engine>,
    id: PluginId,
    settings: &'a PluginSettings,
    progress: OnProgress<'a>,
}

impl Loading<'_> {
    async fn plugin(self, found: Found, checked: &CheckReport) -> Result<Plugin, Vec<Problem>> {
        let one = |problem| vec![problem];
        let linked = match found {
            Found::Linked(linked) => linked,
            Found::Compiled(description, component) => {
                self.linked(description, component, &checked.digest).await.map_err(one)?
            }
            Found::Refused(description) => return Err(description.problems),
        };
        let weight = wasmtime_config::weight(linked.pre.component(), linked.description.core_instances);
        (self.progress)(Progress::Describing);
        let text = self.described(&linked, weight).await.map_err(one)?;
        let (id, settings) = (self.id.clone(), self.settings.clone());
        // Schemas are compiled on the way.
        let manifest = aside(move || Manifest::read(&id, &text, &settings)).await.map_err(one)??;
        let problems = exports_check::problems(&manifest, (&*linked).into());
        if !problems.is_empty() {
            return Err(problems);
        }
        let premises = Arc::new(self.premises(self.settings.clone()));
        Ok(Plugin {
            id: self.id,
            digest: checked.digest.clone(),
            bytes: checked.bytes,
            manifest,
            is_async: checked.is_async,
            imports: checked.imports.clone(),
            weight,
            premises,
            linked,
        })
    }

    async fn linked(
        &self,
        description: Description,
        component: Component,
        digest: &str,
    ) -> Result<Arc<Linked>, Problem> {
        let engine = Arc::clone(self.engine);
        let linked = aside(move || {
            let linked = link(engine.side_for(description.kind)?, description, &component)?;
            // Else the first attempt would pay for it.
            let _ = component.initialize_copy_on_write_image();
            Ok(linked)
        });
        Ok(self.engine.alike.keep(digest, linked.await??))
    }

    fn premises(&self, settings: PluginSettings) -> Premises {
        Premises::new(self.id.as_str(), settings, self.engine.home.clone())
    }

    /// What `describe` returns. Waits for room in the pool like any attempt.
    async fn described(&self, linked: &Arc<Linked>, weight: u32) -> Result<String, Problem> {
        // Of what is granted nothing is there: a plugin says the same of itself wherever it is.
        let premises = Arc::new(self.premises(PluginSettings::default()));
        let _permits = self.engine.describing.acquire_many(weight.min(wasmtime_config::DESCRIBING_MAX)).await;
        for _ in 0..ROOM_LOOKS_MAX {
            let asked = describe(Arc::clone(linked), Arc::clone(&premises));
            let described = self.engine.spawn_guest(asked).await.map_err(|error| failed_on_it(&error))?;
            if let Ok(described) = described {
                self.engine.tell_room();
                return described;
            }
            self.engine.wait_for_room().await;
        }
        Err(Problem::new("no sandbox could be had in time to describe it: attempts hold all memories and tables")
            .hint("load it again when the host has less to do, or set fewer attempts at once"))
    }
}

/// Does what takes long where it holds up nobody.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| failed_on_it(&error))
}

fn failed_on_it(error: &tokio::task::JoinError) -> Problem {
    Problem::new(format!("the host failed on it, which is a bug of the host: {error}"))
}

/// Everything that can be told of imports and exports was told before; what is left is for the host's developers too.
fn link(side: &Side, description: Description, component: &Component) -> Result<Linked, Problem> {
    let linked = side.linker.instantiate_pre(component).and_then(|pre| Linked::new(description, pre));
    linked.map_err(|error| Problem::new(format!("it does not fit this host: {error:#}")))
}
