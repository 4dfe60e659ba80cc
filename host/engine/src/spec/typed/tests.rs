//! Tests that types and payloads within their bounds take time and memory within bounds.

use std::sync::Arc;

use crate::spec::function_task::FunctionTask;
use crate::spec::typed::check::CheckMode;
use crate::spec::typed::json_schema::Strictness;
use crate::spec::typed::signature::Signature;
use crate::spec::typed::types::{Field, Int, Type, TypeTable};

fn field(name: impl Into<String>, ty: u32) -> Field {
    Field { name: name.into(), ty }
}

fn signature(types: Vec<Type>, params: Vec<Field>) -> Signature {
    Signature { table: Arc::new(TypeTable::new(types).unwrap()), params, result: None }
}

#[test]
fn a_schema_writes_each_type_once() {
    let names = (0..1000).map(|n| format!("name-{n}")).collect();
    let fields = (0..1000).map(|n| field(format!("field-{n}"), 0)).collect();
    let signature = signature(vec![Type::Enum(names), Type::Record(fields)], vec![field("a", 1), field("b", 1)]);
    for strictness in [Strictness::Exact, Strictness::Lenient, Strictness::LenientAsWit] {
        let text = signature.payload_schema(strictness).to_string();
        assert!(text.len() < 200_000, "{strictness:?}: {} bytes", text.len());
    }
}

#[test]
fn absent_members_are_counted_and_bounded() {
    let options = (0..5000).map(|n| field(format!("field-{n}"), 1)).collect();
    let types = vec![Type::Bool, Type::Option(0), Type::Record(options), Type::List(2)];
    let task = FunctionTask::new(signature(types, vec![field("rows", 3)]), false);
    let rows = |count: usize| format!("{{\"rows\":[{{}}{}]}}", ",{}".repeat(count - 1));
    assert_eq!(task.check(rows(10).as_bytes(), false), Ok(50_000));
    let why = task.check(rows(100_000).as_bytes(), false).unwrap_err();
    assert!(why.contains("more than 5000000 members that are options are absent"), "{why}");
}

#[test]
fn members_of_a_large_record_are_found_in_any_order() {
    let fields = (0..5000).map(|n| field(format!("field-{n}"), 0)).collect();
    let types = vec![Type::Bool, Type::Record(fields)];
    let signature = signature(types, vec![field("row", 1)]);
    let members: Vec<String> = (0..5000)
        .rev()
        .map(|n| if n % 2 == 0 { format!("\"field-{n}\":true") } else { format!("\"field_{n}\":true") })
        .collect();
    let payload = format!("{{\"row\":{{{}}}}}", members.join(","));
    assert_eq!(signature.check(payload.as_bytes(), CheckMode::default()).map(|plan| plan.values), Ok(5001));
}

#[test]
fn where_something_looks_for_a_name_only_that_of_wit_is_taken() {
    let types = vec![Type::String];
    let task = FunctionTask::new(signature(types, vec![field("the-tenant-id", 0)]), false);
    let check =
        |name: &str, is_spelled_as_wit| task.check(format!("{{\"{name}\":\"a\"}}").as_bytes(), is_spelled_as_wit);
    assert_eq!((check("the-tenant-id", true), check("the-tenant-id", false)), (Ok(0), Ok(0)));
    assert_eq!(check("the_tenant_id", false), Ok(0));
    let why = check("the_tenant_id", true).unwrap_err();
    assert!(why.contains("unknown parameter `the_tenant_id`: expected `the-tenant-id`"), "{why}");
    assert!(check("the-tenant_id", false).is_err());
    let announced = |is_spelled_as_wit| task.announced_schema(is_spelled_as_wit).unwrap().contains("the_tenant_id");
    assert!(announced(false) && !announced(true));
}

#[test]
fn a_key_is_where_a_payload_may_have_a_value() {
    let record = Type::Record(vec![field("the-id", 0), field("marks", 1)]);
    let types = vec![Type::String, Type::List(0), record, Type::Option(2)];
    let task = FunctionTask::new(signature(types, vec![field("row", 3), field("the-tenant", 0)]), false);
    for pointer in ["/the-tenant", "/row/the-id", "/row/marks/0"] {
        assert!(task.may_have(pointer), "{pointer}");
    }
    for pointer in ["/the_tenant", "/tenant", "/row/the_id", "/the-tenant/a"] {
        assert!(!task.may_have(pointer), "{pointer}");
    }
}

#[test]
fn lengths_are_noted_only_where_they_are_used() {
    let types = vec![Type::Int(Int::U16), Type::List(0)];
    let signature = signature(types, vec![field("v", 1)]);
    let lengths = |notes_lengths| {
        let mode = CheckMode { notes_lengths, ..CheckMode::default() };
        signature.check(br#"{"v":[1,2,3]}"#, mode).unwrap().lengths
    };
    assert_eq!((lengths(true), lengths(false)), (vec![3], Vec::new()));
}

#[test]
fn a_payload_that_can_never_be_passed_is_refused_when_it_is_checked() {
    let types = vec![Type::Int(Int::U8), Type::List(0)];
    let signature = signature(types, vec![field("v", 1)]);
    let payload = format!("{{\"v\":\"{}\"}}", "A".repeat(400_000));
    assert_eq!(FunctionTask::new(signature.clone(), false).check(payload.as_bytes(), false), Ok(0));
    let why = FunctionTask::new(signature, true).check(payload.as_bytes(), false).unwrap_err();
    assert!(why.contains("of this host's memory"), "{why}");
}
