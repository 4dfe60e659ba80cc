//! The plugin's manifest and the operator's settings for it: parsed, checked, ready to use. Modules are in reading
//! order; each uses only those above it.

/// Problems of a plugin or of its settings.
pub mod problem;
/// Names of plugin files.
pub mod file_name;
/// TOML with the place of each mistake.
pub mod toml_diagnostics;
/// Durations as users write them.
pub mod duration;
/// Schedules that a plugin suggests.
pub mod suggestion;
/// Manifests and settings as they are written.
pub mod raw;
pub(crate) mod typed;
mod check_budget;
mod schema_cost;
/// Payload schemas and key pointers.
pub mod payload;
/// Public and private IP addresses.
pub mod ip_policy;
/// One member of a JSON text.
pub mod json_member;
/// One place that plugins may send HTTP requests to.
pub mod http_grant;
/// Secrets that the host puts into the headers of plugins' requests.
pub mod secret;
/// The operator's settings of one plugin.
pub mod grants;
mod lost_grants;
/// Tasks that are exported functions.
pub mod function_task;
/// The parts of a manifest and where they come from.
pub mod sources;
/// Tasks with their defaults applied.
pub mod task;
/// Manifests with the operator's settings applied.
pub mod manifest;
pub(crate) mod budget_check;
