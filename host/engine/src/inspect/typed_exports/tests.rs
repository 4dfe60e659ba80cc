//! Tests that a function that is no task takes nothing from those that are.

use super::*;
use crate::inspect::resource_makers::MakerResult;

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
fn a_method_is_a_task_if_one_function_makes_its_resource() {
    let found = exports(
        "package a:b; interface f {
            resource codec {
                open: static func(level: u8) -> result<codec, string>;
                encode: func(bytes: list<u8>) -> list<u8>;
                same: func(level: u8);
                other: func(of: borrow<codec>);
            }
            resource counter { constructor(start: u32); next: func() -> u32; encode: func() -> string; }
            resource twice { constructor(); make: static func() -> twice; run: func(); }
            resource nobody { run: func(); }
            resource idle { constructor(); }
        } world w { export f; }",
    );
    assert_eq!(tasks(&found), ["codec.encode", "next", "counter.encode"]);
    let encode = &found.functions[0];
    let names: Vec<&str> = encode.params.iter().map(|param| param.name.as_str()).collect();
    assert_eq!((encode.name.as_str(), names.as_slice()), ("[method]codec.encode", ["level", "bytes"].as_slice()));
    let maker = encode.maker.as_ref().unwrap();
    assert_eq!((maker.name.as_str(), maker.params), ("[static]codec.open", 1));
    assert!(matches!(maker.returns, MakerResult::ResourceOrError(Some(_))), "{maker:?}");
    assert_eq!(found.functions[1].maker.as_ref().unwrap().returns, MakerResult::Resource);
    let left_out: Vec<String> = found.left_out.iter().map(ToString::to_string).collect();
    for (function, why) in [
        ("[method]codec.same", "a parameter `level`, and so has the function that makes its resource"),
        ("[method]codec.other", "the resource `codec`"),
        ("[constructor]twice", "the resource `twice`"),
        ("[static]twice.make", "the resource `twice`"),
        ("[method]twice.run", "the resource `twice`"),
        ("[method]nobody.run", "the resource `nobody`"),
        ("[constructor]idle", "the resource `idle`"),
    ] {
        let is_said = left_out.iter().any(|text| text.contains(&format!("#{function}`")) && text.contains(why));
        assert!(is_said, "{function}: {left_out:#?}");
    }
    assert_eq!(left_out.len(), 7, "{left_out:#?}");
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

#[test]
fn the_name_of_a_maker_is_counted_for_each_method() {
    let methods: Vec<String> = (0..bounds::FUNCTIONS_MAX).map(|n| format!("m{n}: func();")).collect();
    let found = exports(&format!(
        "package a:b; interface f {{ resource r {{ {}: static func() -> r; {} }} small: func() -> u32; }} world w {{ export f; }}",
        "a".repeat(12_000),
        methods.join(" ")
    ));
    let makers = found.functions.iter().filter_map(|function| function.maker.as_ref());
    let bytes: usize = makers.map(|maker| maker.name.len()).sum();
    assert!((1..=bounds::TYPE_NAMES_BYTES_MAX).contains(&bytes), "{bytes}");
    assert!(tasks(&found).contains(&"small"), "a method that is left out takes no room");
    let is_said = found.left_out.iter().any(|problem| problem.to_string().contains("are too large"));
    assert!(is_said, "{:?}", found.left_out);
}
