//! Tests that a function that is no task takes nothing from those that are.

use super::*;

fn exports(wit: &str) -> TypedExports {
    let mut resolve = Resolve::default();
    let package = resolve.push_source("a.wit", wit).unwrap_or_else(|error| panic!("{error:#}"));
    let world = resolve.select_world(&[package], None).unwrap();
    TypedExports::find(&resolve, &resolve.worlds[world].exports, None)
}

fn tasks(exports: &TypedExports) -> Vec<&str> {
    exports.functions.iter().map(|function| function.task.as_str()).collect()
}

#[test]
fn what_tools_add_is_no_task_and_what_authors_call_the_same_is_one() {
    let of_tools = "package a:b; world w { export exports: interface { init: func(app: string); }
        export init: func(shim: string, script: string, disable-gc: bool, entry-path: option<string>); export add: func() -> u32; }";
    let found = exports(of_tools);
    assert_eq!(tasks(&found), ["add"]);
    assert!(found.left_out.is_empty(), "{:?}", found.left_out);
    let of_authors = "package a:b; world w { export exports: interface { init: func(); run: func(); }
        export init: func(script: string); }";
    assert_eq!(tasks(&exports(of_authors)), ["world.init", "exports.init", "run"]);
}

#[test]
fn a_function_that_is_too_large_leaves_the_others_their_room() {
    let cases: Vec<String> = (0..9000).map(|n| format!("c{n}")).collect();
    let found = exports(&format!(
        "package a:b; interface f {{ enum many {{ {} }} big: func(v: many); small: func(v: u32) -> string; }} world w {{ export f; }}",
        cases.join(",")
    ));
    assert_eq!(tasks(&found), ["small"]);
    assert!(found.left_out[0].to_string().contains("#big`"), "{:?}", found.left_out);
}

#[test]
fn failures_of_one_type_take_no_room_however_often_it_is_used() {
    let fields: Vec<String> = (0..1000).map(|n| format!("member{n}: u8")).collect();
    let uses: Vec<String> = (0..9).map(|n| format!("m{n}: func(v: holder);")).collect();
    let found = exports(&format!(
        "package a:b; interface f {{ resource r; record holder {{ {}, last: own<r> }} {} small: func() -> u32; }} world w {{ export f; }}",
        fields.join(","),
        uses.join(" ")
    ));
    assert_eq!(tasks(&found), ["small"]);
    assert!(
        found.left_out.iter().all(|problem| problem.to_string().contains("the resource `r`")),
        "{:?}",
        found.left_out
    );
    assert!(found.types.len() < 3, "{:?}", found.types);
}

#[test]
fn types_that_are_used_many_times_are_counted_as_often() {
    let levels: Vec<String> =
        (1..6).map(|n| format!("type t{n} = tuple<{}>;", vec![format!("t{}", n - 1); 10].join(","))).collect();
    let found = exports(&format!(
        "package a:b; interface f {{ type t0 = tuple<u8, u8>; {} wide: func(v: t5); narrow: func(v: t2); }} world w {{ export f; }}",
        levels.join(" ")
    ));
    assert_eq!(tasks(&found), ["narrow"]);
    assert!(found.left_out[0].to_string().contains("counted as often as they are used"), "{:?}", found.left_out);
}

#[test]
fn names_of_functions_and_interfaces_are_counted() {
    let name = |n: usize| format!("n{n}-{}", "a".repeat(1000));
    let functions: Vec<String> = (0..100).map(|n| format!("{}: func();", name(n))).collect();
    let found = exports(&format!("package a:b; interface f {{ {} }} world w {{ export f; }}", functions.join(" ")));
    let bytes: usize = found.functions.iter().map(|function| function.name.len()).sum();
    assert!(bytes <= bounds::TYPE_NAMES_BYTES_MAX, "{bytes}");
}
