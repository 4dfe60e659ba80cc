//! Files in the plugin folder: read, compared with the contract, compiled and linked as in a host, and asked what they are.
//! What a component does to its reader is told; what it does to the engine is a fault.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Runtime;
use wharf_core::bounds;
use wharf_engine::{CacheSettings, Compile, CompileLimits, Engine, PluginSettings, Settings, compile_child_main};

use super::driver::{Target, fuzz};

const TARGET: Target = Target {
    name: "components",
    tokens: &[
        "\0asm\x0d\0\x01\0",
        "\0asm\x01\0\0\0",
        "wharf:plugin/manifest@0.1.0",
        "wharf:plugin/handler@0.1.0",
        "wharf:plugin/subscriber@0.1.0",
        "wharf:plugin/attempt@0.1.0",
        "wasi:io/poll@0.2.6",
        "describe",
        "handle",
        "name",
        "producers",
        ".debug_line",
        ".debug_info",
        "\x42\x01\x01",
        "\x41\x01\x01",
        "\x40\x00\x01\x00",
        "\x07\x01\x7f",
        "\x0b",
        "_ZN5words6handle17h0123456789abcdefE",
        "_RINvC1a1bTTuuETuuEE",
    ],
    longest: 64 * 1024,
    cpu: Duration::from_secs(3),
    make: None,
    check,
};

fn check(input: &[u8]) -> String {
    static HOST: OnceLock<(Runtime, Arc<Engine>)> = OnceLock::new();
    let (runtime, engine) = HOST.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let engine = runtime.block_on(async { Engine::new(settings()) }).expect("an engine");
        (runtime, engine)
    });
    let checked =
        runtime.block_on(engine.check("fuzzed", Arc::<[u8]>::from(input), &PluginSettings::default(), &|_| {}));
    let told: usize = checked.problems.iter().map(|problem| problem.what.len() + problem.hint.len()).sum();
    assert!(told <= bounds::REFUSAL_BYTES_MAX + 1024, "{told} bytes of text");
    assert!(checked.plugin.is_some() == checked.problems.is_empty(), "it is a plugin, or something is wrong with it");
    for names in [&checked.imports, &checked.exports] {
        assert!(names.len() <= bounds::COMPONENT_NAMES_MAX + 1, "{} names", names.len());
        assert!(names.iter().all(|name| name.len() <= bounds::COMPONENT_NAME_BYTES_MAX), "{names:?}");
    }
    match checked.problems.first() {
        Some(problem) => problem.what.clone(),
        None => "a plugin".to_owned(),
    }
}

fn settings() -> Settings {
    let cache_dir: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-cache");
    // What became of earlier inputs is nobody's concern.
    let _ = std::fs::remove_dir_all(&cache_dir);
    let args = ["--exact", "components::the_reading_process", "--nocapture", "--"].map(OsString::from);
    let program = std::env::current_exe().expect("the file of this test");
    let max = CompileLimits { inspect_time: Duration::from_secs(5), ..CompileLimits::default() };
    let compile = Compile::Child { program, args: args.into(), max };
    let cache = CacheSettings::in_folder(cache_dir);
    Settings {
        attempts: 2,
        broadcast_calls: 1,
        guest_threads: 1,
        cache,
        compile,
        memory_budget: 4 << 30,
        extra_ca: None,
    }
}

/// Not a test when it is run among the others: the process in which the engine of the one below reads files.
#[test]
fn the_reading_process() {
    let args: Vec<OsString> = std::env::args_os().skip_while(|arg| arg != "--").skip(1).collect();
    if !args.is_empty() {
        std::process::exit(i32::from(compile_child_main(args)));
    }
}

#[test]
fn holds() {
    fuzz(module_path!(), &TARGET);
}
