//! Payloads, results and chunks on the wire: bytes that may be JSON, text or anything.

use axum::http::{HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

/// Larger values are not put into a job's document, but fetched by themselves.
const INLINE_BYTES_MAX: usize = 256 * 1024;

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text.trim()).map_err(|error| format!("it is not base64 with padding: {error}"))
}

/// The bytes as they stand in a JSON document, where they are JSON and not too long.
pub(crate) fn inline_json(bytes: &[u8]) -> Option<Box<RawValue>> {
    if bytes.len() > INLINE_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

/// The bytes as base64, where they are no JSON and not too long.
pub(crate) fn inline_base64(bytes: &[u8]) -> Option<String> {
    (bytes.len() <= INLINE_BYTES_MAX && inline_json(bytes).is_none()).then(|| to_base64(bytes))
}

/// The bytes however long they are: as JSON where they are that, else as base64.
pub(crate) fn json_or_base64(bytes: &[u8]) -> (Option<Box<RawValue>>, Option<String>) {
    match serde_json::from_slice(bytes) {
        Ok(json) => (Some(json), None),
        Err(_) => (None, Some(to_base64(bytes))),
    }
}

/// Every media type that `media_type` knows.
pub(crate) const MEDIA_TYPES: [&str; 7] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "application/json",
    "text/plain",
    "application/octet-stream",
];

/// The media type of bytes that a plugin returned. Never one that a browser would run.
pub(crate) fn media_type(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ if !bytes.is_empty() && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() => "application/json",
        _ if !bytes.is_empty() && std::str::from_utf8(bytes).is_ok() => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Headers under which a plugin's bytes are harmless in a browser.
pub(crate) fn harmless_headers(bytes: &[u8]) -> [(HeaderName, HeaderValue); 3] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type(bytes))),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_seen_from_the_bytes_and_never_html() {
        assert_eq!(media_type(b"\x89PNG\r\n\x1a\nrest"), "image/png");
        assert_eq!(media_type(b"{\"a\": 1}"), "application/json");
        assert_eq!(media_type(b"<script>alert(1)</script>"), "text/plain; charset=utf-8");
        assert_eq!(media_type(b"\xff\x00"), "application/octet-stream");
        assert_eq!(media_type(b""), "application/octet-stream");
        let heads: [&[u8]; 7] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF1234WEBP", b"1", b"a", b"\xff"];
        assert_eq!(heads.map(|head| media_type(head).split(';').next().unwrap()), MEDIA_TYPES);
    }

    #[test]
    fn json_stays_byte_for_byte() {
        let text = r#"{"n": 12345678901234567890123, "b":1, "a":2}"#;
        assert_eq!(inline_json(text.as_bytes()).unwrap().get(), text);
        assert_eq!(inline_base64(text.as_bytes()), None);
        assert_eq!(inline_base64(b"\xff"), Some("/w==".to_owned()));
    }
}
