//! Tests limits on the parts of a component, with components that no compiler would make.

use std::sync::Arc;

use wharf_core::bounds;
use wharf_core::outcome::Outcome;
use wharf_engine::Problem;

use crate::made::{bytes_of, section, wrapped};
use crate::scene::{Scene, assert_returned, call, settings};

const MANIFEST: &str = "name = 'tables'\nversion = '1'\n[tasks.do]\nretry = { attempts = 1 }\n";

/// Makes a plugin whose handler grows its table by 1000 elements for each byte of the payload, and aborts if it cannot;
/// `tables` are its other tables.
fn plugin(tables: &str) -> Vec<u8> {
    let (at, length, manifest) = (1024, MANIFEST.len(), MANIFEST.replace('\n', "\\n"));
    let text = format!(
        r#"(module
            (table $grows 1 funcref)
            {tables}
            (memory (export "memory") 4)
            (data (i32.const {at}) "{manifest}")
            (data (i32.const 16) "{}{}")
            (global $free (mut i32) (i32.const 4096))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.get $free)
                (global.set $free (i32.and (i32.add (global.get $free) (i32.add (local.get 3) (i32.const 15))) (i32.const -8))))
            (func (export "wharf:plugin/manifest@0.1.0#describe") (result i32) (i32.const 16))
            (func (export "wharf:plugin/handler@0.1.0#handle")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                (if (i32.eq (i32.const -1) (table.grow $grows (ref.null func) (i32.mul (local.get 8) (i32.const 1000))))
                    (then unreachable))
                (i32.const 64)))"#,
        bytes_of(at),
        bytes_of(length),
    );
    wrapped(wat::parse_str(text).unwrap())
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_counted_over_all_and_growth_past_the_bound_is_refused() {
    let scene = Scene::new(4);
    let words = scene.load("words").await;
    let bytes: Arc<[u8]> = plugin("(table 50000 funcref)").into();
    let loaded = scene.engine.load("tables".parse().unwrap(), bytes, &settings(""), &|_| {}).await.unwrap();
    let grow =
        async |thousands: usize| scene.run_beside(&words, &loaded, call(&loaded, "do", "x".repeat(thousands))).await.0;
    assert_returned(&grow(40).await);
    let ended = grow(50).await;
    assert!(matches!(ended.outcome, Outcome::Trapped(_)), "{:?}", ended.outcome);
    let report = ended.outcome.report();
    assert!(report.starts_with("too many table elements; the limit is 100000 in all"), "{report}");
    assert_returned(&grow(40).await);

    let bytes = plugin("(table 60000 funcref) (table 60000 funcref)");
    let checked = scene.engine.check("tables", bytes, &settings(""), &|_| {}).await;
    let text = shown(&checked.problems);
    assert!(text.starts_with("too many table elements at start; the limit is 100000 in all"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn core_instances_are_bounded() {
    let scene = Scene::new(4);
    let own = 4;
    // An empty module, which is the last of the component's, and instances of it.
    let with_instances = |more: usize| {
        let mut bytes = plugin("");
        let modules = wasmparser::Parser::new(0)
            .parse_all(&bytes)
            .filter(|part| matches!(part, Ok(wasmparser::Payload::ModuleSection { .. })))
            .count();
        bytes.extend([1, 8, 0, b'a', b's', b'm', 1, 0, 0, 0]);
        for _ in 0..more {
            bytes.extend([2, 4, 1, 0, u8::try_from(modules).unwrap(), 0]);
        }
        bytes
    };
    let check = async |more: usize| {
        let bytes: Arc<[u8]> = with_instances(more).into();
        scene.engine.check("many", bytes, &settings(""), &|_| {}).await
    };
    let max = bounds::INSTANCES_MAX;
    let fits = check(max - own).await;
    let loaded = fits.plugin.unwrap_or_else(|| panic!("{}", shown(&fits.problems)));
    let words = scene.load("words").await;
    assert_returned(&scene.run_beside(&words, &loaded, call(&loaded, "do", "")).await.0);
    let text = shown(&check(max + 1).await.problems);
    assert!(text.contains("core instances; the limit is 64"), "{text}");
}

/// Tests components within a component: each is counted as often as it is made.
#[tokio::test(flavor = "multi_thread")]
async fn core_instances_of_components_within_are_counted_as_often_as_they_are_made() {
    let scene = Scene::new(4);
    let own = 4;
    // A component with an instance of an empty module, which is the first or a later one of the plugin's components,
    // and instances of it.
    let with_components = |more: usize| {
        let mut bytes = plugin("");
        let mut depth = 0;
        let mut components = 0;
        for part in wasmparser::Parser::new(0).parse_all(&bytes) {
            match part.unwrap() {
                wasmparser::Payload::ComponentSection { .. } if depth == 1 => components += 1,
                wasmparser::Payload::Version { .. } => depth += 1,
                wasmparser::Payload::End(_) => depth -= 1,
                _ => {}
            }
        }
        let module = [1, 8, 0, b'a', b's', b'm', 1, 0, 0, 0];
        let instance = [2, 4, 1, 0, 0, 0];
        let within = [&b"\0asm\x0d\0\x01\0"[..], &module, &instance].concat();
        bytes.extend(section(4, &within));
        for _ in 0..more {
            bytes.extend(section(5, &[1, 0, components, 0]));
        }
        bytes
    };
    let check = async |more: usize| {
        let bytes: Arc<[u8]> = with_components(more).into();
        scene.engine.check("within", bytes, &settings(""), &|_| {}).await
    };
    let max = bounds::INSTANCES_MAX;
    let fits = check(max - own).await;
    let loaded = fits.plugin.unwrap_or_else(|| panic!("{}", shown(&fits.problems)));
    assert_eq!(loaded.sandboxes, 1, "they have no memory of their own");
    let words = scene.load("words").await;
    assert_returned(&scene.run_beside(&words, &loaded, call(&loaded, "do", "")).await.0);
    let text = shown(&check(max + 1).await.problems);
    assert!(text.starts_with("too many core instances at start; the limit is 64 in all"), "{text}");
}
