//! Compares what a manifest declares with what its component exports.

use wharf_core::bounds;

use crate::compile::linked::{ContractExports, Exports, Linked};
use crate::inspect::plain_exports::{PROGRAM_TASK, PlainExports};
use crate::spec::manifest::Manifest;
use crate::spec::problem::Problem;

/// The functions of the contract that a component exports.
#[derive(Clone, Copy)]
struct Callable {
    handler: bool,
    subscriber: bool,
}

/// Returns a problem for everything that is declared but cannot be called.
pub(crate) fn problems(manifest: &Manifest, linked: &Linked) -> Vec<Problem> {
    match &linked.exports {
        Exports::Contract(contract) => contract_problems(manifest, Callable::of(contract)),
        Exports::Plain(_) | Exports::Module(_) if !manifest.topics.is_empty() => vec![
            Problem::new("it has topics, but it knows nothing of broadcasts")
                .hint("remove `topics`; only a plugin with the world `subscriber-plugin` of `wharf:plugin` receives broadcasts"),
        ],
        Exports::Plain(_) | Exports::Module(_) => Vec::new(),
    }
}

/// Returns a note for everything that does not work as one might expect.
pub(crate) fn notes(manifest: &Manifest, linked: &Linked) -> Vec<Problem> {
    match (&linked.exports, &linked.description.plain) {
        (Exports::Contract(contract), _) => contract_notes(manifest, Callable::of(contract)),
        (Exports::Plain(_) | Exports::Module(_), Some(plain)) => plain_notes(manifest, plain),
        (Exports::Plain(_) | Exports::Module(_), None) => Vec::new(),
    }
}

fn plain_notes(manifest: &Manifest, plain: &PlainExports) -> Vec<Problem> {
    let mut notes = plain.left_out.clone();
    if plain.program.as_ref().is_some_and(|program| !program.tells_status) {
        let discards = manifest.tasks.get(PROGRAM_TASK).is_some_and(|task| !task.plain.discard_on.is_empty());
        let what = "its exit status does not reach the host: each but 0 arrives as 1";
        notes.push(Problem::new(what).hint(if discards {
            "`discard-on` can only tell 1 from 0"
        } else {
            "every failure is retried, whatever its status"
        }));
    }
    if manifest.too_many > 0 {
        notes.push(
            Problem::new(format!(
                "{} of its functions do not become tasks: a plugin has at most {}",
                manifest.too_many,
                bounds::TASKS_MAX
            ))
            .hint(
                "name those that should be in NAME.toml or wharf.toml, each with a table [tasks.NAME]; they come first",
            ),
        );
    }
    notes
}

impl Callable {
    fn of(contract: &ContractExports) -> Callable {
        Callable { handler: contract.handler.is_some(), subscriber: contract.subscriber.is_some() }
    }
}

fn contract_problems(manifest: &Manifest, has: Callable) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !manifest.tasks.is_empty() && !has.handler {
        problems.push(
            Problem::new("its manifest declares tasks, but it does not export `wharf:plugin/handler`")
                .hint("export the world `handler-plugin`, or `plugin` if it has topics, too; or remove the tasks"),
        );
    }
    if !manifest.topics.is_empty() && !has.subscriber {
        problems.push(
            Problem::new("it has topics, but it does not export `wharf:plugin/subscriber`")
                .hint("export the world `subscriber-plugin`, or `plugin` if it has tasks, too; or remove `topics` from its manifest and from wharf.toml"),
        );
    }
    problems
}

/// Returns a note for everything that is exported but never called.
fn contract_notes(manifest: &Manifest, has: Callable) -> Vec<Problem> {
    let mut notes = Vec::new();
    if manifest.tasks.is_empty() && has.handler {
        notes.push(
            Problem::new("it exports `wharf:plugin/handler`, which is never called: no task is declared")
                .hint("to handle jobs, declare a task in the manifest: [tasks.NAME]"),
        );
    }
    if manifest.topics.is_empty() && has.subscriber {
        notes.push(
            Problem::new("it exports `wharf:plugin/subscriber`, which is never called: its manifest lists no topics")
                .hint("to receive broadcasts, set topics = [\"...\"] at the top of the manifest"),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::grants::PluginSettings;

    #[test]
    fn what_is_declared_must_be_callable_and_what_is_callable_should_be_declared() {
        let texts = |manifest: &str, handler, subscriber| {
            let text = format!("name = 'a'\nversion = '1'\n{manifest}");
            let manifest = Manifest::read(&"a".parse().unwrap(), &text, &PluginSettings::default()).unwrap();
            let has = Callable { handler, subscriber };
            [contract_problems(&manifest, has), contract_notes(&manifest, has)]
                .map(|texts| texts.iter().map(|problem| problem.what.clone()).collect::<Vec<_>>().join("\n"))
        };
        let (tasks, topics, both) = ("[tasks.t]", "topics = ['x']", "topics = ['x']\n[tasks.t]");
        for (manifest, handler, subscriber) in [(tasks, true, false), (topics, false, true), (both, true, true)] {
            assert_eq!(texts(manifest, handler, subscriber), ["", ""]);
        }
        let [problems, notes] = texts(tasks, false, true);
        assert!(problems.contains("declares tasks, but it does not export `wharf:plugin/handler`"), "{problems}");
        assert!(notes.contains("`wharf:plugin/subscriber`, which is never called"), "{notes}");
        let [problems, notes] = texts(topics, true, false);
        assert!(problems.contains("has topics, but it does not export `wharf:plugin/subscriber`"), "{problems}");
        assert!(notes.contains("`wharf:plugin/handler`, which is never called"), "{notes}");
        assert_eq!(texts(both, true, false)[1], "");
    }
}
