//! `/v1/nodes`: the hosts that share the store.

use axum::Json;
use axum::extract::State;
use wharf_runner::Host;

use super::api::Node;
use super::problem::Problem;

/// Lists the nodes.
pub(crate) async fn list(State(host): State<Host>) -> Result<Json<Vec<Node>>, Problem> {
    let here = host.node();
    Ok(Json(host.nodes().await?.into_iter().map(|node| Node::new(node, here)).collect()))
}
