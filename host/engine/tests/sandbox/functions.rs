//! Tests exported functions over plain data: each is a task, with JSON on both sides.

use std::sync::Arc;

use wharf_core::outcome::{Failure, Outcome, TimeoutKind};
use wharf_engine::spec::sources::{Origin, TaskKind};
use wharf_engine::{AttemptEnd, PayloadError, Plugin, PluginFile};

use crate::scene::{Scene, assert_returned, call, component, settings};

async fn run(scene: &Scene, plugin: &Arc<Plugin>, task: &str, payload: &str) -> AttemptEnd {
    let checked = plugin.manifest.tasks[task].check_payload(payload.as_bytes());
    assert_eq!(checked, Ok(()), "{task} {payload}");
    scene.run(plugin, call(plugin, task, payload)).await.0
}

async fn result(scene: &Scene, plugin: &Arc<Plugin>, task: &str, payload: &str) -> String {
    assert_returned(&run(scene, plugin, task, payload).await)
}

const ROW: &str = r#"{"id":18446744073709551615,"name":"é\n","score":0.1,"level":"middle","marks":["read","hidden"],"seen-at":[-2147483648,"😀"]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn each_function_is_a_task_with_json_on_both_sides() {
    let scene = Scene::new(4);
    let plugin = scene.load("functions").await;
    let tasks: Vec<&str> = plugin.manifest.tasks.keys().map(String::as_str).collect();
    assert_eq!(
        tasks,
        ["add", "area", "divide", "largest", "many", "move", "rows.reverse", "wait-for", "world.reverse"]
    );
    for (task, payload, expected) in [
        ("add", r#"{"a": 4294967295, "b": 18446744069414584320}"#, "18446744073709551615"),
        ("area", r#"{"of": {"tag": "rectangle", "val": {"width": 2, "height": 3.5}}}"#, "7.0"),
        ("area", r#"{"of": {"val": 1e0, "tag": "circle"}}"#, "3.141592653589793"),
        ("area", r#"{"of": {"tag": "nothing"}}"#, "0.0"),
        ("largest", r#"{"shapes": []}"#, "null"),
        (
            "largest",
            r#"{"shapes": [{"tag": "nothing"}, {"tag": "circle", "val": 0.5}]}"#,
            r#"{"tag":"circle","val":0.5}"#,
        ),
        ("world.reverse", r#"{"bytes": "AP9h"}"#, "a\u{fffd}\0"),
        ("wait-for", r#"{"spins": 3}"#, "null"),
        ("divide", r#"{"a": 1, "b": 3}"#, "0.3333333333333333"),
    ] {
        assert_eq!(result(&scene, &plugin, task, payload).await, expected, "{task} {payload}");
    }
    assert_eq!(result(&scene, &plugin, "rows.reverse", &format!("{{\"rows\": [{ROW}]}}")).await, format!("[{ROW}]"));
    let absent = r#"{"id":0,"name":"","score":null,"level":"low","marks":[],"seen-at":[0,"a"]}"#;
    let sparse = r#"{"seen_at": [0, "\u0061"], "marks": [], "level": "low", "name": "", "id": 0}"#;
    let both = format!("{{\"rows\": [{ROW}, {sparse}]}}");
    assert_eq!(result(&scene, &plugin, "rows.reverse", &both).await, format!("[{absent},{ROW}]"));
    // More core values than a function can have as parameters.
    let many = r#"{"a":"AQ==","b":"","c":["x","y"],"d":[1,2],"e":"e","f":"f","g":"g","h":"h"}"#;
    assert_eq!(result(&scene, &plugin, "many", many).await, r#""[1] [] [\"x\", \"y\"] [1, 2] efgh None""#);
}

/// The bench of functions holds the two against each other, which says nothing unless they do the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_of_the_contract_that_functions_are_measured_against_does_as_they_do() {
    let scene = Scene::new(2);
    let (typed, by_contract) = (scene.load("functions").await, scene.load("functions-contract").await);
    let moved = |by: i32| format!("{{\"row\": {}, \"by\": {by}}}", ROW.replace("0.1", "0.5"));
    let rows = format!("{{\"rows\": [{ROW}]}}");
    for (function, task, payload) in [
        ("move", "move", moved(1).as_str()),
        ("world.reverse", "reverse", r#"{"bytes": "AP9h"}"#),
        ("rows.reverse", "reverse-rows", &rows),
    ] {
        let expected = result(&scene, &typed, function, payload).await;
        assert_eq!(result(&scene, &by_contract, task, payload).await, expected, "{task}");
    }
    let failed = run(&scene, &by_contract, "move", &moved(-1)).await.outcome;
    assert_eq!(failed, run(&scene, &typed, "move", &moved(-1)).await.outcome);
    assert!(matches!(failed, Outcome::Failed(Failure::Retry(_))), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_a_failure_that_is_retried_unless_the_settings_say_otherwise() {
    let scene = Scene::new(4);
    let plugin = scene.load("functions").await;
    let negative = r#"{"of": {"tag": "circle", "val": -1}}"#;
    let ended = run(&scene, &plugin, "area", negative).await;
    let Outcome::Failed(Failure::Retry(why)) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert_eq!(why, "\"the radius -1 is negative\"");
    let discards = scene.load_with("functions", "[tasks.area]\non-error = 'discard'").await;
    let ended = run(&scene, &discards, "area", negative).await;
    assert!(matches!(&ended.outcome, Outcome::Failed(Failure::Discard(_))), "{:?}", ended.outcome);
    let ended = run(&scene, &plugin, "move", &format!("{{\"row\": {ROW}, \"by\": -1}}")).await;
    let Outcome::Failed(Failure::Retry(why)) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert_eq!(why, ROW);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_json_does_not_have_is_refused() {
    let scene = Scene::new(4);
    let plugin = scene.load("functions").await;
    for (b, number) in [("0", "inf"), ("-0.0", "-inf")] {
        let ended = run(&scene, &plugin, "divide", &format!("{{\"a\": 1, \"b\": {b}}}")).await;
        let Outcome::Failed(Failure::Retry(why)) = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert_eq!(*why, format!("the result has a number that JSON does not have: {number}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_is_not_of_the_types_is_refused_with_its_place() {
    let scene = Scene::new(4);
    let plugin = scene.load("functions").await;
    let row = |from: &str, to: &str| format!("{{\"rows\": [{ROW}, {}]}}", ROW.replace(from, to));
    for (task, payload, expected) in [
        ("add", "[]".to_owned(), "at the top level: expected an object with a member for each parameter, got an array"),
        ("add", "null".to_owned(), "at the top level: the parameter `a` is missing"),
        ("add", r#"{"a": 1, "b": 2, "c": 3}"#.to_owned(), "at the top level: unknown parameter `c`; did you mean"),
        ("add", r#"{"a": 1, "b": 2, "a": 3}"#.to_owned(), "at the top level: duplicate parameter `a`"),
        ("add", r#"{"a": -1, "b": 2}"#.to_owned(), "at `/a`: expected an integer from 0 to 4294967295, got -1"),
        ("add", r#"{"a": 1.5, "b": 2}"#.to_owned(), "at `/a`: expected an integer from 0 to 4294967295, got 1.5"),
        ("add", r#"{"a": "1", "b": 2}"#.to_owned(), "at `/a`: expected an integer from 0 to 4294967295, got \"1\""),
        (
            "add",
            r#"{"a": 1, "b": 18446744073709551616}"#.to_owned(),
            "at `/b`: expected an integer from 0 to 18446744073709551615",
        ),
        ("add", r#"{"a": 1, "b": 2} x"#.to_owned(), "not JSON: something follows the value"),
        ("divide", r#"{"a": 1e999, "b": 2}"#.to_owned(), "at `/a`: 1e999 is too large for 64-bit floating point"),
        ("world.reverse", r#"{"bytes": "AP9"}"#.to_owned(), "at `/bytes`: the string is not base64"),
        (
            "world.reverse",
            r#"{"bytes": [1]}"#.to_owned(),
            "at `/bytes`: expected a string with bytes in base64, got [1]",
        ),
        (
            "area",
            r#"{"of": {"tag": "circel"}}"#.to_owned(),
            "at `/of/tag`: unknown name `circel`; did you mean `circle`?",
        ),
        ("area", r#"{"of": {"tag": "circle"}}"#.to_owned(), "at `/of`: `val` of `circle` is missing"),
        ("area", r#"{"of": {"tag": "nothing", "val": 1}}"#.to_owned(), "at `/of`: the case `nothing` takes no payload"),
        ("rows.reverse", row("middle", "midle"), "at `/rows/1/level`: unknown name `midle`; did you mean `middle`?"),
        ("rows.reverse", row("\"hidden\"", "\"read\""), "at `/rows/1/marks`: duplicate name `read`"),
        ("rows.reverse", row("😀", "ab"), "at `/rows/1/seen-at/1`: expected a string of one character, got \"ab\""),
        ("rows.reverse", row(",\"😀\"", ""), "at `/rows/1/seen-at`: expected an array of 2 values, got [-2147483648]"),
        ("rows.reverse", row("é\\n", "\\ud800"), "at `/rows/1/name`: the string has half of a surrogate pair"),
    ] {
        let task = &plugin.manifest.tasks[task];
        let Err(PayloadError::Types(why)) = task.check_payload(payload.as_bytes()) else {
            panic!("{payload} is taken")
        };
        assert!(why.contains(expected), "{payload}: {why}");
        // A host without the plugin has only the schema, and the attempt says what is wrong.
        let (ended, _) = scene.run(&plugin, call(&plugin, task.name.task(), payload.as_str())).await;
        let Outcome::Failed(Failure::Retry(of_attempt)) = &ended.outcome else { panic!("{:?}", ended.outcome) };
        assert_eq!(*of_attempt, format!("the payload is refused: {why}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_with_a_key_takes_members_only_as_wit_writes_them() {
    let scene = Scene::new(4);
    let plugin = scene.load("functions").await;
    let with_key = scene.load_with("functions", "[tasks.move]\nkey = '/row/seen-at/0'").await;
    let payload = format!("{{\"row\": {}, \"by\": 1}}", ROW.replace("seen-at", "seen_at"));
    assert_eq!(plugin.manifest.tasks["move"].check_payload(payload.as_bytes()), Ok(()));
    let Err(PayloadError::Types(why)) = with_key.manifest.tasks["move"].check_payload(payload.as_bytes()) else {
        panic!("the key is passed by")
    };
    assert!(why.contains("unknown member `seen_at`: expected `seen-at`"), "{why}");
    // A host that has only a declared schema takes it: then the attempt refuses it.
    let (ended, _) = scene.run(&with_key, call(&with_key, "move", payload.as_str())).await;
    let Outcome::Failed(Failure::Retry(of_attempt)) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert_eq!(*of_attempt, format!("the payload is refused: {why}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_say_what_is_taken_and_given() {
    let scene = Scene::new(4);
    let plugin = scene.load("functions").await;
    let schema = |task: &str| match &plugin.manifest.tasks[task].kind {
        TaskKind::Function(function) => (function.payload_schema(), function.result_schema()),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        schema("add").0,
        r#"{"additionalProperties":false,"properties":{"a":{"maximum":4294967295,"minimum":0,"type":"integer"},"b":{"maximum":18446744073709551615,"minimum":0,"type":"integer"}},"required":["a","b"],"type":"object"}"#
    );
    assert_eq!(schema("world.reverse").1, None, "its result is bytes");
    assert_eq!(schema("area").1.unwrap(), r#"{"type":"number"}"#);
    // What the types take, the schema takes.
    for (task, payload) in [
        ("rows.reverse", format!("{{\"rows\": [{ROW}]}}")),
        ("area", r#"{"of": {"tag": "circle", "val": 1.5}}"#.to_owned()),
        ("largest", r#"{"shapes": [{"tag": "nothing"}]}"#.to_owned()),
    ] {
        let compiled = wharf_engine::spec::payload::Schema::parse(&schema(task).0).unwrap();
        assert_eq!(compiled.check(payload.as_bytes()), Ok(()), "{task}");
    }
    let declared = "[tasks.add]\npayload-schema = '{\"properties\": {\"a\": {\"maximum\": 5}}}'\nkey = '/b'";
    let narrowed = scene.load_with("functions", declared).await;
    let add = &narrowed.manifest.tasks["add"];
    assert_eq!(add.check_payload(br#"{"a": 5, "b": 2}"#), Ok(()));
    assert!(add.check_payload(br#"{"a": 6, "b": 2}"#).is_err() && add.check_payload(br#"{"a": 5}"#).is_err());
    assert_eq!(add.key_of(br#"{"a": 5, "b": 2}"#).unwrap().unwrap().as_str(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_pass_and_bounds_hold() {
    let scene = Scene::new(4);
    let plugin = scene.load("functions").await;
    // Bytes of a megabyte, both ways: dynamic values would have used up their fuel at half of it.
    let base64 = "AAEC".repeat(700_000);
    let ended = run(&scene, &plugin, "world.reverse", &format!("{{\"bytes\": \"{base64}\"}}")).await;
    let Outcome::Returned(bytes) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(bytes.len() == 2_100_000 && bytes.starts_with(&[2, 1, 0, 2]));
    let rows = format!("{{\"rows\": [{ROW}{}]}}", format!(",{ROW}").repeat(9_999));
    let reversed = result(&scene, &plugin, "rows.reverse", &rows).await;
    assert_eq!(reversed.len(), rows.len() - r#"{"rows": }"#.len());
    let words = scene.load("words").await;
    let spinning = scene.load_with("functions", "[tasks.wait-for]\ncpu = '100ms'").await;
    let spin = call(&spinning, "wait-for", r#"{"spins": 18446744073709551615}"#);
    let (ended, _) = scene.run_beside(&words, &spinning, spin).await;
    assert!(matches!(ended.outcome, Outcome::TimedOut { clock: TimeoutKind::Cpu, .. }), "{:?}", ended.outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beside_a_component_and_in_it_is_its_manifest() {
    let scene = Scene::new(4);
    let bytes = component("functions").await;
    let load = async |file: PluginFile, toml: &str| {
        scene.engine.load("functions".parse().unwrap(), file, &settings(toml), &|_| {}).await
    };
    let beside = |text: &str| PluginFile { component: Arc::clone(&bytes), manifest: Some(text.as_bytes().into()) };
    let alone = load(Arc::clone(&bytes).into(), "").await.unwrap();
    let plugin = load(beside("name = 'F'\nversion = '2'\n[tasks.add]\ntimeout = '3s'\ncpu = '2s'"), "").await.unwrap();
    assert_eq!((plugin.manifest.name.as_str(), plugin.manifest.version.as_str()), ("F", "2"));
    assert_eq!((plugin.manifest.tasks["add"].timeout.as_secs(), plugin.manifest.tasks.len()), (3, 9));
    assert_ne!(plugin.digest, alone.digest, "both files are the version");
    let other = load(beside("version = '3'"), "").await.unwrap();
    assert!(other.digest != plugin.digest && other.digest != alone.digest);
    let over = load(beside("[tasks.add]\ntimeout = '3s'\ncpu = '2s'"), "[tasks.add]\ntimeout = '4s'").await.unwrap();
    let add = &over.manifest.tasks["add"];
    assert_eq!((add.timeout.as_secs(), add.cpu.as_secs()), (4, 2), "the operator's word wins");
    assert_eq!((add.origins["timeout"], add.origins["cpu"]), (Origin::Settings, Origin::File));
    for (text, expected) in [
        ("[tasks.ad]\ntimeout = '3s'", "functions.toml: unknown task `ad`\n    did you mean `add`?"),
        (
            "[tasks.add]\ntimeot = '3s'",
            "functions.toml, line 2, column 1: unknown key `timeot`\n    did you mean `timeout`?",
        ),
        ("env = { A = 'b' }", "functions.toml, line 1, column 1: unknown key `env`"),
    ] {
        let error = load(beside(text), "").await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // A custom section of the component says the same, below the file.
    let section = |text: &str| {
        let mut bytes = bytes.to_vec();
        let content = [&[14][..], b"wharf-manifest", text.as_bytes()].concat();
        bytes.extend([0, u8::try_from(content.len()).unwrap()]);
        bytes.extend(content);
        bytes
    };
    let inside = section("[tasks.add]\ntimeout = '3s'\ncpu = '2s'");
    let plugin = load(inside.clone().into(), "").await.unwrap();
    assert_eq!(plugin.manifest.tasks["add"].origins["timeout"], Origin::Section);
    let both =
        PluginFile { component: inside.into(), manifest: Some(b"[tasks.add]\ntimeout = '5s'".as_slice().into()) };
    let add = load(both, "").await.unwrap().manifest.tasks["add"].clone();
    assert_eq!((add.timeout.as_secs(), add.origins["timeout"], add.origins["cpu"]), (5, Origin::File, Origin::Section));
    let error = load(section("[tasks.add]\ncpu = 1").into(), "").await.unwrap_err().to_string();
    assert!(error.contains("its section `wharf-manifest`, line 2, column 7"), "{error}");
}
