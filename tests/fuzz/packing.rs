//! `wharf pack`: core modules as compilers, and others, write them.

use std::time::Duration;

use plugin_kit::contract;
use plugin_kit::pack::pack;

use super::driver::{Target, fuzz};

const TARGET: Target = Target {
    name: "modules",
    tokens: &[
        "\0asm\x01\0\0\0",
        "memory",
        "cabi_realloc",
        "_initialize",
        "_start",
        "wasi_snapshot_preview1",
        "fd_write",
        "component-type",
        "wharf:plugin/manifest@0.1.0#describe",
        "wharf:plugin/handler@0.1.0#handle",
        "wharf:plugin/attempt@0.1.0",
        "cabi_post_",
        "wharf:plugin/subscriber@0.1.0#receive",
        "[async-lift]",
        "[callback]",
        "[resource-drop]new-job",
        "name",
        "producers",
        ".debug_info",
        "env",
        "$root",
        "\x00\x61\x73\x6d",
        "\x60\x00\x00",
        "\x0b",
        "\x7f",
    ],
    longest: 64 * 1024,
    cpu: Duration::from_secs(3),
    make: None,
    check,
};

fn check(input: &[u8]) -> String {
    match pack(input, None, contract::WORLD) {
        Ok(component) => {
            assert!(component.starts_with(b"\0asm\x0d\0\x01\0"), "it is a component");
            // The adapter for WASI preview 1 is 50 KB of it.
            assert!(component.len() <= 4 * input.len() + 256 * 1024, "{} bytes of {}", component.len(), input.len());
            "a component".to_owned()
        }
        Err(error) => {
            let told = format!("{error:#}");
            assert!(!told.is_empty() && told.len() <= 64 * 1024 + 4 * input.len(), "{} bytes of text", told.len());
            told
        }
    }
}

#[test]
fn holds() {
    fuzz(module_path!(), &TARGET);
}
