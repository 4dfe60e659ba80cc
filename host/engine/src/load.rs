//! Loads a plugin from the bytes of a component, and explains what loading would do.

use std::sync::Arc;

use wharf_core::budget::MemoryUse;
use wharf_core::ids::PluginId;

use crate::attempt::describe::describe;
use crate::compile::cache::{self, CachedCode, Code};
use crate::compile::child_process::{self, ChildFiles, CompileFailure};
use crate::compile::exports_check;
use crate::compile::linked::Linked;
use crate::engine::{Engine, EngineVariant, POOL_RETRIES_MAX};
use crate::inspect::contract_check;
use crate::inspect::description::{Description, INTERRUPTED_MAX};
use crate::inspect::grants_check::GrantsCheck;
use crate::plugin::Plugin;
use crate::plugin_file::PluginFile;
use crate::sandbox::plugin_env::PluginEnv;
use crate::sandbox::preview1;
use crate::spec::budget_check::within_budget;
use crate::spec::file_name::plugin_id;
use crate::spec::grants::PluginSettings;
use crate::spec::manifest::Manifest;
use crate::spec::problem::{LoadError, Problem, Problems};
use crate::spec::sources::{ManifestSources, Origin, PlainTasks};
use crate::wasmtime_config::{self, EngineKind};

/// The beginning of the digest that is the version of a component which names none.
const VERSION_CHARS: usize = 12;

/// A step of loading a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The file's first bytes are checked and its digest is computed.
    Checking,
    /// Other components are being compiled.
    WaitingToCompile,
    /// The component is read and compiled.
    Compiling,
    /// Its compiled code was found in the cache.
    Cached,
    /// The plugin's `describe` is called for its manifest.
    Describing,
}

/// The result of checking a file: what it is, and what loading it would do.
#[derive(Debug)]
pub struct CheckReport {
    /// SHA-256 of the file, in hex; of both files if a manifest is beside it.
    pub digest: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Returns true if the component needs component-model concurrency.
    pub is_async: bool,
    /// Interfaces that the component imports, with their versions.
    pub imports: Vec<String>,
    /// Interfaces that the component exports, with their versions.
    pub exports: Vec<String>,
    /// Languages, SDKs and tools that name themselves as its producers, with their versions.
    pub producers: Vec<String>,
    /// Why the file cannot be loaded; empty if it can.
    pub problems: Vec<Problem>,
    /// True if the problems say nothing about the file, so that it may be loaded later as it is.
    pub passing: bool,
    /// Notes for its operator, such as that something works only with a grant.
    pub notes: Vec<Problem>,
    /// The loaded plugin; present exactly if there are no problems.
    pub plugin: Option<Arc<Plugin>>,
}

/// A callback that receives each step of loading.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

impl Engine {
    /// Makes a plugin of a component: checks it, compiles it or takes its code from the cache, links it, and reads its
    /// manifest.
    ///
    /// # Errors
    /// [`LoadError`] with every problem that was found.
    pub async fn load(
        self: &Arc<Self>,
        id: PluginId,
        file: impl Into<PluginFile>,
        settings: &PluginSettings,
        progress: OnProgress<'_>,
    ) -> Result<Arc<Plugin>, LoadError> {
        let started = std::time::Instant::now();
        let checked = self.check(id.as_str(), file, settings, progress).await;
        tracing::debug!(
            plugin = %id,
            digest = checked.digest,
            problems = checked.problems.len(),
            elapsed = ?started.elapsed(),
            "component checked, compiled or found in the cache, and linked"
        );
        checked.plugin.ok_or(LoadError { problems: checked.problems, passing: checked.passing })
    }

    /// Does everything that [`Engine::load`] does, and returns all that was found on the way. `id` is the file's name
    /// without `.wasm`.
    pub async fn check(
        self: &Arc<Self>,
        id: &str,
        file: impl Into<PluginFile>,
        settings: &PluginSettings,
        progress: OnProgress<'_>,
    ) -> CheckReport {
        let file = file.into();
        progress(Progress::Checking);
        let bytes = Arc::clone(&file.component);
        let bytes_to_check = Arc::clone(&bytes);
        let inspected =
            run_blocking(move || (cache::digest_of(&bytes_to_check), contract_check::is_wasm(&bytes_to_check)));
        let mut checked = CheckReport::refused(String::new(), bytes.len(), Vec::new());
        let mut component_digest = String::new();
        let is_wasm = match inspected.await {
            Ok((digest, is_wasm)) => {
                checked.digest = file.digest(&digest);
                component_digest = digest;
                is_wasm
            }
            Err(failure) => Err(failure.problem),
        };
        let reading = FileLoader { engine: self, digest: &component_digest, bytes: &bytes, progress };
        let found = match is_wasm {
            Ok(()) => reading.state().await,
            Err(problem) => Err(problem.into()),
        };
        let mut problems = Vec::new();
        match found {
            Err(Failure { problem, passing }) => {
                problems.push(problem);
                checked.passing = passing;
            }
            Ok(found) => {
                let description = found.description();
                checked.is_async = description.kind == EngineKind::Async;
                (checked.imports, checked.exports) = (description.imports.clone(), description.exports.clone());
                checked.producers = description.producers.clone();
                problems.extend(description.problems.iter().cloned());
                let granted = GrantsCheck { id, imports: &checked.imports, settings };
                problems.extend(granted.problems());
                checked.notes = granted.notes();
                checked.notes.extend(description.notes.iter().cloned());
                let parsed = plugin_id(id).map_err(|problem| problems.push(problem));
                if let (Ok(id), true) = (parsed, problems.is_empty()) {
                    let manifest = file.manifest.as_deref();
                    let loading = PluginBuilder { engine: self, id, settings, progress, manifest };
                    match loading.plugin(found, &checked, &component_digest).await {
                        Ok(plugin) => {
                            plugin.log_notes();
                            checked.notes.extend(plugin.notes.iter().cloned());
                            checked.notes.extend(exports_check::notes(&plugin.manifest, &plugin.linked));
                            checked.plugin = Some(Arc::new(plugin));
                        }
                        Err(error) => {
                            problems = Problems::from(error.problems).into_bounded();
                            checked.passing = error.passing;
                        }
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
            producers: Vec::new(),
            problems,
            passing: false,
            notes: Vec::new(),
            plugin: None,
        }
    }

    /// Returns the manifest, if the file could be loaded.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.plugin.as_ref().map(|plugin| &plugin.manifest)
    }
}

/// A failure of the host while it loads a file.
struct Failure {
    problem: Problem,
    /// It may be over when the file is loaded again.
    passing: bool,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure { problem, passing: false }
    }
}

impl From<Failure> for LoadError {
    fn from(failure: Failure) -> LoadError {
        LoadError { problems: vec![failure.problem], passing: failure.passing }
    }
}

fn passing(problem: Problem) -> Failure {
    Failure { problem, passing: true }
}

/// A file that is being loaded, and what was made of it so far.
enum FileState {
    /// A plugin of the same bytes is loaded.
    Linked(Arc<Linked>),
    Compiled(Description, CachedCode),
    Refused(Description),
}

impl FileState {
    fn description(&self) -> &Description {
        match self {
            FileState::Linked(linked) => &linked.description,
            FileState::Compiled(description, _) | FileState::Refused(description) => description,
        }
    }
}

/// Finds out what a file is: from memory, from the cache, or from a process that reads it.
struct FileLoader<'a> {
    engine: &'a Arc<Engine>,
    digest: &'a str,
    bytes: &'a Arc<[u8]>,
    progress: OnProgress<'a>,
}

impl FileLoader<'_> {
    async fn state(&self) -> Result<FileState, Failure> {
        if let Some(linked) = self.engine.linked_cache.find(self.digest) {
            return Ok(FileState::Linked(linked));
        }
        let limits = self.engine.compile.reader_limits();
        if let Some(found) = self.cached().await?.filter(|found| found.description().is_final(limits)) {
            if let FileState::Compiled(..) = &found {
                (self.progress)(Progress::Cached);
            }
            return Ok(found);
        }
        (self.progress)(Progress::WaitingToCompile);
        let _permit = self.engine.compiling.acquire().await;
        // Another task may have compiled the same bytes in the meantime.
        let before = match self.cached().await? {
            Some(found) if found.description().is_final(limits) => return Ok(found),
            Some(found) => found.description().interrupted,
            None => 0,
        };
        // The process may take all of its limit, so that is reserved.
        let compile_bytes = self.engine.compile.memory_bytes();
        let _memory = self.engine.budget().reserve(MemoryUse::Compile, compile_bytes).await;
        (self.progress)(Progress::Compiling);
        self.read(before).await
    }

    /// Reads the cache: a description, and the code that it names.
    async fn cached(&self) -> Result<Option<FileState>, Failure> {
        let (engine, digest) = (Arc::clone(self.engine), self.digest.to_owned());
        let reading = run_blocking(move || {
            let described = engine.cache.description(&engine.cache.description_name(&digest, engine.compiler()))?;
            let Some(code) = described.code.clone() else { return Some(Ok(FileState::Refused(described))) };
            let variant = match engine.variant_for(described.kind) {
                Ok(variant) => variant,
                Err(problem) => return Some(Err(passing(problem))),
            };
            let name = engine.cache.code_name(&digest, described.kind, &variant.pool.engine);
            let code = engine.cache.load(&name, described.form, &code, &variant.pool.engine)?;
            Some(Ok(FileState::Compiled(described, code)))
        });
        reading.await?.transpose()
    }

    /// Has the file read and compiled. `before` is how often its reader was ended from outside.
    async fn read(&self, before: u32) -> Result<FileState, Failure> {
        let disk = |error: std::io::Error| {
            passing(
                Problem::new(format!("could not write to the cache folder: {error}"))
                    .hint("see that its disk has room, or set `cache-dir` to another folder"),
            )
        };
        let cache = &self.engine.cache;
        let folder = cache.folder();
        let files = ChildFiles {
            component: cache.temporary(&folder, "component"),
            code: cache.temporary(&folder, "compiled"),
            description: cache.temporary(&folder, "description"),
        };
        let bytes = Arc::clone(self.bytes);
        let files = run_blocking(move || files.component.write(&bytes).map(|()| files)).await?.map_err(disk)?;
        let (engine, digest) = (Arc::clone(self.engine), self.digest.to_owned());
        match child_process::compile(&self.engine.compile, files).await {
            Ok((described, files)) => {
                let kept = run_blocking(move || {
                    let name = engine.cache.description_name(&digest, engine.compiler());
                    let code = match described.code {
                        Some(_) => {
                            let variant = engine.variant_for(described.kind).map_err(passing)?;
                            Some(engine.cache.code_name(&digest, described.kind, &variant.pool.engine))
                        }
                        None => None,
                    };
                    let code = code.as_deref().map(|name| (&files.code, name));
                    engine.cache.publish(code, (&files.description, &name)).map_err(disk)?;
                    engine.cache.trim(&digest);
                    Ok::<_, Failure>(())
                });
                kept.await??;
            }
            Err(CompileFailure::Host(problem)) => return Err(passing(problem)),
            Err(CompileFailure::Ended(problem)) => {
                self.refused(problem.clone(), 0).await?;
                return Err(problem.into());
            }
            Err(CompileFailure::Interrupted(problem)) => {
                let interrupted = before + 1;
                self.refused(problem.clone(), interrupted).await?;
                return Err(Failure { problem, passing: interrupted < INTERRUPTED_MAX });
            }
        }
        self.cached().await?.ok_or_else(|| {
            passing(
                Problem::new("could not read the compiled plugin back from the cache")
                    .hint("see the host's log; the disk of the cache folder may be failing"),
            )
        })
    }

    /// Records in the cache that the file ended its reader, so that it is not read again until it changes.
    async fn refused(&self, problem: Problem, interrupted: u32) -> Result<(), Problem> {
        let description = Description {
            interrupted,
            ended_within: Some(self.engine.compile.reader_limits()),
            ..Description::refused(Problems::from(vec![problem]).into_bounded())
        };
        let (engine, digest) = (Arc::clone(self.engine), self.digest.to_owned());
        run_blocking(move || {
            let name = engine.cache.description_name(&digest, engine.compiler());
            if let Err(error) = engine.cache.store_refusal(&description, &name) {
                tracing::warn!(digest, "could not write a plugin's description to the cache folder; the plugin is read again at the next start: {error}");
            }
        })
        .await
        .map_err(|failure| failure.problem)
    }
}

/// Makes a plugin of a component whose contract is in order.
struct PluginBuilder<'a> {
    engine: &'a Arc<Engine>,
    id: PluginId,
    settings: &'a PluginSettings,
    progress: OnProgress<'a>,
    /// The manifest beside the component.
    manifest: Option<&'a [u8]>,
}

impl PluginBuilder<'_> {
    async fn plugin(
        self,
        found: FileState,
        checked: &CheckReport,
        component_digest: &str,
    ) -> Result<Plugin, LoadError> {
        let all = |problems| LoadError { problems, passing: false };
        let linked = match found {
            FileState::Linked(linked) => linked,
            FileState::Compiled(description, code) => self.linked(description, code, component_digest).await?,
            FileState::Refused(description) => return Err(all(description.problems)),
        };
        let needed = linked.resources_required();
        let sandboxes = wasmtime_config::sandboxes_of(needed.as_ref());
        let (start_bytes, first_pages) = wasmtime_config::start_bytes_of(needed.as_ref());
        let sources = Arc::new(self.sources(&linked, sandboxes, &checked.digest).await?);
        let (id, settings, parts) = (self.id.clone(), self.settings.clone(), Arc::clone(&sources));
        // Compiles the schemas, too; and a look at a folder may wait for another machine.
        let read =
            run_blocking(move || Manifest::of(&id, &parts, &settings).map(|read| (read, settings.missing_folders())));
        let (mut manifest, missing_folders) = read.await?.map_err(all)?;
        let total = self.engine.budget().total();
        let mut notes = within_budget(&mut manifest, &self.id, self.settings, total);
        notes.extend(missing_folders);
        let problems = exports_check::problems(&manifest, &linked);
        if !problems.is_empty() {
            return Err(all(problems));
        }
        let env = Arc::new(self.env(self.settings.clone()));
        Ok(Plugin {
            id: self.id,
            digest: checked.digest.clone(),
            bytes: checked.bytes,
            manifest,
            notes,
            is_async: checked.is_async,
            imports: checked.imports.clone(),
            sandboxes,
            start_bytes,
            first_pages,
            sources,
            env,
            linked,
        })
    }

    async fn linked(&self, description: Description, code: CachedCode, digest: &str) -> Result<Arc<Linked>, Failure> {
        let engine = Arc::clone(self.engine);
        let linked = run_blocking(move || {
            let variant = engine.variant_for(description.kind).map_err(passing)?;
            // Otherwise the first attempt would pay for it.
            let _ = code.code.prepare();
            link(variant, description, code)
        });
        Ok(self.engine.linked_cache.get_or_insert(digest, linked.await??))
    }

    fn env(&self, settings: PluginSettings) -> PluginEnv {
        PluginEnv::new(self.id.as_str(), settings, &self.engine.env)
    }

    /// Returns the parts of the manifest. Only a plugin that has our contract is asked for one.
    async fn sources(&self, linked: &Arc<Linked>, sandboxes: u32, digest: &str) -> Result<ManifestSources, LoadError> {
        let mut texts = Vec::new();
        let plain = linked
            .plain_tasks()
            .map(|tasks| PlainTasks { version: digest.chars().take(VERSION_CHARS).collect(), tasks });
        if plain.is_none() {
            (self.progress)(Progress::Describing);
            texts.push((Origin::Describe, self.described(linked, sandboxes).await?.into()));
        }
        texts.extend(linked.description.manifest.iter().map(|text| (Origin::Section, text.as_str().into())));
        if let Some(manifest) = self.manifest {
            let text = std::str::from_utf8(manifest).map_err(|error| {
                Problem::new(format!("{}.toml: it is not UTF-8 at byte {}", self.id, error.valid_up_to()))
            })?;
            texts.push((Origin::File, text.into()));
        }
        Ok(ManifestSources { plain, texts })
    }

    /// Returns the text that `describe` returned. Waits for a slot of the pool like any attempt.
    async fn described(&self, linked: &Arc<Linked>, sandboxes: u32) -> Result<String, LoadError> {
        // Without the plugin's grants: a plugin describes itself in the same way wherever it is.
        let env = Arc::new(self.env(PluginSettings::default()));
        let _permits = self.engine.describing.acquire_many(sandboxes.min(wasmtime_config::DESCRIBES_AT_ONCE)).await;
        for _ in 0..POOL_RETRIES_MAX {
            let describing = describe(Arc::clone(linked), Arc::clone(&env));
            let described = self.engine.spawn_guest(describing).await.map_err(|error| host_bug(&error).problem)?;
            if let Ok(described) = described {
                self.engine.notify_pool_freed();
                return described;
            }
            self.engine.wait_for_pool().await;
        }
        Err(LoadError::passing(
            Problem::new("no sandbox was free in time to call `describe`: attempts use all memories and tables")
                .hint("load it again when the host has less to do, or lower `attempts.at-once`"),
        ))
    }
}

/// Runs work that takes long on a thread where it delays nothing else.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| host_bug(&error))
}

fn host_bug(error: &tokio::task::JoinError) -> Failure {
    Problem::new(format!("the host panicked on it: {error}; this is a bug of the host")).into()
}

/// Links a component or a module. Every mismatch of imports and exports was reported before; an error that is left is also for the
/// host's developers.
fn link(variant: &EngineVariant, description: Description, code: CachedCode) -> Result<Linked, Failure> {
    let linked = match &code.code {
        Code::Component(component) => {
            variant.linker.instantiate_pre(component).and_then(|pre| Linked::new(description, pre, code.in_use))
        }
        Code::Module(module) => preview1::linker(&variant.pool.engine)
            .and_then(|linker| linker.instantiate_pre(module))
            .map(|pre| Linked::of_module(description, pre, code.in_use)),
    };
    linked.map_err(|error| Problem::new(format!("could not link it: {error:#}")).into())
}
