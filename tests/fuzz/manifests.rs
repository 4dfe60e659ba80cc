//! Manifests, with what an operator says on top: TOML of strangers, read by the host.

use std::time::Duration;

use wharf_core::bounds;
use wharf_engine::spec::toml_diagnostics;
use wharf_engine::{Manifest, PluginSettings};

use super::driver::{Target, fuzz};

const TARGET: Target = Target {
    name: "manifests",
    tokens: &[
        "name = 'a'\n",
        "version = '1'\n",
        "topics = ['a.*', 'b.>']\n",
        "[tasks.t]\n",
        "[tasks.\"",
        "[receive]\n",
        "payload-schema = '",
        "{\"pattern\": \"a\"}",
        "key = '/a'\n",
        "limit = { per-key = 1, total = 2, group = 'g', on-conflict = 'wait' }\n",
        "retry = { attempts = 2, backoff = '1s..5m' }\n",
        "timeout = '5s'\n",
        "cpu = '1s'\n",
        "stall = '1s'\n",
        "memory = '1MiB'\n",
        "reentrant = true\n",
        "[[",
        "]]",
        "{",
        "}",
        "[",
        "]",
        "a.",
        "'''",
        "\"\"\"",
        "\\u0000",
        "\\",
        "\n",
        "= ",
        "#",
        "\0",
        "1979-05-27T07:32:00Z",
        "0x",
        "inf",
        "1h 30m",
        "99999999999y",
        "-1s",
        "18446744073709551616",
    ],
    // Somewhat more than a manifest may be.
    longest: 68 * 1024,
    cpu: Duration::from_secs(2),
    make: None,
    check,
};

/// A manifest; after a zero byte what the operator says of the plugin.
fn check(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let (manifest, over) = text.split_once('\0').unwrap_or((&text, ""));
    let (settings, mut came_to) = match toml_diagnostics::read::<PluginSettings>(over) {
        Ok(settings) => (settings, String::new()),
        Err(problems) => (PluginSettings::default(), told(&problems)),
    };
    match Manifest::read(&"words".parse().expect("an id"), manifest, &settings) {
        Ok(manifest) => {
            assert!(manifest.tasks.len() <= bounds::TASKS_MAX && manifest.topics.len() <= bounds::TOPICS_MAX);
            assert_eq!(manifest.receive.is_some(), !manifest.topics.is_empty());
            assert!(!manifest.tasks.is_empty() || settings.topics.is_some() || manifest.receive.is_some());
            for task in manifest.tasks.values().chain(manifest.receive.as_ref().map(|receive| &receive.task)) {
                assert!(task.timeout <= bounds::TIMEOUT_MAX && task.cpu <= bounds::TIMEOUT_MAX);
                assert!(task.memory_bytes <= bounds::MEMORY_BYTES_MAX);
                assert!((1..=bounds::RETRY_ATTEMPTS_MAX).contains(&task.retry.attempts));
                came_to.push_str(if task.schema.is_some() { "a task with a schema\n" } else { "a task\n" });
            }
        }
        Err(problems) => came_to.push_str(&told(&problems)),
    }
    came_to
}

/// All that a person would read.
fn told(problems: &[wharf_engine::Problem]) -> String {
    assert!(!problems.is_empty(), "refused without a reason");
    assert!(problems.len() <= 21, "{} problems help nobody", problems.len());
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    assert!(text.len() <= 64 * 1024, "{} bytes of text", text.len());
    text
}

#[test]
fn holds() {
    fuzz(module_path!(), &TARGET);
}
