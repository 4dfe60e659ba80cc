//! Draining a node without stopping it: it claims no jobs, starts no live broadcasts and fires no schedules. What runs goes on,
//! and the API answers. A host that starts does not remember it.

use std::time::Duration;

use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::ids::NodeId;
use wharf_core::node::{Node, NodeName};
use wharf_core::node_message::{MessageBody, NodeMessage};
use wharf_store::StoreError;

use super::Host;

/// Time for which a node waits for the loop of its own, or for another node, to do what an operator wants.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Interval at which a node looks if another one has done so.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A node after an operator drained or resumed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainedNode {
    /// The node's ID.
    pub id: NodeId,
    /// The node's name.
    pub name: String,
    /// The node claims no jobs.
    pub draining: bool,
    /// Number of attempts that run on the node.
    pub running: u32,
}

/// Why a node was not drained or resumed.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// No node of the store has this ID or name.
    #[error("unknown node `{0}`: expected the ID or the name of a node, or `self`; `wharf node list` lists them")]
    Unknown(String),
    /// Several nodes have this name.
    #[error("{} nodes are named `{name}`: {}; use an ID", .ids.len(), .ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// Their IDs.
        ids: Vec<NodeId>,
    },
    /// The node is stopping, and claims no more jobs.
    #[error("node `{0}` is stopping; it claims jobs again when it is started again")]
    Stopping(String),
    /// The node did not do it in time.
    #[error("node `{0}` did not answer; if it is silent in `wharf node list`, it claims nothing either way")]
    Silent(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Host {
    /// Drains a node of the store, or lets it claim jobs again. Returns the node once it has done so.
    ///
    /// # Errors
    ///
    /// Returns [`DrainError::Unknown`] or `Ambiguous` if no node or several nodes have the name, `Stopping` if a node that is
    /// stopping is resumed, `Silent` if the node did not answer, and `Store` if the store failed before that.
    pub async fn set_drained(&self, name: &NodeName, drained: bool, by: Author) -> Result<DrainedNode, DrainError> {
        let node = self.find_node(name).await?;
        let (changed, done) = if node == self.0.node {
            self.set_drained_here(drained, &by).await?
        } else {
            self.set_drained_there(node, drained, &by).await?
        };
        if changed {
            // A node must be drained also where the store is away; then the host's log alone has the act.
            let act = NewAct::of_drain(by, (done.id, &done.name), drained);
            let store = &self.0.store;
            let _ = store.call_with_timeout("adding an act", store.add_act(act)).await;
        }
        Ok(done)
    }

    /// Returns the node that an operator named. This node is found without the store.
    async fn find_node(&self, name: &NodeName) -> Result<NodeId, DrainError> {
        let (here, own) = (self.0.node, [(self.0.node, self.0.name.as_str())]);
        let is_text = |id: NodeId| matches!(name, NodeName::Text(text) if id.to_string() == *text);
        if *name == NodeName::Here || is_text(here) {
            return Ok(here);
        }
        let nodes = match self.0.store.nodes().await {
            Ok(nodes) => nodes,
            Err(error) => return name.find(here, &own).map_err(|_| error.into()),
        };
        let known = nodes.iter().filter(|node| is_text(node.id) || !node.is_replaced(&nodes));
        let known: Vec<(NodeId, &str)> = known.map(|node| (node.id, node.name.as_str())).collect();
        name.find(here, &known).map_err(|ids| {
            let NodeName::Text(name) = name.clone() else { return DrainError::Unknown(NodeName::HERE.to_owned()) };
            if ids.is_empty() { DrainError::Unknown(name) } else { DrainError::Ambiguous { name, ids } }
        })
    }

    /// Drains or resumes this node. Returns true beside it if that changed anything.
    async fn set_drained_here(&self, drained: bool, by: &Author) -> Result<(bool, DrainedNode), DrainError> {
        let (id, name) = (self.0.node, self.0.name.clone());
        let mut load = self.0.load.clone();
        let before = *load.borrow();
        if before.stopping && !drained {
            return Err(DrainError::Stopping(name));
        }
        self.0.enqueuer.set_drained(drained, by.name().map(str::to_owned));
        let done = load.wait_for(|load| load.draining == drained || load.stopping);
        let Ok(Ok(load)) = tokio::time::timeout(ANSWER_TIMEOUT, done).await.map(|load| load.map(|load| *load)) else {
            return Err(DrainError::Silent(name));
        };
        if load.draining != drained {
            return Err(DrainError::Stopping(name));
        }
        let changed = before.draining != drained;
        Ok((changed, DrainedNode { id, name, draining: load.draining, running: load.running }))
    }

    /// Asks another node to drain itself or to claim jobs again, and waits until it says so in the store.
    async fn set_drained_there(
        &self,
        node: NodeId,
        drained: bool,
        by: &Author,
    ) -> Result<(bool, DrainedNode), DrainError> {
        let store = &self.0.store;
        let Some(before) = self.announced(node).await? else { return Err(DrainError::Unknown(node.to_string())) };
        if before.stopping && !drained {
            return Err(DrainError::Stopping(before.name));
        }
        let Some(channel) = store.messages() else { return Err(DrainError::Silent(before.name)) };
        let until = store.now() + ANSWER_TIMEOUT;
        let about = MessageBody::SetDrained { drained, by: by.name().map(str::to_owned), until };
        let message = NodeMessage { from: self.0.node, to: node, broadcast: store.next_id()?, about };
        store.call_with_timeout("sending a message to another node", channel.send_messages(vec![message])).await?;
        let done = async {
            loop {
                match self.announced(node).await? {
                    Some(now) if now.draining == drained => return Ok(now),
                    Some(now) if now.stopping => return Err(DrainError::Stopping(now.name)),
                    Some(_) => tokio::time::sleep(LOOK_INTERVAL).await,
                    None => return Err(DrainError::Silent(before.name.clone())),
                }
            }
        };
        let Ok(done) = tokio::time::timeout(ANSWER_TIMEOUT, done).await else {
            return Err(DrainError::Silent(before.name));
        };
        let Node { id, name, draining, running, .. } = done?;
        Ok((before.draining != drained, DrainedNode { id, name, draining, running }))
    }

    async fn announced(&self, id: NodeId) -> Result<Option<Node>, StoreError> {
        Ok(self.0.store.nodes().await?.into_iter().find(|node| node.id == id))
    }
}
