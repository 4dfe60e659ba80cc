//! From a file to a plugin: compiled once, in a process that may die, kept where only the host may write.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wharf_core::bounds;
use wharf_engine::{Compile, CompileMost, Engine, Progress, Settings, compile_child_main};

use crate::scene::{Scene, assert_returned, child, child_with, component, settings, words_call};

/// Not a test when it is run among the others: the compiling process of those below.
#[test]
fn the_compiling_process() {
    let args: Vec<OsString> = std::env::args_os().skip_while(|arg| arg != "--").skip(1).collect();
    if !args.is_empty() {
        std::process::exit(i32::from(compile_child_main(args)));
    }
}

fn engine(cache: &Path, compile: Compile) -> Arc<Engine> {
    Engine::new(Settings { attempts: 2, broadcast_calls: 1, guest_threads: 1, cache_dir: cache.to_owned(), compile })
        .unwrap()
}

/// Loads `words`, and says which steps it took; `Err` is the explanation.
async fn load(engine: &Arc<Engine>) -> Result<Vec<Progress>, String> {
    let steps = Mutex::new(Vec::new());
    let loaded = engine
        .load("words".parse().unwrap(), component("words").await, &settings(""), &|step| {
            steps.lock().unwrap().push(step)
        })
        .await;
    loaded.map(|_| steps.into_inner().unwrap()).map_err(|error| error.to_string())
}

fn compiled_files(cache: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// As where each tenant has a copy of the same plugin: another name, other settings, the same code in memory.
#[tokio::test(flavor = "multi_thread")]
async fn plugins_of_the_same_bytes_share_what_was_made_of_them() {
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path(), Compile::Here);
    let (bytes, mine) = (component("words").await, settings(""));
    let first = engine.load("first".parse().unwrap(), bytes, &mine, &|_| {}).await.unwrap();
    for file in compiled_files(cache.path()) {
        std::fs::remove_file(file).unwrap();
    }
    assert_eq!(load(&engine).await.unwrap(), [Progress::Checking, Progress::Describing], "nothing is read or compiled");
    drop(first);
    assert!(load(&engine).await.unwrap().contains(&Progress::Compiling), "nobody holds it any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_compiled_once_in_a_process_of_its_own() {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().join("deep/cache");
    let steps = load(&engine(&cache, child())).await.unwrap();
    assert_eq!(steps, [Progress::Checking, Progress::WaitingToCompile, Progress::Compiling, Progress::Describing]);
    assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(
        compiled_files(&cache).len(),
        2,
        "the compiled form and its digest, and nothing temporary: {:?}",
        compiled_files(&cache)
    );
    let again = load(&engine(&cache, child())).await.unwrap();
    assert_eq!(again, [Progress::Checking, Progress::Cached, Progress::Describing]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_in_the_cache_is_made_again() {
    let cache = tempfile::tempdir().unwrap();
    std::fs::set_permissions(cache.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let engine = engine(cache.path(), Compile::Here);
    load(&engine).await.unwrap();
    let compiled =
        compiled_files(cache.path()).into_iter().find(|path| path.extension().is_some_and(|e| e == "cwasm")).unwrap();
    let whole = std::fs::read(&compiled).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [flipped, whole[..whole.len() / 2].to_vec(), Vec::new()] {
        // Replaced, not written into: the old file may be mapped.
        std::fs::remove_file(&compiled).unwrap();
        std::fs::write(&compiled, damaged).unwrap();
        assert!(load(&engine).await.unwrap().contains(&Progress::Compiling));
        assert_eq!(std::fs::read(&compiled).unwrap().len(), whole.len());
    }
    // Compiled code is refused as a plugin.
    let refused =
        engine.load("x".parse().unwrap(), whole.into(), &settings(""), &|_| {}).await.unwrap_err().to_string();
    assert!(
        refused.starts_with("it is compiled already (a .cwasm file): native code from outside is never run"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_others_may_write_is_no_cache() {
    let cache = tempfile::tempdir().unwrap();
    std::fs::set_permissions(cache.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Engine::new(Settings {
        attempts: 1,
        broadcast_calls: 1,
        guest_threads: 1,
        cache_dir: cache.path().to_owned(),
        compile: Compile::Here,
    });
    let told = refused.err().unwrap().to_string();
    assert!(told.contains("may be written by others") && told.contains("chmod 700"), "{told}");
}

fn shell(script: &str) -> Compile {
    Compile::Child { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()], most: CompileMost::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiling_process_that_dies_takes_nothing_with_it() {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().join("cache");
    let cases = [
        (shell("kill -9 $$"), "the process that compiled it was ended by signal 9"),
        (
            shell("echo 'memory allocation of 77 bytes failed' >&2; kill -6 $$"),
            "compiling it takes more than 4.0 GiB of memory",
        ),
        (shell("kill -XCPU $$"), "compiling it takes too long"),
        (shell("echo 'no such instruction' >&2; exit 1"), "it cannot be compiled: no such instruction"),
        (shell("yes | head -c 1000000 >&2; exit 1"), "it cannot be compiled: y"),
        (
            Compile::Child { program: "/no/such/program".into(), args: Vec::new(), most: CompileMost::default() },
            "the compiling process cannot be run",
        ),
        (shell("exit 0"), "the cache folder does not take what is compiled"),
    ];
    for (compile, says) in cases {
        let told = load(&engine(&cache, compile)).await.unwrap_err();
        assert!(told.contains(says), "`{says}` is not in {told}");
        assert_eq!(compiled_files(&cache), Vec::<PathBuf>::new(), "nothing is left behind");
    }
    load(&engine(&cache, child())).await.unwrap();
}

/// The compiling process's own bounds, each reached by a real component, while another plugin goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_much_to_compile_is_refused_and_nobody_notices() {
    let scene = Scene::new(2);
    let words = scene.load("words").await;
    let folder = tempfile::tempdir().unwrap();
    let most = CompileMost::default();
    // How much it takes depends on the program that compiles: less and less, until it is too little.
    let memory = (8..13).rev().map(|part| CompileMost { memory_bytes: part * (16 << 20), ..most });
    // A second of processor, or by the clock where the machine has other things to do.
    let time = [1000, 50].map(|ms| CompileMost { time: Duration::from_millis(ms), ..most });
    let mut refused = Vec::new();
    for (number, most) in memory.chain(time).enumerate() {
        let is_memory = most.memory_bytes < bounds::COMPILE_MEMORY_BYTES_MAX;
        if is_memory && !refused.is_empty() {
            continue;
        }
        let cache = folder.path().join(number.to_string());
        let engine = engine(&cache, child_with(most));
        // The first takes some memory and little time, the other several seconds on any machine.
        let name = if is_memory { "thumbnail" } else { "words-python" };
        let bytes = component(name).await;
        let loading = async { engine.load(name.parse().unwrap(), bytes, &settings(""), &|_| {}).await };
        let beside = async {
            for _ in 0..10 {
                assert_returned(&scene.run(&words, words_call(&words)).await.0);
            }
        };
        let (loaded, ()) = tokio::join!(loading, beside);
        if loaded.is_ok() && is_memory {
            continue;
        }
        let told = loaded.unwrap_err().to_string();
        println!("{most:?}: {told}");
        assert_eq!(compiled_files(&cache), Vec::<PathBuf>::new());
        refused.push(told.lines().next().unwrap_or_default().split(" MiB").next().unwrap_or_default().to_owned());
    }
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert!(refused[0].starts_with("compiling it takes more than 1"), "{refused:?}");
    assert!(
        refused[1..].iter().all(|told| told.starts_with("compiling it takes too long: it was ended after")),
        "{refused:?}"
    );
}
