//! What servers send back of secrets: masked where a secret may be sent, also after the value was replaced, and nowhere else.

use serde_json::json;

use crate::harness::{Host, Setup, eventually};
use crate::secret_headers::{BEARER, RUST, World, value};

const GUEST: &str = "villain-http";

fn started(world: &World) -> Host {
    Setup::default().plugin(GUEST).settings(&world.settings(GUEST)).start()
}

/// Returns what the plugin receives from this place.
fn received(host: &Host, url: &str) -> String {
    let job = RUST.send(host, url, "none", "");
    assert_eq!(job["state"], "succeeded", "{job}");
    host.result(job["id"].as_str().expect("an id")).to_string()
}

#[test]
fn only_hosts_of_a_secret_are_masked() {
    let world = World::new();
    let host = started(&world);
    let own = received(&host, &world.url("/value"));
    assert!(own.contains(&"*".repeat(value().len())) && !own.contains("sk_live"), "{own}");
    // A server that nobody sent the value to may guess: the plugin does not learn from it what is right.
    let other = received(&host, &format!("https://127.0.0.1:{}/value", world.other.port));
    assert!(other.contains("sk_live_7f3a/9Q") && !other.contains("***"), "{other}");
}

#[test]
fn a_value_that_was_replaced_twice_is_masked_and_an_older_one_is_not() {
    let world = World::new();
    let host = started(&world);
    let key = world.folder.path().join("key");
    for (new, is_masked) in [("new-value-1", true), ("new-value-2", true), ("new-value-3", false)] {
        std::fs::write(&key, new).expect("written");
        eventually("the new value is sent", || {
            RUST.send(&host, &world.url("/"), BEARER, "");
            (world.echo.last_authorization() == format!("Bearer {new}")).then_some(())
        });
        let kept = received(&host, &world.url("/value"));
        assert_eq!(kept.contains(&"*".repeat(value().len())), is_masked, "{new}: {kept}");
        assert_eq!(kept.contains("sk_live"), !is_masked, "{new}: {kept}");
    }
}

#[test]
fn a_plugin_asks_hosts_of_a_secret_for_no_parts_and_no_charsets() {
    let world = World::new();
    let host = started(&world);
    let headers = json!({ "range": "bytes=0-3", "if-range": "\"a\"", "accept-charset": "utf-16", "x-kept": "1" });
    for url in [world.url("/"), format!("https://127.0.0.1:{}/", world.other.port)] {
        let order = json!({ "do": "http-send", "url": url, "headers": headers, "body": "" });
        let job = host.run(&format!("{GUEST}/do"), order);
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    let (own, other) = (world.echo.seen(), world.other.seen());
    assert!(own.contains("x-kept: 1") && other.contains("x-kept: 1"), "{own}{other}");
    for name in ["\nrange:", "\nif-range:", "\naccept-charset:"] {
        assert!(!own.contains(name), "{name} is in {own}");
        assert!(other.contains(name), "{name} is not in {other}");
    }
}
