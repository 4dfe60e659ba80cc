//! The payload of a tick's job, with the tick in it where the schedule says so.

use wharf_core::find::JsonPath;
use wharf_core::schedule::tick_text;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::time::Timestamp;
use wharf_engine::spec::json_member::with_text;

/// Returns a payload with the tick as the member that `path` names. Objects that are missing on the way are made, and `null` counts
/// as an empty object; all other members stay in their order, with their values as they are written.
///
/// # Errors
///
/// Returns why the payload has no such place.
pub(crate) fn with_tick(payload: &SharedBytes, path: &JsonPath, tick: Timestamp) -> Result<SharedBytes, String> {
    let text = std::str::from_utf8(payload).map_err(|_| not_json(path))?;
    let text = with_text(text, path.fields(), &tick_text(tick)).ok_or_else(|| not_json(path))?;
    Ok(text.into_bytes().into())
}

fn not_json(path: &JsonPath) -> String {
    format!("invalid tick-as `{path}`: expected a path through objects of the payload; a part of it is another value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_is_put_where_the_path_leads_and_the_rest_stays() {
        let tick = Timestamp::from_micros(1_769_821_200_000_000);
        let with = |payload: &str, path: &str| {
            let payload = SharedBytes::from(payload.as_bytes());
            with_tick(&payload, &path.parse().unwrap(), tick).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
        };
        let at = "\"2026-01-31T01:00:00Z\"";
        assert_eq!(with("null", "/tick").unwrap(), format!("{{\"tick\":{at}}}"));
        let large = "{\"n\": 123456789012345678901234567890.10, \"tick\": 1}";
        assert_eq!(with(large, "/tick").unwrap(), format!("{{\"n\":123456789012345678901234567890.10,\"tick\":{at}}}"));
        assert_eq!(with("{\"a\": {\"b\": 1}}", "/a/at").unwrap(), format!("{{\"a\":{{\"b\":1,\"at\":{at}}}}}"));
        assert_eq!(with("{}", "/a/b~1c").unwrap(), format!("{{\"a\":{{\"b/c\":{at}}}}}"));
        for (payload, path) in
            [("[1]", "/0"), ("3", "/tick"), ("{\"a\": [1]}", "/a/0"), ("no JSON", "/tick"), ("{\"a\": 1}", "/a/b")]
        {
            assert!(with(payload, path).unwrap_err().starts_with("invalid tick-as `/"), "{payload} {path}");
        }
    }
}
