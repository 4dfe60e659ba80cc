//! From bytes to a plugin, and for people: what would happen on the way.

use std::sync::Arc;

use wasmtime::component::Component;
use wharf_core::ids::PluginId;

use crate::cache;
use crate::compile;
use crate::contract::{self, Inspected};
use crate::declared;
use crate::describe::describe;
use crate::engine::{Engine, ROOM_LOOKS_MAX, Side};
use crate::grants::PluginSettings;
use crate::linked::Linked;
use crate::makers;
use crate::manifest::Manifest;
use crate::plugin::Plugin;
use crate::pool::{self, Kind};
use crate::premises::Premises;
use crate::problem::{LoadError, Problem};

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
pub struct Checked {
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
        let checked = self.check(id.as_str(), bytes, settings, progress).await;
        checked.plugin.ok_or(LoadError { problems: checked.problems })
    }

    /// Does all that loading does, and says all that was found on the way. `id` is the file's stem.
    pub async fn check(
        self: &Arc<Self>,
        id: &str,
        bytes: Arc<[u8]>,
        settings: &PluginSettings,
        progress: OnProgress<'_>,
    ) -> Checked {
        progress(Progress::Checking);
        let (its_bytes, its_id, its_settings) = (Arc::clone(&bytes), id.to_owned(), settings.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let found = contract::inspect(&its_bytes, &its_id, &its_settings);
            (cache::digest_of(&its_bytes), makers::makers(&its_bytes), found)
        })
        .await;
        let Ok((digest, makers, found)) = looked else {
            let problem = Problem::new("the host failed on reading it, which is a bug of the host");
            return Checked::refused(String::new(), bytes.len(), vec![problem]);
        };
        let mut checked =
            Checked { is_async: found.kind == Kind::Async, ..Checked::refused(digest, bytes.len(), Vec::new()) };
        let Inspected { kind, core_instances, imports, exports, mut problems, notes } = found;
        (checked.imports, checked.exports, checked.notes, checked.makers) = (imports, exports, notes, makers);
        let parsed = id.parse::<PluginId>().map_err(|bad| {
            problems.push(
                Problem::new(format!("the file's name: {bad}"))
                    .hint("rename the file: its name without .wasm is the plugin's id"),
            )
        });
        if let (Ok(id), true) = (parsed, problems.is_empty()) {
            let loading = Loading { engine: self, id, kind, core_instances, bytes, settings, progress };
            match loading.plugin(&checked).await {
                Ok(plugin) => {
                    checked.notes.extend(declared::notes(&plugin.manifest, (&*plugin.linked).into()));
                    checked.plugin = Some(Arc::new(plugin));
                }
                Err(found) => problems = found,
            }
        }
        checked.problems = problems;
        checked
    }
}

impl Checked {
    fn refused(digest: String, bytes: usize, problems: Vec<Problem>) -> Checked {
        Checked {
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

/// A component whose contract is in order.
struct Loading<'a> {
    engine: &'a Arc<Engine>,
    id: PluginId,
    kind: Kind,
    core_instances: u32,
    bytes: Arc<[u8]>,
    settings: &'a PluginSettings,
    progress: OnProgress<'a>,
}

impl Loading<'_> {
    async fn plugin(self, checked: &Checked) -> Result<Plugin, Vec<Problem>> {
        let one = |problem| vec![problem];
        let (engine, kind) = (Arc::clone(self.engine), self.kind);
        // The second pool is made for the first plugin that needs it.
        let side = aside(move || engine.side(kind).map(drop))
            .await
            .and_then(|had| had.map_err(Problem::new))
            .and_then(|()| self.engine.side(kind).map_err(Problem::new));
        let side =
            side.map_err(|problem| vec![problem.within("the engine for concurrent components cannot be had")])?;
        let linked = match self.engine.alike.find(&checked.digest) {
            Some(linked) => linked,
            None => self.linked(side, &checked.digest).await.map_err(one)?,
        };
        let weight = pool::weight(linked.pre.component(), self.core_instances);
        (self.progress)(Progress::Describing);
        let text = self.described(&linked, weight).await.map_err(one)?;
        let (id, settings) = (self.id.clone(), self.settings.clone());
        // Schemas are compiled on the way.
        let manifest = aside(move || Manifest::read(&id, &text, &settings)).await.map_err(one)??;
        let problems = declared::problems(&manifest, (&*linked).into());
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

    async fn linked(&self, side: &Side, digest: &str) -> Result<Arc<Linked>, Problem> {
        let component = self.component(side, digest).await?;
        let (engine, kind) = (Arc::clone(self.engine), self.kind);
        let linked = aside(move || {
            let linked = link(engine.side(kind).map_err(Problem::new)?, &component)?;
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
        let _permits = self.engine.describing.acquire_many(weight.min(pool::DESCRIBING_MAX)).await;
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

    /// From the cache, or compiled.
    async fn component(&self, side: &Side, digest: &str) -> Result<Component, Problem> {
        let place = self.engine.cache.place(digest, self.kind, &side.pool.engine);
        if let Some(component) = self.cached(side, &place).await? {
            (self.progress)(Progress::Cached);
            return Ok(component);
        }
        (self.progress)(Progress::WaitingToCompile);
        let _permit = self.engine.compiling.acquire().await;
        // Someone else may have compiled the same in the meantime.
        if let Some(component) = self.cached(side, &place).await? {
            return Ok(component);
        }
        (self.progress)(Progress::Compiling);
        let (from, to) = (self.engine.cache.temporary("component"), self.engine.cache.temporary("compiled"));
        let disk =
            |error: std::io::Error| Problem::new(format!("the cache folder does not take what is compiled: {error}"));
        let bytes = Arc::clone(&self.bytes);
        let from = aside(move || from.write(&bytes).map(|()| from)).await?.map_err(disk)?;
        compile::compile(&self.engine.compile, self.kind, &from, &to).await?;
        let (engine, its_place) = (Arc::clone(self.engine), place.clone());
        aside(move || engine.cache.keep(&to, &its_place)).await?.map_err(disk)?;
        let made = self.cached(side, &place).await?;
        made.ok_or_else(|| {
            Problem::new("what was compiled of it cannot be read back")
                .hint("see the host's log; the disk of the cache folder may be failing")
        })
    }

    async fn cached(&self, side: &Side, place: &std::path::Path) -> Result<Option<Component>, Problem> {
        let (engine, its_engine, place) = (Arc::clone(self.engine), side.pool.engine.clone(), place.to_owned());
        aside(move || engine.cache.load(&place, &its_engine)).await
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
fn link(side: &Side, component: &Component) -> Result<Linked, Problem> {
    let linked = side.linker.instantiate_pre(component).and_then(Linked::new);
    linked.map_err(|error| Problem::new(format!("it does not fit this host: {error:#}")))
}
