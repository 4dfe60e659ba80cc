//! A host that runs already, over its HTTP API.

use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::Method;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use wharf_runner::Request;

use super::super::cli_error::{Ending, Exit};
use super::wire::{Connection, Place};
use crate::http::api::PluginFile;
use crate::http::{encode, to_base64};

/// How often it is asked whether jobs still wait.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(super) struct Running {
    /// For what is asked one after the other.
    connection: Mutex<Connection>,
}

impl Running {
    /// Makes sure that it has the task.
    pub(super) async fn reach(place: Place, task: &str) -> anyhow::Result<Running> {
        let mut connection = place.connect().await?;
        let plugins: Vec<PluginFile> = serde_json::from_value(connection.json("/v1/plugins").await?)
            .context("the host describes its plugins in a way that this command does not understand")?;
        let mut tasks = plugins.iter().filter_map(|plugin| plugin.loaded.as_ref()).flat_map(|loaded| &loaded.tasks);
        if !tasks.any(|known| known.task == task) {
            let text = format!(
                "the host has no task `{task}`; write the plugin of the bench into its folder with \
                 `wharf bench plugin PLUGINS/bench.wasm`, or name another with --task"
            );
            return Err(Ending::new(Exit::Refused, text).into());
        }
        Ok(Running { connection: Mutex::new(connection) })
    }

    pub(super) async fn enqueue(&self, requests: Vec<Request>) -> anyhow::Result<()> {
        let documents: Vec<_> = requests.into_iter().map(document).collect();
        let body = serde_json::to_vec(&documents).context("could not write the jobs as JSON")?;
        let mut connection = self.connection.lock().await;
        connection.must(Method::POST, "/v1/jobs", "application/json", body.into()).await?;
        Ok(())
    }

    /// From the request until the result is there.
    pub(super) async fn single(&self, request: Request, max: Duration) -> anyhow::Result<()> {
        let path = format!("/v1/jobs?task={}&wait={}s", encode(&request.task), max.as_secs());
        let mut connection = self.connection.lock().await;
        connection.must(Method::POST, &path, "application/octet-stream", request.payload.into()).await?;
        Ok(())
    }

    /// Waits until no job of the task waits or runs any more.
    pub(super) async fn until_all_ended(&self, task: &str) -> anyhow::Result<()> {
        let mut connection = self.connection.lock().await;
        for state in ["waiting", "running"] {
            let path = format!("/v1/jobs?task={}&state={state}&limit=1", encode(task));
            while !connection.json(&path).await?["jobs"].as_array().is_none_or(Vec::is_empty) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// How many subscribers replied.
    pub(super) async fn broadcast(&self, topic: &str, payload: Bytes) -> anyhow::Result<usize> {
        let path = format!("/v1/broadcasts/{}?timeout=60s", encode(topic));
        let mut connection = self.connection.lock().await;
        let bytes = connection.must(Method::POST, &path, "application/octet-stream", payload).await?;
        let answer: serde_json::Value = serde_json::from_slice(&bytes).context("the host answered with no JSON")?;
        let replies = answer["replies"].as_array().context("the host answered without replies")?;
        Ok(replies.iter().filter(|reply| reply["outcome"] == "replied").count())
    }
}

fn document(request: Request) -> serde_json::Value {
    let text = std::str::from_utf8(&request.payload).ok();
    let mut document = json!({ "task": request.task });
    match text.and_then(|text| serde_json::from_str::<Box<RawValue>>(text).ok()) {
        Some(payload) => document["payload"] = json!(payload),
        None => document["payload_base64"] = json!(to_base64(&request.payload)),
    }
    if let Some(key) = request.key {
        document["key"] = json!(key);
    }
    document
}
