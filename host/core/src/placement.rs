//! Placement: which of the live nodes could run the jobs of a task, as far as they announced it.

/// The readiness of one node to run the jobs of a task. A greater one is closer to running them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeReadiness {
    /// It does not have the plugin.
    PluginAbsent,
    /// It has the plugin in a version without the task.
    TaskAbsent,
    /// It has the task, and an attempt of it needs more memory than one can have there.
    TooLarge,
    /// It runs the task and is stopping.
    Draining,
    /// It is loading the plugin.
    Loading,
    /// It runs the task, and its budget of memory has no room for an attempt at this moment.
    NoMemory,
    /// It runs the task, and has as many attempts as it may have.
    Full,
    /// It runs the task, and has room for an attempt.
    Ready,
}

/// The facts that a node announced and that matter to one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node has the plugin loaded.
    pub has_plugin: bool,
    /// The node runs the task. A node that announces no tasks is assumed to run those of its plugins.
    pub runs_task: bool,
    /// The node is loading the plugin, or a version of it.
    pub is_loading: bool,
    /// The node is stopping, or an operator drains it.
    pub draining: bool,
    /// Number of attempts that run on the node.
    pub running: u32,
    /// Number of attempts that may run on the node at once.
    pub capacity: u32,
    /// An attempt of the task needs more memory than one can have on the node.
    pub is_too_large: bool,
    /// The node's budget of memory has room for an attempt at this moment, or it is not known.
    pub has_memory: bool,
}

impl NodeReadiness {
    /// Returns the readiness of a node.
    pub fn of(node: NodeFacts) -> NodeReadiness {
        match node {
            NodeFacts { runs_task: true, is_too_large: true, is_loading: true, draining: false, .. } => {
                NodeReadiness::Loading
            }
            NodeFacts { runs_task: true, is_too_large: true, .. } => NodeReadiness::TooLarge,
            NodeFacts { runs_task: true, draining: true, .. } => NodeReadiness::Draining,
            NodeFacts { runs_task: true, running, capacity, .. } if running >= capacity => NodeReadiness::Full,
            NodeFacts { runs_task: true, has_memory: false, .. } => NodeReadiness::NoMemory,
            NodeFacts { runs_task: true, .. } => NodeReadiness::Ready,
            NodeFacts { is_loading: true, draining: false, .. } => NodeReadiness::Loading,
            NodeFacts { has_plugin: true, .. } => NodeReadiness::TaskAbsent,
            _ => NodeReadiness::PluginAbsent,
        }
    }

    /// Returns true if the node claims jobs of the task, now or when an attempt has ended.
    pub fn claims(self) -> bool {
        matches!(self, NodeReadiness::NoMemory | NodeReadiness::Full | NodeReadiness::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: NodeFacts = NodeFacts {
        has_plugin: true,
        runs_task: true,
        is_loading: false,
        draining: false,
        running: 1,
        capacity: 2,
        is_too_large: false,
        has_memory: true,
    };
    const ABSENT: NodeFacts = NodeFacts { has_plugin: false, runs_task: false, ..READY };

    #[test]
    fn a_node_is_as_ready_as_what_it_announced_allows() {
        use NodeReadiness as R;
        let is = |facts, readiness| assert_eq!(NodeReadiness::of(facts), readiness, "{facts:?}");
        is(READY, R::Ready);
        is(NodeFacts { running: 2, ..READY }, R::Full);
        is(NodeFacts { draining: true, running: 2, ..READY }, R::Draining);
        is(NodeFacts { is_loading: true, ..READY }, R::Ready);
        is(NodeFacts { is_loading: true, ..ABSENT }, R::Loading);
        is(NodeFacts { runs_task: false, is_loading: true, ..READY }, R::Loading);
        is(NodeFacts { is_loading: true, draining: true, ..ABSENT }, R::PluginAbsent);
        is(NodeFacts { runs_task: false, ..READY }, R::TaskAbsent);
        is(ABSENT, R::PluginAbsent);
        is(NodeFacts { has_memory: false, ..READY }, R::NoMemory);
        is(NodeFacts { is_too_large: true, has_memory: false, draining: true, ..READY }, R::TooLarge);
        is(NodeFacts { is_too_large: true, is_loading: true, ..READY }, R::Loading);
    }

    #[test]
    fn the_readiest_node_decides() {
        use NodeReadiness as R;
        let ascending =
            [R::PluginAbsent, R::TaskAbsent, R::TooLarge, R::Draining, R::Loading, R::NoMemory, R::Full, R::Ready];
        assert!(ascending.is_sorted());
        assert_eq!(ascending.map(NodeReadiness::claims), [false, false, false, false, false, true, true, true]);
    }
}
