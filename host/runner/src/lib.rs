//! A whole Wharf host in one process, without HTTP: jobs are claimed and run, plugins come and go, leases are renewed.
//!
//! [`Host`] is the handle of a running host; each request of a client is one of its methods. This crate holds everything that
//! happens over time. It knows no HTTP, no SQL and no settings files.
//!
//! # Example
//!
//! Starts a host on a store and an engine, enqueues one job and waits for its end.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use wharf_core::ids::NodeId;
//! use wharf_engine::{CacheSettings, Compile, Engine};
//! use wharf_runner::{Enqueued, Host, Parts, Request, Settings};
//! use wharf_store::{MemoryStore, SystemClock};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::new(wharf_engine::Settings {
//!     attempts: 64,
//!     broadcast_calls: 64,
//!     guest_threads: 4,
//!     cache: CacheSettings::in_folder("/var/cache/wharf"),
//!     compile: Compile::InProcess,
//!     memory_budget: 1 << 30,
//!     extra_ca: None,
//! })?;
//! let store = Arc::new(MemoryStore::open(Arc::new(SystemClock)));
//! let settings = Settings {
//!     node: NodeId(1),
//!     name: "one".to_owned(),
//!     version: "1.0".to_owned(),
//!     plugins_dir: "plugins".into(),
//!     attempts: 64,
//!     broadcasts: 16,
//!     lease: Duration::from_secs(30),
//!     lease_margin: Duration::from_secs(3),
//!     write_timeout: Duration::from_secs(20),
//!     cancel_grace: Duration::from_secs(5),
//!     upkeep_interval: Duration::from_secs(300),
//!     rescan: Duration::from_secs(5),
//!     live: Default::default(),
//! };
//! let host = Host::start(Parts { store, engine }, settings, |notice| println!("{notice:?}")).await?;
//! host.ready().await;
//!
//! let payload = br#"{"text": "to be or not to be"}"#.to_vec();
//! let request = Request { task: "words/count".to_owned(), payload, ..Request::default() };
//! if let Enqueued::Added(id) = host.enqueue(vec![request]).await?.remove(0) {
//!     let job = host.wait(id, Duration::from_secs(60)).await?;
//!     println!("{job:?}");
//! }
//! host.drain(Duration::from_secs(30)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Embedding a host in an axum program
//!
//! A route that enqueues its body as a job, and another one that returns the result. The host drains when the program is asked to end.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use axum::Router;
//! use axum::body::Bytes;
//! use axum::extract::{Path, State};
//! use axum::http::StatusCode;
//! use axum::routing::{get, post};
//! use wharf_core::ids::JobId;
//! use wharf_engine::{CacheSettings, Compile, Engine};
//! use wharf_runner::{EnqueueError, Enqueued, Host, Parts, Request, Settings};
//! use wharf_store::{StoreError, SystemClock, open};
//!
//! type Refused = (StatusCode, String);
//!
//! async fn enqueue(State(host): State<Host>, Path((plugin, task)): Path<(String, String)>, body: Bytes) -> Result<String, Refused> {
//!     let request = Request { task: format!("{plugin}/{task}"), payload: body.to_vec(), ..Request::default() };
//!     let refused = |error: EnqueueError| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
//!     match host.enqueue(vec![request]).await.map_err(refused)?.remove(0) {
//!         Enqueued::Added(id) | Enqueued::Duplicate(id) => Ok(id.to_string()),
//!         Enqueued::Discarded { .. } => Err((StatusCode::CONFLICT, "its lane is full".to_owned())),
//!     }
//! }
//!
//! async fn result(State(host): State<Host>, Path(id): Path<String>) -> Result<Vec<u8>, Refused> {
//!     let id = id.parse::<JobId>().map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
//!     let failed = |error: StoreError| (StatusCode::SERVICE_UNAVAILABLE, error.to_string());
//!     let ended = host.wait(id, Duration::from_secs(30)).await.map_err(failed)?;
//!     let output = ended.and_then(|snapshot| snapshot.job.result);
//!     output.map(|output| output.to_vec()).ok_or((StatusCode::NOT_FOUND, "it has no result yet".to_owned()))
//! }
//!
//! # async fn example(settings: Settings, end: impl Future<Output = ()> + Send + 'static) -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::new(wharf_engine::Settings {
//!     attempts: 64,
//!     broadcast_calls: 64,
//!     guest_threads: 4,
//!     cache: CacheSettings::in_folder("/var/cache/wharf"),
//!     compile: Compile::InProcess,
//!     memory_budget: 1 << 30,
//!     extra_ca: None,
//! })?;
//! let store = open("sqlite:jobs.db", Arc::new(SystemClock)).await?;
//! let host = Host::start(Parts { store, engine }, settings, |_| {}).await?;
//! let routes = Router::new().route("/jobs/{plugin}/{task}", post(enqueue)).route("/results/{id}", get(result));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, routes.with_state(host.clone())).with_graceful_shutdown(end).await?;
//! host.drain(Duration::from_secs(20)).await;
//! # Ok(())
//! # }
//! ```
//!
//! Modules are declared in reading order; each uses only those above it.

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod schedule_times;
mod live_settings;
mod notice;
mod catalog;
mod other_nodes;
mod plugin_view;
mod rejection;
mod request;
mod parse_room;
mod store_health;
mod failed_jobs;
mod queue_bounds;
mod follow;
mod check_threads;
mod guest_store;
mod child_jobs;
mod loop_message;
mod enqueuer;
mod store_wait;
mod shared_activity;
mod kv_view;
mod held_subscribers;
mod broadcast;
mod attempt_host;
mod task_memory;
mod attempt_room;
mod attempt;
mod task_concurrency;
mod dispatch;
mod dir_scan;
mod folder;
mod upkeep;
mod heartbeat;
mod limits_view;
mod holds_view;
mod search_room;
mod operations;
mod tick_payload;
mod schedules;
mod schedule_sync;
mod scheduler;
mod wait_reason;
mod summary;
mod answer;
mod start;
mod known_jobs;
mod client_jobs;
mod host;

pub use answer::{ChangeError, Durable, EnqueueError, Enqueued, HealthSnapshot};
pub use broadcast::{Batch, BatchJob, Broadcast, BroadcastError, Replies};
pub use catalog::{Catalog, Loaded, PendingFile, Refused, Step};
pub use follow::JobUpdate;
pub use holds_view::{HoldError, HoldSet};
pub use host::{DrainError, DrainedNode, Host};
pub use limits_view::{GroupLimits, LaneUse, LimitError, WaitingJobs};
pub use live_settings::{LiveSettings, SettingsChanges, SettingsRejection};
pub use notice::{AttemptEnded, BroadcastEnded, BroadcastEnding, FailedJob, Notice};
pub use operations::{OperationError, OperationRequest, Preview, StartedOperation};
pub use parse_room::NoRoom;
pub use plugin_view::LoadingWhere;
pub use queue_bounds::QueueFull;
pub use rejection::{BadRequest, EnqueueRejection};
pub use request::Request;
pub use schedule_times::{
    ClockChange, MOMENTS_SHOWN, NextMoment, TimingError, check_timing, next_moments, zone_name, zones_version,
};
pub use schedules::{ScheduleError, checked_schedule};
pub use start::{Parts, Settings, StartError};
pub use summary::{Summary, TaskSummary};
pub use wait_reason::{JobView, JobWaitReason, NodeForTask};
pub use wharf_store::StoreSize;
