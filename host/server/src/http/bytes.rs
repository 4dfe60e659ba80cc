//! Payloads, results and chunks on the wire: bytes that may be JSON, text or anything.

use axum::http::{HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

/// Size in bytes up to which a payload or result is in the job's document; a larger one is only at its own route.
const INLINE_BYTES_MAX: usize = 256 * 1024;

/// Nesting depth up to which JSON is embedded in a document: with the levels of the document around it, it stays within the 64
/// levels that the strictest of the usual readers accept.
const INLINE_DEPTH_MAX: usize = 60;

/// Encodes bytes in base64 with padding.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Returns the payload of a request: the bytes of `payload`, or those that `payload_base64` encodes, or `null`.
pub(crate) fn payload_bytes(payload: Option<Box<RawValue>>, payload_base64: Option<String>) -> Result<Vec<u8>, String> {
    match (payload, payload_base64) {
        (Some(_), Some(_)) => Err("`payload` and `payload_base64` exclude each other; use `payload` for JSON, \
                                   `payload_base64` for other bytes"
            .to_owned()),
        (Some(json), None) => Ok(String::from(Box::<str>::from(json)).into_bytes()),
        (None, Some(text)) => STANDARD
            .decode(text.trim())
            .map_err(|error| format!("`payload_base64`: invalid base64: {error}; encode it with padding")),
        (None, None) => Ok(b"null".to_vec()),
    }
}

/// Bytes in a document: as JSON, or in base64; at most one of the two is present.
pub(crate) type JsonOrBase64 = (Option<Box<RawValue>>, Option<String>);

/// Returns the bytes as [`json_or_base64`] does, but neither if they are too long. White space around JSON is left out.
pub(crate) fn inline(bytes: &[u8]) -> JsonOrBase64 {
    if bytes.len() > INLINE_BYTES_MAX { (None, None) } else { json_or_base64(bytes) }
}

/// Returns the bytes, however long they are: as JSON if a document can embed them, otherwise in base64.
pub(crate) fn json_or_base64(bytes: &[u8]) -> JsonOrBase64 {
    match embeddable(bytes) {
        Some(json) => (Some(json), None),
        None => (None, Some(to_base64(bytes))),
    }
}

/// Returns the bytes for an event of a stream: as [`json_or_base64`] does, but in base64 if the JSON has a carriage return,
/// which the data of an event cannot contain.
pub(crate) fn json_or_base64_of_event(bytes: &[u8]) -> JsonOrBase64 {
    match json_or_base64(bytes) {
        (Some(json), _) if json.get().contains('\r') => (None, Some(to_base64(bytes))),
        either => either,
    }
}

/// Returns the bytes as JSON, if every reader of the document around it can read it: many refuse deeply nested JSON.
fn embeddable(bytes: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(bytes).ok().filter(|_| depth(bytes) <= INLINE_DEPTH_MAX)
}

/// Returns the nesting depth of JSON text.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut max, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                max = max.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    max
}

/// Every media type that [`media_type`] returns, without parameters.
pub(crate) const MEDIA_TYPES: [&str; 7] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "application/json",
    "text/plain",
    "application/octet-stream",
];

/// Detects the media type of bytes that a plugin returned. Never returns a type that a browser would run.
pub(crate) fn media_type(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ if bytes.is_empty() => "application/octet-stream",
        _ => match std::str::from_utf8(bytes) {
            Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => "application/json",
            Ok(_) => "text/plain; charset=utf-8",
            Err(_) => "application/octet-stream",
        },
    }
}

/// Returns headers that make a plugin's bytes, of this media type, harmless in a browser.
pub(crate) fn harmless_headers(media_type: &'static str) -> [(HeaderName, HeaderValue); 3] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline_json(bytes: &[u8]) -> Option<Box<RawValue>> {
        inline(bytes).0
    }

    #[test]
    fn media_types_are_detected_from_the_bytes_and_never_html() {
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
        assert_eq!(inline(text.as_bytes()).1, None);
        assert_eq!(inline(b"\xff").1, Some("/w==".to_owned()));
        assert!(matches!(inline(&vec![b'1'; INLINE_BYTES_MAX + 1]), (None, None)));
        assert_eq!(media_type(b"\"\xff\""), "application/octet-stream", "bytes that are not text are not JSON");
        for odd in ["1e400", r#""\ud800""#, r#"{"a":1,"a":2}"#, "null", "[\n1 ]"] {
            assert_eq!(inline_json(odd.as_bytes()).unwrap().get(), odd);
        }
    }

    #[test]
    fn a_payload_is_json_or_base64_or_null() {
        let json = |text: &str| Some(RawValue::from_string(text.to_owned()).unwrap());
        assert_eq!(payload_bytes(json("[1]"), None).unwrap(), b"[1]");
        assert_eq!(payload_bytes(None, Some("/w==".to_owned())).unwrap(), [0xff]);
        assert_eq!(payload_bytes(None, None).unwrap(), b"null");
        assert!(payload_bytes(None, Some("/w".to_owned())).unwrap_err().contains("`payload_base64`: invalid base64"));
        assert!(payload_bytes(json("1"), Some(String::new())).unwrap_err().contains("exclude each other"));
    }

    #[test]
    fn what_would_make_a_document_unreadable_is_base64() {
        let nested = |levels: usize| format!(r#"{}"[[\"[["{}"#, "[".repeat(levels), "]".repeat(levels));
        let (deepest, deeper) = (nested(INLINE_DEPTH_MAX), nested(INLINE_DEPTH_MAX + 1));
        assert_eq!(inline_json(deepest.as_bytes()).unwrap().get(), deepest);
        assert!(inline_json(deeper.as_bytes()).is_none() && inline_json(nested(100_000).as_bytes()).is_none());
        assert_eq!(json_or_base64(deeper.as_bytes()).1, Some(to_base64(deeper.as_bytes())));
        assert_eq!(json_or_base64(b"[1,\r\n2]").1, None);
        assert_eq!(json_or_base64_of_event(b"[1,\r\n2]").1, Some(to_base64(b"[1,\r\n2]")));
        assert_eq!(json_or_base64_of_event(b"[1,\n2]").0.unwrap().get(), "[1,\n2]");
    }
}
