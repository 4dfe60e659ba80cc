//! A host that runs already, used over its HTTP API.

use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::Method;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use wharf_runner::Request;

use super::raw_http::{Connection, HostAddress};
use crate::cli_error::{CliError, ExitStatus};
use crate::http::api::PluginFile;
use crate::http::{encode, to_base64};

/// The interval at which the host is polled for jobs that have not ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A client of a running host.
pub(super) struct RemoteHost {
    /// A connection for requests that are sent one after the other.
    connection: Mutex<Connection>,
}

impl RemoteHost {
    /// Connects to a host.
    ///
    /// # Errors
    /// When it cannot be reached, or has not loaded `task`.
    pub(super) async fn reach(address: HostAddress, task: &str) -> anyhow::Result<RemoteHost> {
        let mut connection = address.connect().await?;
        let plugins: Vec<PluginFile> = serde_json::from_value(connection.json("/v1/plugins").await?)
            .context("could not understand the list of plugins that the host sent")?;
        let mut tasks = plugins.iter().filter_map(|plugin| plugin.loaded.as_ref()).flat_map(|loaded| &loaded.tasks);
        if !tasks.any(|known| known.task == task) {
            let text = format!(
                "the host has not loaded the task `{task}`; write the plugin of the benchmarks into its folder with \
                 `wharf bench plugin PLUGINS/bench.wasm`, or name another with --task"
            );
            return Err(CliError::new(ExitStatus::Refused, text).into());
        }
        Ok(RemoteHost { connection: Mutex::new(connection) })
    }

    pub(super) async fn enqueue(&self, requests: Vec<Request>) -> anyhow::Result<()> {
        let documents: Vec<_> = requests.into_iter().map(job_document).collect();
        let body = serde_json::to_vec(&documents).context("could not serialize the jobs")?;
        let mut connection = self.connection.lock().await;
        connection.request_ok(Method::POST, "/v1/jobs", "application/json", body.into()).await?;
        Ok(())
    }

    /// Runs one job, and returns when its result is there.
    pub(super) async fn single(&self, request: Request, max: Duration) -> anyhow::Result<()> {
        let path = format!("/v1/jobs?task={}&wait={}s", encode(&request.task), max.as_secs());
        let mut connection = self.connection.lock().await;
        connection.request_ok(Method::POST, &path, "application/octet-stream", request.payload.into()).await?;
        Ok(())
    }

    /// Waits until no job of the task is waiting or running.
    pub(super) async fn until_all_ended(&self, task: &str) -> anyhow::Result<()> {
        let mut connection = self.connection.lock().await;
        for state in ["waiting", "running"] {
            let path = format!("/v1/jobs?task={}&state={state}&limit=1", encode(task));
            while !connection.json(&path).await?["jobs"].as_array().is_none_or(Vec::is_empty) {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        Ok(())
    }

    /// Sends a broadcast and returns the number of subscribers that replied.
    pub(super) async fn broadcast(&self, topic: &str, payload: Bytes) -> anyhow::Result<usize> {
        let path = format!("/v1/broadcasts/{}?timeout=60s", encode(topic));
        let mut connection = self.connection.lock().await;
        let bytes = connection.request_ok(Method::POST, &path, "application/octet-stream", payload).await?;
        let response: serde_json::Value =
            serde_json::from_slice(&bytes).context("could not parse the response of the host as JSON")?;
        let replies = response["replies"].as_array().context("the response of the host contains no replies")?;
        Ok(replies.iter().filter(|reply| reply["outcome"] == "replied").count())
    }
}

fn job_document(request: Request) -> serde_json::Value {
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
