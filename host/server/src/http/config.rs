//! `/v1/config`: the settings of this host.

use axum::Json;
use axum::extract::State;

use super::api::Config;
use super::held_config::HeldConfig;

/// Returns the settings that hold, and what of the settings file does not.
pub(crate) async fn show(State(held): State<HeldConfig>) -> Json<Config> {
    Json(Config::clone(&held.get()))
}
