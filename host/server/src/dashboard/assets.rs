//! The files that pages load: style, scripts and the icon, built into the program. Each has the digest of its bytes in its name, so
//! that browsers keep it for ever and never use an old one.

use std::sync::LazyLock;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use crate::http::path::Path;

/// A file.
struct Asset {
    /// The name under which it is served.
    name: String,
    media_type: &'static str,
    bytes: &'static [u8],
}

impl Asset {
    fn new(stem: &str, ending: &str, media_type: &'static str, bytes: &'static [u8]) -> Asset {
        let digest: String = Sha256::digest(bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Asset { name: format!("{stem}.{digest}.{ending}"), media_type, bytes }
    }
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dashboard", "css", "text/css; charset=utf-8", include_bytes!("assets/dashboard.css")));
static LIVE: LazyLock<Asset> = LazyLock::new(|| Asset::new("live", "js", JAVASCRIPT, include_bytes!("assets/live.js")));
static KEYS: LazyLock<Asset> = LazyLock::new(|| Asset::new("keys", "js", JAVASCRIPT, include_bytes!("assets/keys.js")));
static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_bytes!("assets/icon.svg")));

fn all() -> [&'static Asset; 4] {
    [&STYLE, &LIVE, &KEYS, &ICON]
}

/// Returns the name of the style sheet.
pub(super) fn style() -> &'static str {
    &STYLE.name
}

/// Returns the names of the scripts.
pub(super) fn scripts() -> [&'static str; 2] {
    [&LIVE.name, &KEYS.name]
}

/// Returns the name of the icon.
pub(super) fn icon() -> &'static str {
    &ICON.name
}

/// Answers with a file. A name of another version is unknown.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    match all().into_iter().find(|asset| asset.name == name) {
        Some(asset) => {
            let headers = [
                (header::CONTENT_TYPE, asset.media_type),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, asset.bytes).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
