//! `/v1/nodes`: the hosts that share the store, and draining one of them.

use axum::Json;
use axum::extract::State;
use wharf_core::author::Author;
use wharf_core::node::NodeName;
use wharf_runner::{DrainError, Host};

use super::api::{DrainedNode, Node};
use super::author::RequestAuthor;
use super::path::Path;
use super::problem::{Kind, Problem};

/// Lists the nodes.
pub(crate) async fn list(State(host): State<Host>) -> Result<Json<Vec<Node>>, Problem> {
    let here = host.node();
    Ok(Json(host.nodes().await?.into_iter().map(|node| Node::new(node, here)).collect()))
}

/// Has a node claim no more jobs.
pub(crate) async fn drain(
    State(host): State<Host>,
    Path(node): Path<String>,
    RequestAuthor(by): RequestAuthor,
) -> Result<Json<DrainedNode>, Problem> {
    set_drained(&host, &node, true, by).await
}

/// Has a drained node claim jobs again.
pub(crate) async fn resume(
    State(host): State<Host>,
    Path(node): Path<String>,
    RequestAuthor(by): RequestAuthor,
) -> Result<Json<DrainedNode>, Problem> {
    set_drained(&host, &node, false, by).await
}

async fn set_drained(host: &Host, node: &str, drained: bool, by: Author) -> Result<Json<DrainedNode>, Problem> {
    let done = host.set_drained(&NodeName::of(node), drained, by).await.map_err(refused)?;
    Ok(Json(done.into()))
}

/// Returns the problem of a node that was not drained or resumed.
pub(crate) fn refused(error: DrainError) -> Problem {
    let text = error.to_string();
    match error {
        DrainError::Unknown(_) => Problem::new(Kind::NODE_UNKNOWN, text),
        DrainError::Ambiguous { .. } => Problem::bad_request(text),
        DrainError::Stopping(_) => Problem::new(Kind::DRAINING, text),
        DrainError::Silent(_) => Problem::new(Kind::NODE_SILENT, text),
        DrainError::Store(error) => error.into(),
    }
}
