//! What a payload may cost that is checked against a schema, told from the schema alone.
//!
//! References let a small schema be exponentially large: a chain of definitions of which each names the next one twice
//! doubles the work with every link, and one that names itself twice doubles it with every level of the payload.
//! So every level of a payload is gone through here with the most that can be asked of one place in it.

use std::collections::{HashMap, HashSet};
use std::ptr;

use serde_json::{Map, Value};

/// Schemas that may be asked of one place in a payload, counted as often as they are asked.
const ASKED_MAX: u64 = 10_000;
/// Schemas that may be in the middle of being asked, one within the other: each takes some of the thread's stack.
const STACKED_MAX: u64 = 1024;
/// `serde_json` reads nothing that is nested deeper.
const PAYLOAD_DEPTH_MAX: usize = 128;
/// Different places that references may lead to.
const TARGETS_MAX: usize = 256;
/// Of finding all this out: a moment, for schemas that nobody writes by hand.
const STEPS_MAX: usize = 20_000_000;
/// Levels of all of them together: compiling goes from one to the next.
const NESTED_MAX: usize = 1024;

/// Where in the payload a schema within another one is asked.
#[derive(Clone, PartialEq, Eq)]
enum Where {
    /// At the same place.
    Here,
    /// At every child of a kind.
    Every(Kind),
    /// At one child, by number.
    One(Kind, usize),
    /// At every child but those that the same schema names.
    Other(Kind),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Property,
    Item,
}

/// One schema of those that stand within the whole.
#[derive(Default)]
struct Node {
    edges: Vec<(Where, usize)>,
    /// How often what stands here is asked: `unevaluated...` asks again.
    times: u64,
}

struct Graph<'a> {
    root: &'a Value,
    values: Vec<&'a Value>,
    nodes: Vec<Node>,
    numbers: HashMap<*const Value, usize>,
    children: HashMap<(Kind, String), usize>,
    targets: HashSet<usize>,
}

/// # Errors
/// When checking a payload may cost more than the host gives, and what to do about it.
pub(crate) fn check(schema: &Value) -> Result<(), String> {
    let mut graph = Graph {
        root: schema,
        values: Vec::new(),
        nodes: Vec::new(),
        numbers: HashMap::new(),
        children: HashMap::new(),
        targets: HashSet::new(),
    };
    graph.number(schema);
    let mut next = 0;
    while let Some(value) = graph.values.get(next).copied() {
        let node = match value {
            Value::Object(object) => graph.read(object, next == 0)?,
            _ => Node { edges: Vec::new(), times: 1 },
        };
        graph.nodes.push(node);
        next += 1;
    }
    let nested: usize =
        graph.targets.iter().map(|target| levels(graph.values[*target])).sum::<usize>() + levels(schema);
    if graph.targets.len() > TARGETS_MAX || nested > NESTED_MAX {
        return Err(format!(
            "its references lead to {} places, {nested} levels deep in all; {TARGETS_MAX} and {NESTED_MAX} are the most: make it smaller",
            graph.targets.len()
        ));
    }
    graph.ask()
}

fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or(0),
        _ => 1,
    }
}

impl<'a> Graph<'a> {
    fn number(&mut self, value: &'a Value) -> usize {
        *self.numbers.entry(ptr::from_ref(value)).or_insert_with(|| {
            self.values.push(value);
            self.values.len() - 1
        })
    }

    fn child(&mut self, kind: Kind, name: &str) -> Where {
        let next = self.children.len();
        Where::One(kind, *self.children.entry((kind, name.to_owned())).or_insert(next))
    }

    fn read(&mut self, object: &'a Map<String, Value>, is_root: bool) -> Result<Node, String> {
        let mut node = Node { edges: Vec::new(), times: 1 };
        for (key, value) in object {
            let mut to = |place: Where, value: &'a Value| {
                let number = self.number(value);
                node.edges.push((place, number));
            };
            match (key.as_str(), value) {
                ("$ref", Value::String(text)) => {
                    let target = self.target(text)?;
                    self.targets.insert(target);
                    node.edges.push((Where::Here, target));
                }
                ("$dynamicRef" | "$recursiveRef", _) => {
                    return Err(format!("uses `{key}`, whose cost cannot be told: use `$ref`"));
                }
                // It would change what a `$ref` below it means.
                ("$id" | "id", Value::String(_)) if !is_root => {
                    return Err(format!(
                        "has a schema with an `{key}` of its own: leave it out and use \"#/$defs/NAME\""
                    ));
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => all.iter().for_each(|value| to(Where::Here, value)),
                ("not" | "if" | "then" | "else", value) => to(Where::Here, value),
                ("dependentSchemas" | "dependencies", Value::Object(all)) => {
                    all.values().for_each(|value| to(Where::Here, value))
                }
                ("patternProperties", Value::Object(all)) => {
                    all.values().for_each(|value| to(Where::Every(Kind::Property), value))
                }
                ("additionalProperties", value) => to(Where::Other(Kind::Property), value),
                ("propertyNames", value) => to(Where::Every(Kind::Property), value),
                ("contains", value) => to(Where::Every(Kind::Item), value),
                ("additionalItems", value) => to(Where::Other(Kind::Item), value),
                ("unevaluatedProperties", value) => {
                    to(Where::Every(Kind::Property), value);
                    node.times += 1;
                }
                ("unevaluatedItems", value) => {
                    to(Where::Every(Kind::Item), value);
                    node.times += 1;
                }
                ("properties", Value::Object(all)) => {
                    for (name, value) in all {
                        let edge = (self.child(Kind::Property, name), self.number(value));
                        node.edges.push(edge);
                    }
                }
                ("items" | "prefixItems", Value::Array(all)) => {
                    for (place, value) in all.iter().enumerate() {
                        let edge = (self.child(Kind::Item, &place.to_string()), self.number(value));
                        node.edges.push(edge);
                    }
                }
                ("items", value) => to(Where::Other(Kind::Item), value),
                _ => {}
            }
        }
        Ok(node)
    }

    fn target(&mut self, text: &str) -> Result<usize, String> {
        let pointer = text
            .strip_prefix('#')
            .filter(|pointer| pointer.is_empty() || (pointer.starts_with('/') && !pointer.contains('%')));
        let Some(pointer) = pointer else {
            return Err(format!(
                "refers to \"{text}\": only places within it can be referred to, as \"#\" or \"#/$defs/NAME\""
            ));
        };
        let root = self.root;
        let found = root.pointer(pointer).ok_or_else(|| format!("refers to \"{text}\", where it has nothing"))?;
        Ok(self.number(found))
    }

    /// Goes down a payload, level by level, with how often each schema may be asked of one place at most, and how many
    /// are above it. Between the children of a place the most is taken: more than one path can have, never less.
    fn ask(&self) -> Result<(), String> {
        let order = self.order()?;
        let mut asked = vec![0_u64; self.nodes.len()];
        let mut above = vec![0_u64; self.nodes.len()];
        asked[0] = 1;
        self.close(&order, &mut asked)?;
        let mut steps = 0;
        for _ in 0..PAYLOAD_DEPTH_MAX {
            for (number, place, to) in order
                .iter()
                .flat_map(|number| self.nodes[*number].edges.iter().map(|(place, to)| (*number, place, *to)))
            {
                if asked[number] > 0 && *place == Where::Here {
                    above[to] = above[to].max(above[number] + 1);
                }
            }
            if above.iter().any(|stacked| *stacked > STACKED_MAX) {
                return Err(format!(
                    "may nest more than {STACKED_MAX} checks, since it refers to itself by way of too many parts: put fewer between"
                ));
            }
            if asked.iter().all(|count| *count == 0) {
                return Ok(());
            }
            above = self.stacked(&asked, &above);
            asked = self.descend(&order, &asked, &mut steps)?;
        }
        Ok(())
    }

    /// Adds what is asked at the same place by what is asked there.
    fn close(&self, order: &[usize], asked: &mut [u64]) -> Result<(), String> {
        for &number in order {
            let times = asked[number].saturating_mul(self.nodes[number].times);
            if times > 0 {
                for (_, to) in self.nodes[number].edges.iter().filter(|(place, _)| *place == Where::Here) {
                    asked[*to] = asked[*to].saturating_add(times);
                }
            }
        }
        if asked.iter().fold(0_u64, |sum, count| sum.saturating_add(*count)) > ASKED_MAX {
            return Err(format!(
                "may take more than {ASKED_MAX} checks at one place of a payload, since parts of it refer to others again and again: refer to each in one way only"
            ));
        }
        Ok(())
    }

    fn stacked(&self, asked: &[u64], above: &[u64]) -> Vec<u64> {
        let mut stacked = vec![0_u64; self.nodes.len()];
        for (number, node) in self.nodes.iter().enumerate().filter(|(number, _)| asked[*number] > 0) {
            for (_, to) in node.edges.iter().filter(|(place, _)| *place != Where::Here) {
                stacked[*to] = stacked[*to].max(above[number] + 1);
            }
        }
        stacked
    }

    fn descend(&self, order: &[usize], asked: &[u64], steps: &mut usize) -> Result<Vec<u64>, String> {
        let mut max = vec![0_u64; self.nodes.len()];
        for kind in [Kind::Property, Kind::Item] {
            // What is asked of any child, and how much more or less of a certain one.
            let mut any = vec![0_u64; self.nodes.len()];
            let mut certain: HashMap<usize, Vec<(usize, i64)>> = HashMap::new();
            for (number, node) in self.nodes.iter().enumerate().filter(|(number, _)| asked[*number] > 0) {
                let signed = i64::try_from(asked[number]).unwrap_or(i64::MAX);
                for (place, to) in &node.edges {
                    match place {
                        Where::Every(of) if *of == kind => any[*to] += asked[number],
                        Where::Other(of) if *of == kind => {
                            any[*to] += asked[number];
                            for (place, _) in &node.edges {
                                if let Where::One(of, child) = place
                                    && *of == kind
                                {
                                    certain.entry(*child).or_default().push((*to, -signed));
                                }
                            }
                        }
                        Where::One(of, child) if *of == kind => certain.entry(*child).or_default().push((*to, signed)),
                        _ => {}
                    }
                }
            }
            // A child that nothing names is asked what any child is.
            for changes in certain.into_values().chain([Vec::new()]) {
                let mut child = any.clone();
                // What is added goes first, so that nothing is below zero on the way.
                for (to, change) in changes
                    .iter()
                    .filter(|(_, change)| *change > 0)
                    .chain(changes.iter().filter(|(_, change)| *change < 0))
                {
                    child[*to] = child[*to].saturating_add_signed(*change);
                }
                self.close(order, &mut child)?;
                for (max, count) in max.iter_mut().zip(child) {
                    *max = (*max).max(count);
                }
                *steps += self.nodes.len();
            }
            if *steps > STEPS_MAX {
                return Err(
                    "has too many parts that refer to one another for its cost to be told: make it smaller".to_owned()
                );
            }
        }
        Ok(max)
    }

    /// All schemas, those that are asked at the same place as others after these.
    fn order(&self) -> Result<Vec<usize>, String> {
        let mut waits = vec![0_usize; self.nodes.len()];
        let here = |number: usize| {
            self.nodes[number].edges.iter().filter(|(place, _)| *place == Where::Here).map(|(_, to)| *to)
        };
        (0..self.nodes.len()).flat_map(here).for_each(|to| waits[to] += 1);
        let mut order: Vec<usize> = (0..self.nodes.len()).filter(|number| waits[*number] == 0).collect();
        let mut next = 0;
        while let Some(&number) = order.get(next) {
            for to in here(number) {
                waits[to] -= 1;
                if waits[to] == 0 {
                    order.push(to);
                }
            }
            next += 1;
        }
        if order.len() == self.nodes.len() {
            Ok(order)
        } else {
            Err("refers to itself without going down into the payload, so that it would never be done: refer to it below `properties` or `items`".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A chain of definitions of which each is made from the next one.
    fn chain(links: usize, link: impl Fn(Value) -> Value) -> Value {
        let to = |n: usize| json!({ "$ref": format!("#/$defs/d{n}") });
        let mut defs: Map<String, Value> = (0..links).map(|n| (format!("d{n}"), link(to(n + 1)))).collect();
        defs.insert(format!("d{links}"), json!({ "type": "string" }));
        json!({ "$ref": "#/$defs/d0", "$defs": defs })
    }

    #[test]
    fn ordinary_schemas_are_taken() {
        let tree = json!({ "$defs": { "tree": { "type": "object", "properties": {
            "left": { "$ref": "#/$defs/tree" }, "right": { "$ref": "#/$defs/tree" }, "more": { "type": "array", "items": { "$ref": "#/$defs/tree" } }
        }, "additionalProperties": { "$ref": "#/$defs/tree" } } }, "$ref": "#/$defs/tree" });
        let expression = json!({ "anyOf": [{ "type": "number" }, { "type": "object", "properties": { "and": { "items": { "$ref": "#" } }, "not": { "$ref": "#" } } }] });
        let tuple = json!({ "prefixItems": [{ "type": "string" }, { "$ref": "#" }], "items": { "$ref": "#" } });
        for schema in [json!(true), json!({}), tree, expression, tuple, chain(20, |next| next)] {
            assert_eq!(check(&schema), Ok(()), "{schema}");
        }
    }

    #[test]
    fn doubling_and_circles_are_refused() {
        let twice = |next: Value| json!({ "allOf": [next.clone(), next] });
        let told = check(&chain(30, twice)).unwrap_err();
        assert!(told.contains("more than 10000 checks at one place"), "{told}");
        let below = json!({ "allOf": [{ "items": { "$ref": "#" } }, { "items": { "$ref": "#" } }] });
        assert!(check(&below).unwrap_err().contains("checks at one place"), "doubling with every level");
        let overlap = json!({ "properties": { "a": { "$ref": "#" } }, "patternProperties": { ".": { "$ref": "#" } } });
        assert!(check(&overlap).unwrap_err().contains("checks at one place"));
        let circle = json!({ "$defs": { "a": { "not": { "$ref": "#/$defs/b" } }, "b": { "anyOf": [{ "$ref": "#/$defs/a" }] } }, "$ref": "#/$defs/a" });
        assert!(check(&circle).unwrap_err().contains("would never be done"));
        assert!(check(&chain(300, |next| next)).unwrap_err().contains("are the most"));
        assert!(check(&json!({ "$dynamicRef": "#x" })).is_err() && check(&json!({ "$ref": "other.json" })).is_err());
        assert!(check(&json!({ "properties": { "a": { "$id": "http://x/", "$ref": "#/b" } } })).is_err());
    }

    #[test]
    fn what_is_taken_fits_the_stack() {
        let through =
            |next: Value| json!({ "properties": { "a": next }, "items": { "not": { "not": { "type": "null" } } } });
        let largest =
            (1..TARGETS_MAX).rev().map(|links| chain(links, through)).find(|schema| check(schema).is_ok()).unwrap();
        crate::spec::payload::Schema::parse(&largest.to_string()).unwrap();
        // As much as stands between two levels of a payload.
        let between =
            |n: usize| (0..n).fold(json!({ "items": { "$ref": "#" } }), |schema, _| json!({ "allOf": [schema] }));
        let widest = (1..60).rev().map(between).find(|schema| check(schema).is_ok()).unwrap();
        let schema = crate::spec::payload::Schema::parse(&widest.to_string()).unwrap();
        let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
        assert_eq!(schema.check(deep.as_bytes()), Ok(()));
    }
}
