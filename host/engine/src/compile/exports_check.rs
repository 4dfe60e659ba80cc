//! Compares what a manifest declares with what its component exports.

use crate::compile::linked::Linked;
use crate::spec::manifest::Manifest;
use crate::spec::problem::Problem;

/// The functions that a component exports.
#[derive(Clone, Copy)]
pub(crate) struct Callable {
    handler: bool,
    subscriber: bool,
}

impl From<&Linked> for Callable {
    fn from(linked: &Linked) -> Callable {
        Callable { handler: linked.handler.is_some(), subscriber: linked.subscriber.is_some() }
    }
}

/// Returns a problem for everything that is declared but cannot be called.
pub(crate) fn problems(manifest: &Manifest, has: Callable) -> Vec<Problem> {
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
pub(crate) fn notes(manifest: &Manifest, has: Callable) -> Vec<Problem> {
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
            [problems(&manifest, has), notes(&manifest, has)]
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
