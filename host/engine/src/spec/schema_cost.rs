//! Computes what checking a payload against a schema may cost, from the schema alone.
//!
//! References let a small schema be exponentially large: a chain of definitions of which each refers twice to the next
//! one doubles the work with every link, and one that refers twice to itself doubles it with every level of the
//! payload. So this goes through every level of a payload with the maximum number of schemas that can apply to one
//! value in it.

use std::collections::{HashMap, HashSet};
use std::ptr;

use serde_json::{Map, Value};

use crate::spec::check_budget::{CheckCost, PAYLOAD_DEPTH_MAX, ValueCost};

/// Maximum number of schemas that may apply to one value of a payload, counted as often as they apply.
const APPLICATIONS_MAX: u64 = 10_000;
/// Maximum number of schemas that may be applied within one another: each takes some of the thread's stack.
const STACK_DEPTH_MAX: u64 = 1024;
/// Maximum number of different places to which references lead.
const TARGETS_MAX: usize = 256;
/// Maximum number of steps of this computation: a moment, for schemas that nobody writes by hand.
const STEPS_MAX: usize = 20_000_000;
/// Maximum nesting of all referenced places together: compiling goes from one to the next.
const NESTED_MAX: usize = 1024;

/// The value in the payload to which a schema within another one applies.
#[derive(Clone, PartialEq, Eq)]
enum AppliesTo {
    /// The value that the schema itself applies to.
    SameValue,
    /// Every child of a kind.
    EveryChild(ChildKind),
    /// One child, by number.
    NamedChild(ChildKind, usize),
    /// Every child but those that the same schema names.
    UnnamedChildren(ChildKind),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ChildKind {
    Property,
    Item,
}

/// One schema within the whole.
#[derive(Default)]
struct Node {
    edges: Vec<(AppliesTo, usize)>,
    /// The number of times that this schema's parts apply: `unevaluated...` applies them again.
    weight: u64,
    /// Cost of its own keywords, without the schemas in it.
    cost: ValueCost,
}

struct Graph<'a> {
    root: &'a Value,
    values: Vec<&'a Value>,
    nodes: Vec<Node>,
    numbers: HashMap<*const Value, usize>,
    children: HashMap<(ChildKind, String), usize>,
    targets: HashSet<usize>,
}

/// Checks that a schema is cheap enough, and returns what it costs for each level of a payload.
///
/// # Errors
/// A reason with a way to fix it, if checking a payload may cost more than the limits allow.
pub(crate) fn check(schema: &Value) -> Result<CheckCost, String> {
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
            _ => Node { edges: Vec::new(), weight: 1, cost: ValueCost { value: 1, ..ValueCost::default() } },
        };
        graph.nodes.push(node);
        next += 1;
    }
    let nested: usize =
        graph.targets.iter().map(|target| levels(graph.values[*target])).sum::<usize>() + levels(schema);
    if graph.targets.len() > TARGETS_MAX || nested > NESTED_MAX {
        return Err(format!(
            "its references lead to {} places, {nested} levels deep in all; the limits are {TARGETS_MAX} and {NESTED_MAX}; make it smaller",
            graph.targets.len()
        ));
    }
    graph.check_levels()
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

    fn child(&mut self, kind: ChildKind, name: &str) -> AppliesTo {
        let next = self.children.len();
        AppliesTo::NamedChild(kind, *self.children.entry((kind, name.to_owned())).or_insert(next))
    }

    fn read(&mut self, object: &'a Map<String, Value>, is_root: bool) -> Result<Node, String> {
        let cost = ValueCost { value: 1, ..ValueCost::default() };
        let mut node = Node { edges: Vec::new(), weight: 1, cost };
        for (key, value) in object {
            node.cost.count_keyword(key, value);
            let mut to = |applies_to: AppliesTo, value: &'a Value| {
                let number = self.number(value);
                node.edges.push((applies_to, number));
            };
            match (key.as_str(), value) {
                ("$ref", Value::String(text)) => {
                    let target = self.target(text)?;
                    self.targets.insert(target);
                    node.edges.push((AppliesTo::SameValue, target));
                }
                ("$dynamicRef" | "$recursiveRef", _) => {
                    return Err(format!("`{key}` is not supported; use `$ref`"));
                }
                // It would change what a `$ref` below it refers to.
                ("$id" | "id", Value::String(_)) if !is_root => {
                    return Err(format!(
                        "a schema within it has an `{key}`, which is not supported; remove it and use \"#/$defs/NAME\""
                    ));
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => {
                    all.iter().for_each(|value| to(AppliesTo::SameValue, value))
                }
                ("not" | "if" | "then" | "else", value) => to(AppliesTo::SameValue, value),
                ("dependentSchemas" | "dependencies", Value::Object(all)) => {
                    all.values().for_each(|value| to(AppliesTo::SameValue, value))
                }
                ("patternProperties", Value::Object(all)) => {
                    all.values().for_each(|value| to(AppliesTo::EveryChild(ChildKind::Property), value))
                }
                ("additionalProperties", value) => to(AppliesTo::UnnamedChildren(ChildKind::Property), value),
                ("propertyNames", value) => to(AppliesTo::EveryChild(ChildKind::Property), value),
                ("contains", value) => to(AppliesTo::EveryChild(ChildKind::Item), value),
                ("additionalItems", value) => to(AppliesTo::UnnamedChildren(ChildKind::Item), value),
                ("unevaluatedProperties", value) => {
                    to(AppliesTo::EveryChild(ChildKind::Property), value);
                    node.weight += 1;
                }
                ("unevaluatedItems", value) => {
                    to(AppliesTo::EveryChild(ChildKind::Item), value);
                    node.weight += 1;
                }
                ("properties", Value::Object(all)) => {
                    for (name, value) in all {
                        let edge = (self.child(ChildKind::Property, name), self.number(value));
                        node.edges.push(edge);
                    }
                }
                ("items" | "prefixItems", Value::Array(all)) => {
                    for (index, value) in all.iter().enumerate() {
                        let edge = (self.child(ChildKind::Item, &index.to_string()), self.number(value));
                        node.edges.push(edge);
                    }
                }
                ("items", value) => to(AppliesTo::UnnamedChildren(ChildKind::Item), value),
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
                "unsupported reference \"{text}\"; only places within the schema can be referred to, as \"#\" or \"#/$defs/NAME\""
            ));
        };
        let root = self.root;
        let found = root.pointer(pointer).ok_or_else(|| format!("dangling reference \"{text}\""))?;
        Ok(self.number(found))
    }

    /// Goes down a payload, level by level, with the maximum number of times that each schema applies to one value, and
    /// its depth on the stack. Takes the maximum over the children of a value: more than one path can have, never less.
    fn check_levels(&mut self) -> Result<CheckCost, String> {
        let order = self.order()?;
        self.weigh_unevaluated(&order);
        let mut cost = CheckCost::default();
        let mut applied = vec![0_u64; self.nodes.len()];
        let mut stack_depth = vec![0_u64; self.nodes.len()];
        applied[0] = 1;
        cost.levels.push(self.apply_at_same(&order, &mut applied)?);
        let mut steps = 0;
        for _ in 0..PAYLOAD_DEPTH_MAX {
            for (number, applies_to, to) in order
                .iter()
                .flat_map(|number| self.nodes[*number].edges.iter().map(|(applies_to, to)| (*number, applies_to, *to)))
            {
                if applied[number] > 0 && *applies_to == AppliesTo::SameValue {
                    stack_depth[to] = stack_depth[to].max(stack_depth[number] + 1);
                }
            }
            if stack_depth.iter().any(|stack_below| *stack_below > STACK_DEPTH_MAX) {
                return Err(format!(
                    "too many nested checks; the limit is {STACK_DEPTH_MAX}; it refers to itself through too many parts: use fewer"
                ));
            }
            if applied.iter().all(|count| *count == 0) {
                return Ok(cost);
            }
            stack_depth = self.stack_below(&applied, &stack_depth);
            let mut level = ValueCost::default();
            applied = self.descend(&order, &applied, &mut steps, &mut level)?;
            cost.levels.push(level);
        }
        Ok(cost)
    }

    /// Multiplies the weight of `unevaluated...` by the length of the chain of schemas that apply to the same value: to
    /// find what was evaluated, each link of the chain is checked again, with all that follow it.
    fn weigh_unevaluated(&mut self, order: &[usize]) {
        let mut chain = vec![1_u64; self.nodes.len()];
        for &number in order.iter().rev() {
            let node = &self.nodes[number];
            let next = node.edges.iter().filter(|(applies_to, _)| *applies_to == AppliesTo::SameValue);
            chain[number] = next.map(|(_, to)| 1 + chain[*to]).max().unwrap_or(1);
            self.nodes[number].weight = 1 + (self.nodes[number].weight - 1).saturating_mul(chain[number]);
        }
    }

    /// Adds the schemas that apply to the same value as those that apply already. Returns what the value costs.
    fn apply_at_same(&self, order: &[usize], applied: &mut [u64]) -> Result<ValueCost, String> {
        let mut cost = ValueCost::default();
        for &number in order {
            let weight = applied[number].saturating_mul(self.nodes[number].weight);
            if weight > 0 {
                cost.add(&self.nodes[number].cost, weight);
                for (_, to) in
                    self.nodes[number].edges.iter().filter(|(applies_to, _)| *applies_to == AppliesTo::SameValue)
                {
                    applied[*to] = applied[*to].saturating_add(weight);
                }
            }
        }
        if applied.iter().fold(0_u64, |sum, count| sum.saturating_add(*count)) > APPLICATIONS_MAX {
            return Err(format!(
                "too many checks for one value of a payload; the limit is {APPLICATIONS_MAX}; parts of it refer to others again and again: refer to each in one way only"
            ));
        }
        Ok(cost)
    }

    fn stack_below(&self, applied: &[u64], stack_depth: &[u64]) -> Vec<u64> {
        let mut stack_below = vec![0_u64; self.nodes.len()];
        for (number, node) in self.nodes.iter().enumerate().filter(|(number, _)| applied[*number] > 0) {
            for (_, to) in node.edges.iter().filter(|(applies_to, _)| *applies_to != AppliesTo::SameValue) {
                stack_below[*to] = stack_below[*to].max(stack_depth[number] + 1);
            }
        }
        stack_below
    }

    /// Returns how often each schema applies to a child of a value, and raises `cost` to what such a child costs.
    fn descend(
        &self,
        order: &[usize],
        applied: &[u64],
        steps: &mut usize,
        cost: &mut ValueCost,
    ) -> Result<Vec<u64>, String> {
        let mut max = vec![0_u64; self.nodes.len()];
        for kind in [ChildKind::Property, ChildKind::Item] {
            // Counts for every child, and the difference for a named one.
            let mut any = vec![0_u64; self.nodes.len()];
            let mut certain: HashMap<usize, Vec<(usize, i64)>> = HashMap::new();
            for (number, node) in self.nodes.iter().enumerate().filter(|(number, _)| applied[*number] > 0) {
                let signed = i64::try_from(applied[number]).unwrap_or(i64::MAX);
                for (applies_to, to) in &node.edges {
                    match applies_to {
                        AppliesTo::EveryChild(of) if *of == kind => any[*to] += applied[number],
                        AppliesTo::UnnamedChildren(of) if *of == kind => {
                            any[*to] += applied[number];
                            for (applies_to, _) in &node.edges {
                                if let AppliesTo::NamedChild(of, child) = applies_to
                                    && *of == kind
                                {
                                    certain.entry(*child).or_default().push((*to, -signed));
                                }
                            }
                        }
                        AppliesTo::NamedChild(of, child) if *of == kind => {
                            certain.entry(*child).or_default().push((*to, signed))
                        }
                        _ => {}
                    }
                }
            }
            // A child that no schema names.
            for changes in certain.into_values().chain([Vec::new()]) {
                let mut child = any.clone();
                // Additions go first, so that no count falls below zero on the way.
                for (to, change) in changes
                    .iter()
                    .filter(|(_, change)| *change > 0)
                    .chain(changes.iter().filter(|(_, change)| *change < 0))
                {
                    child[*to] = child[*to].saturating_add_signed(*change);
                }
                cost.raise_to(&self.apply_at_same(order, &mut child)?);
                for (max, count) in max.iter_mut().zip(child) {
                    *max = (*max).max(count);
                }
                *steps += self.nodes.len();
            }
            if *steps > STEPS_MAX {
                return Err("too many parts refer to one another; make it smaller".to_owned());
            }
        }
        Ok(max)
    }

    /// Returns all schemas in an order in which those that apply to the same value as another come after it.
    fn order(&self) -> Result<Vec<usize>, String> {
        let mut dependents = vec![0_usize; self.nodes.len()];
        let here = |number: usize| {
            self.nodes[number]
                .edges
                .iter()
                .filter(|(applies_to, _)| *applies_to == AppliesTo::SameValue)
                .map(|(_, to)| *to)
        };
        (0..self.nodes.len()).flat_map(here).for_each(|to| dependents[to] += 1);
        let mut order: Vec<usize> = (0..self.nodes.len()).filter(|number| dependents[*number] == 0).collect();
        let mut next = 0;
        while let Some(&number) = order.get(next) {
            for to in here(number) {
                dependents[to] -= 1;
                if dependents[to] == 0 {
                    order.push(to);
                }
            }
            next += 1;
        }
        if order.len() == self.nodes.len() {
            Ok(order)
        } else {
            Err("it refers to itself for the same value, which would never end; refer to it below `properties` or `items`".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A chain of definitions, each made from the next one.
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
            assert!(check(&schema).is_ok(), "{schema}");
        }
    }

    #[test]
    fn doubling_and_circles_are_refused() {
        let twice = |next: Value| json!({ "allOf": [next.clone(), next] });
        let message = check(&chain(30, twice)).unwrap_err();
        assert!(message.contains("too many checks for one value of a payload; the limit is 10000"), "{message}");
        let below = json!({ "allOf": [{ "items": { "$ref": "#" } }, { "items": { "$ref": "#" } }] });
        assert!(check(&below).unwrap_err().contains("too many checks for one value"), "doubling with every level");
        let overlap = json!({ "properties": { "a": { "$ref": "#" } }, "patternProperties": { ".": { "$ref": "#" } } });
        assert!(check(&overlap).unwrap_err().contains("too many checks for one value"));
        let circle = json!({ "$defs": { "a": { "not": { "$ref": "#/$defs/b" } }, "b": { "anyOf": [{ "$ref": "#/$defs/a" }] } }, "$ref": "#/$defs/a" });
        assert!(check(&circle).unwrap_err().contains("which would never end"));
        assert!(check(&chain(300, |next| next)).unwrap_err().contains("the limits are 256 and 1024"));
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
        // As much as possible between two levels of a payload.
        let between =
            |n: usize| (0..n).fold(json!({ "items": { "$ref": "#" } }), |schema, _| json!({ "allOf": [schema] }));
        let widest = (1..60).rev().map(between).find(|schema| check(schema).is_ok()).unwrap();
        let schema = crate::spec::payload::Schema::parse(&widest.to_string()).unwrap();
        let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
        assert_eq!(schema.check(deep.as_bytes()), Ok(()));
    }
}
