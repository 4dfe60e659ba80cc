//! Tests methods of resources as tasks: the resource is made for the call, and dropped after it.

use std::sync::Arc;

use wharf_core::outcome::{Failure, Outcome};
use wharf_engine::Plugin;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser_newer::Resolve;

use crate::scene::{Scene, assert_returned, call, settings};

const WIT: &str = "package a:b;
interface doors {
    resource door {
        open: static func(key: u32) -> result<door, string>;
        pass: func(by: u32) -> u32;
    }
    resource gate {
        constructor(start: u32);
        height: func() -> u32;
    }
}
world w { export doors; }";

/// A door of the key 0 does not open. The drop of a door traps if its key is 13, or if nobody passed it before.
const DOORS: &str = r#"(module
    (import "[export]a:b/doors" "[resource-new]door" (func $new_door (param i32) (result i32)))
    (import "[export]a:b/doors" "[resource-new]gate" (func $new_gate (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 128) "it is locked")
    (global $passed (mut i32) (i32.const 0))
    (func (export "a:b/doors#[static]door.open") (param $key i32) (result i32)
        (if (local.get $key)
            (then (i32.store (i32.const 68) (call $new_door (local.get $key))))
            (else
                (i32.store8 (i32.const 64) (i32.const 1))
                (i32.store (i32.const 68) (i32.const 128))
                (i32.store (i32.const 72) (i32.const 12))))
        (i32.const 64))
    (func (export "a:b/doors#[method]door.pass") (param $key i32) (param $by i32) (result i32)
        (global.set $passed (i32.const 1))
        (if (i32.eqz (local.get $by)) (then unreachable))
        (i32.add (local.get $key) (local.get $by)))
    (func (export "a:b/doors#[dtor]door") (param $key i32)
        (if (i32.or (i32.eq (local.get $key) (i32.const 13)) (i32.eqz (global.get $passed))) (then unreachable)))
    (func (export "a:b/doors#[constructor]gate") (param $start i32) (result i32)
        (call $new_gate (local.get $start)))
    (func (export "a:b/doors#[method]gate.height") (param $start i32) (result i32)
        (local.get $start)))"#;

async fn doors(scene: &Scene) -> Arc<Plugin> {
    let mut module = wat::parse_str(DOORS).unwrap();
    let mut resolve = Resolve::default();
    let package = resolve.push_source("doors.wit", WIT).unwrap();
    let world = resolve.select_world(&[package], Some("w")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    let bytes = ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
    let loaded = scene.engine.load("doors".parse().unwrap(), bytes, &settings(""), &|_| {}).await;
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_made_for_a_call_of_its_method_and_dropped_after_it() {
    let scene = Scene::new(2);
    let doors = doors(&scene).await;
    assert_eq!(doors.manifest.tasks.keys().collect::<Vec<_>>(), ["height", "pass"]);
    let run = async |task: &str, payload: &str| {
        assert_eq!(doors.manifest.tasks[task].check_payload(payload.as_bytes()), Ok(()), "{payload}");
        scene.run(&doors, call(&doors, task, payload)).await.0
    };
    // The parameters of the maker are before those of the method, in whatever order they are given.
    assert_eq!(assert_returned(&run("pass", r#"{"key": 12, "by": 30}"#).await), "42");
    assert_eq!(assert_returned(&run("pass", r#"{"by": 1, "key": 4294967294}"#).await), "4294967295");
    assert_eq!(assert_returned(&run("height", r#"{"start": 7}"#).await), "7");
    let ended = run("pass", r#"{"key": 13, "by": 30}"#).await;
    assert!(matches!(ended.outcome, Outcome::Trapped(_)), "it is not dropped: {:?}", ended.outcome);
    let ended = run("pass", r#"{"key": 12, "by": 0}"#).await;
    assert!(matches!(ended.outcome, Outcome::Trapped(_)), "the method traps: {:?}", ended.outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_maker_is_the_failure_of_the_call() {
    let scene = Scene::new(2);
    let doors = doors(&scene).await;
    let (ended, _) = scene.run(&doors, call(&doors, "pass", r#"{"key": 0, "by": 30}"#)).await;
    let Outcome::Failed(Failure::Retry(why)) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert_eq!(why, r#""it is locked""#);
}
