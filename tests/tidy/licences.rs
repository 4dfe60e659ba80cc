//! Every dependency has a licence that `deny.toml` allows, and comes from the registry.

use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

use crate::{read, root};

/// The licences that `deny.toml` allows.
fn allowed() -> Vec<String> {
    let file: toml::Table = read(&root().join("deny.toml")).parse().expect("deny.toml is TOML");
    let list = file["licenses"]["allow"].as_array().expect("`licenses.allow` is a list");
    list.iter().map(|name| name.as_str().expect("a licence's name").to_owned()).collect()
}

/// Returns true if a licence expression can be met with the allowed licences alone.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let parsed = Expression::parse_mode(expression, ParseMode::LAX);
    let parsed = parsed.unwrap_or_else(|error| panic!("invalid licence expression `{expression}`: {error}"));
    parsed.evaluate(|requirement| allowed.contains(&requirement.to_string()))
}

/// The platform of this machine, as rustc names it.
fn platform() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8(output.stdout).expect("rustc writes text");
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--format-version", "1", "--filter-platform", &platform()])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let (allowed, mut refused) = (allowed(), Vec::new());
    let packages = metadata["packages"].as_array().expect("packages");
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("NONE");
        let source = package["source"].as_str().unwrap_or("registry+path");
        if !source.starts_with("registry+") || !is_met(licence, &allowed) {
            refused.push(format!("{} {}: {licence}, from {source}", package["name"], package["version"]));
        }
    }
    assert!(packages.len() > 100, "cargo lists the dependencies: {}", packages.len());
    assert!(refused.is_empty(), "deny.toml does not allow:\n{}", refused.join("\n"));
}

#[test]
fn a_licence_that_is_not_allowed_is_found() {
    let allowed = ["MIT".to_owned(), "Apache-2.0".to_owned()];
    assert!(is_met("GPL-3.0-only OR MIT", &allowed) && is_met("MIT/Apache-2.0", &allowed));
    assert!(!is_met("MIT AND GPL-3.0-only", &allowed) && !is_met("AGPL-3.0-only", &allowed));
}
