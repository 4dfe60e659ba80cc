//! Payloads, results and chunks on the wire: bytes that may be JSON, text or anything.

use axum::http::{HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

/// Larger values are not put into a job's document, but fetched by themselves.
const INLINE_BYTES_MAX: usize = 256 * 1024;

/// JSON that is nested deeper stands in no other document: with what stands around it, it stays within the 64 levels that the
/// strictest of the usual readers take.
const INLINE_DEPTH_MAX: usize = 60;

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text.trim()).map_err(|error| format!("it is not base64 with padding: {error}"))
}

/// The bytes as they stand in a JSON document, where they are JSON that can stand there, and not too long.
/// What surrounds the value, which is nothing but white space, is no part of it.
pub(crate) fn inline_json(bytes: &[u8]) -> Option<Box<RawValue>> {
    if bytes.len() > INLINE_BYTES_MAX { None } else { embeddable(bytes) }
}

/// The bytes as base64, where they cannot stand in a JSON document as they are, and not too long.
pub(crate) fn inline_base64(bytes: &[u8]) -> Option<String> {
    (bytes.len() <= INLINE_BYTES_MAX && inline_json(bytes).is_none()).then(|| to_base64(bytes))
}

/// Bytes in a document: as JSON, or as base64.
pub(crate) type Carried = (Option<Box<RawValue>>, Option<String>);

/// The bytes however long they are: as JSON where they are that, else as base64.
pub(crate) fn json_or_base64(bytes: &[u8]) -> Carried {
    match embeddable(bytes) {
        Some(json) => (Some(json), None),
        None => (None, Some(to_base64(bytes))),
    }
}

/// The same for one event of a stream, in which no carriage return can stand.
pub(crate) fn json_or_base64_of_event(bytes: &[u8]) -> Carried {
    match json_or_base64(bytes) {
        (Some(json), _) if json.get().contains('\r') => (None, Some(to_base64(bytes))),
        either => either,
    }
}

/// JSON that any reader of the document around it reads: many give up where it is nested deep.
fn embeddable(bytes: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(bytes).ok().filter(|_| depth(bytes) <= INLINE_DEPTH_MAX)
}

/// How deep JSON text is nested.
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
        _ if bytes.is_empty() => "application/octet-stream",
        _ => match std::str::from_utf8(bytes) {
            Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => "application/json",
            Ok(_) => "text/plain; charset=utf-8",
            Err(_) => "application/octet-stream",
        },
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
        assert_eq!(media_type(b"\"\xff\""), "application/octet-stream", "bytes that are no text are no JSON");
        for odd in ["1e400", r#""\ud800""#, r#"{"a":1,"a":2}"#, "null", "[\n1 ]"] {
            assert_eq!(inline_json(odd.as_bytes()).unwrap().get(), odd);
        }
    }

    #[test]
    fn what_would_make_a_document_unreadable_is_base64() {
        let nested = |levels: usize| format!(r#"{}"[[\"[["{}"#, "[".repeat(levels), "]".repeat(levels));
        let (at_most, deeper) = (nested(INLINE_DEPTH_MAX), nested(INLINE_DEPTH_MAX + 1));
        assert_eq!(inline_json(at_most.as_bytes()).unwrap().get(), at_most);
        assert!(inline_json(deeper.as_bytes()).is_none() && inline_json(nested(100_000).as_bytes()).is_none());
        assert_eq!(json_or_base64(deeper.as_bytes()).1, Some(to_base64(deeper.as_bytes())));
        assert_eq!(json_or_base64(b"[1,\r\n2]").1, None);
        assert_eq!(json_or_base64_of_event(b"[1,\r\n2]").1, Some(to_base64(b"[1,\r\n2]")));
        assert_eq!(json_or_base64_of_event(b"[1,\n2]").0.unwrap().get(), "[1,\n2]");
    }
}
