//! Measures the check of a payload against a schema: small ones as they are enqueued, and the largest payloads that the
//! bound of checks lets through, for schemas that were made to be slow.
//!
//! `cargo bench --workspace --bench schema`

use std::time::{Duration, Instant};

use wharf_core::bounds;
use wharf_engine::spec::payload::Schema;

const ROUNDS: usize = 5;

fn joined(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

/// A name, a schema, and a payload of a size.
type Case = (&'static str, String, fn(usize) -> String);

fn cases() -> Vec<Case> {
    let ones: fn(usize) -> String = |count| format!("[{}]", joined(count, |_| "1".to_owned()));
    let empty: fn(usize) -> String = |count| format!("[{}]", joined(count, |_| "{}".to_owned()));
    let texts: fn(usize) -> String = |count| format!("[{}]", joined(count, |n| format!("\"some text {n}\"")));
    let long: fn(usize) -> String = |count| format!("\"{}\"", "ab".repeat(count / 2));
    let long_name: fn(usize) -> String = |count| format!("{{\"{}\":1}}", "ab".repeat(count / 2));
    let lists: fn(usize) -> String = |count| {
        let list = format!("[{}]", joined(14, |_| "[[1,2,3,4,5,6,7,8]]".to_owned()));
        format!("[{}]", joined(count.div_ceil(14 * 10), |_| list.clone()))
    };
    let members: fn(usize) -> String = |count| format!("{{{}}}", joined(count, |n| format!("\"m{n}\":1")));
    let objects: fn(usize) -> String = |count| {
        format!("[{}]", joined(count.div_ceil(20), |_| format!("{{{}}}", joined(20, |n| format!("\"m{n}\":1")))))
    };
    let deep: fn(usize) -> String =
        |count| format!("[{}]", joined(count.div_ceil(60), |_| format!("{}1{}", "[".repeat(60), "]".repeat(60))));
    let items = |schema: String| format!(r#"{{"items":{schema}}}"#);
    let all_of = |count: usize, part: &str| format!(r#"{{"allOf":[{}]}}"#, joined(count, |_| part.to_owned()));
    let nested =
        (0..40).fold("{\"additionalProperties\":true}".to_owned(), |schema, _| format!(r#"{{"allOf":[{schema}]}}"#));
    vec![
        ("allOf of nothing", items(all_of(2_500, "{}")), ones),
        ("allOf of types", items(all_of(2_500, r#"{"type":"integer"}"#)), ones),
        ("allOf of minima", items(all_of(2_500, r#"{"minimum":0,"maximum":9,"multipleOf":1}"#)), ones),
        (
            "anyOf that fails",
            items(format!(r#"{{"anyOf":[{}]}}"#, joined(2_500, |_| r#"{"type":"string"}"#.into()))),
            ones,
        ),
        ("oneOf", items(format!(r#"{{"oneOf":[{}]}}"#, joined(900, |n| format!(r#"{{"const":{n}}}"#)))), ones),
        ("not", items(all_of(900, r#"{"not":{"type":"string"}}"#)), ones),
        ("enum of lists", items(format!(r#"{{"enum":[{},1]}}"#, joined(900, |n| format!("[{n}]")))), ones),
        ("enum of numbers", items(format!(r#"{{"enum":[{},1]}}"#, joined(3_000, |n| format!("{}", n + 2)))), ones),
        (
            "enum of texts",
            items(format!(r#"{{"enum":[{},1]}}"#, joined(900, |n| format!("\"some text x{n}\"")))),
            texts,
        ),
        (
            "required",
            items(format!(r#"{{"anyOf":[{{"required":[{}]}},true]}}"#, joined(900, |n| format!("\"m{n}\"")))),
            empty,
        ),
        ("properties", items(format!(r#"{{"properties":{{{}}}}}"#, joined(900, |n| format!(r#""m{n}":{{}}"#)))), empty),
        (
            "properties that are there",
            items(format!(r#"{{"properties":{{{}}}}}"#, joined(900, |n| format!(r#""m{n}":{{"type":"integer"}}"#)))),
            objects,
        ),
        (
            "names by pattern",
            format!(r#"{{"patternProperties":{{{}}}}}"#, joined(30, |n| format!(r#""^m{n}[0-9]{{1,9}}$":{{}}"#))),
            members,
        ),
        ("a long name by pattern", r#"{"patternProperties":{"^[a-z0-9]{1,64}x$":{}}}"#.into(), long_name),
        ("propertyNames", r#"{"propertyNames":{"minLength":1,"pattern":"^m[0-9]+$"}}"#.into(), members),
        ("contains", r#"{"contains":{"allOf":[{"type":"integer"},{"const":2}]}}"#.into(), ones),
        (
            "uniqueItems",
            r##"{"$ref":"#/$defs/l","$defs":{"l":{"uniqueItems":true,"items":{"$ref":"#/$defs/l"}}}}"##.into(),
            lists,
        ),
        (
            "uniqueItems, deep",
            r##"{"$ref":"#/$defs/l","$defs":{"l":{"uniqueItems":true,"items":{"$ref":"#/$defs/l"}}}}"##.into(),
            deep,
        ),
        ("unevaluatedProperties", format!(r#"{{"anyOf":[{nested}],"unevaluatedProperties":false}}"#), members),
        (
            "unevaluatedProperties, small",
            items(format!(r#"{{"anyOf":[{nested}],"unevaluatedProperties":false}}"#)),
            objects,
        ),
        (
            "unevaluatedItems",
            format!(r#"{{"anyOf":[{}],"unevaluatedItems":false}}"#, nested.replace("additionalProperties", "items")),
            ones,
        ),
        ("pattern", r#"{"pattern":"^[a-z]{1,64}$"}"#.into(), long),
        ("pattern of many states", r#"{"pattern":"(a|b)*a(a|b){300}c"}"#.into(), long),
        ("pattern of most states", r#"{"pattern":"([ab]{1,60}){60}c"}"#.into(), long),
        ("pattern of small texts", items(r#"{"pattern":"^[a-z0-9 ]{1,64}$"}"#.into()), texts),
        (
            "a tree of references",
            r##"{"$ref":"#/$defs/t","$defs":{"t":{"items":{"$ref":"#/$defs/t"},"type":["array","integer"]}}}"##.into(),
            deep,
        ),
        (
            "format",
            r#"{"$schema":"http://json-schema.org/draft-07/schema#","items":{"format":"regex"}}"#.into(),
            |count| format!("[{}]", joined(count.div_ceil(30), |_| r#""(((\\w{99}){99}){99}){99}""#.to_owned())),
        ),
        (
            "format of an address",
            r#"{"$schema":"http://json-schema.org/draft-07/schema#","items":{"format":"uri"}}"#.into(),
            texts,
        ),
        ("maxLength", r#"{"maxLength":99999999}"#.into(), long),
    ]
}

fn fastest(mut run: impl FnMut()) -> Duration {
    let mut times = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        run();
        begun.elapsed()
    });
    let first = times.next().unwrap_or_default();
    times.fold(first, Duration::min)
}

fn main() {
    let order = Schema::parse(
        r#"{"type":"object","required":["tenant","amount"],"properties":{"tenant":{"type":"string","pattern":"^[a-z0-9-]{1,64}$"},
            "amount":{"type":"number","minimum":0},"lines":{"type":"array","items":{"type":"object","properties":{"sku":{"type":"string"}}}}}}"#,
    )
    .unwrap();
    let small = br#"{"tenant":"acme","amount":12.5,"lines":[{"sku":"a-1"},{"sku":"b-2"}]}"#;
    let count = 20_000_u32;
    let all = fastest(|| (0..count).for_each(|_| order.check(std::hint::black_box(small)).unwrap()));
    let counted =
        fastest(|| (0..count).for_each(|_| _ = std::hint::black_box(order.checks(std::hint::black_box(small)))));
    println!(
        "small payload: {:?} for a check, {:?} of it to count {} checks",
        all / count,
        counted / count,
        order.checks(small)
    );
    println!("{:<30}{:>10}{:>12}{:>9}{:>8}", "at the bound", "bytes", "checks", "ms", "error");
    for (name, schema, payload) in cases() {
        let schema = match Schema::parse(&schema) {
            Ok(schema) => schema,
            Err(error) => {
                println!("{name:<30} refused: {}", error.chars().take(90).collect::<String>());
                continue;
            }
        };
        let (mut low, mut high) = (1_usize, bounds::PAYLOAD_BYTES_MAX as usize / 8);
        while high - low > low / 50 + 1 {
            let middle = usize::midpoint(low, high);
            if schema.checks(payload(middle).as_bytes()) <= bounds::SCHEMA_CHECKS_MAX {
                low = middle
            } else {
                high = middle
            }
        }
        let payload = payload(low);
        let mut error = false;
        let time = fastest(|| error = schema.check(payload.as_bytes()).is_err());
        println!(
            "{name:<30}{:>10}{:>12}{:>9.1}{error:>8}",
            payload.len(),
            schema.checks(payload.as_bytes()),
            time.as_secs_f64() * 1e3,
        );
    }
}
