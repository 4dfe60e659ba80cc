//! The header `Retry-After` of a response: seconds, or a moment that counts from the response's own `Date`.

use std::time::Duration;

use http::header::{DATE, HeaderName, RETRY_AFTER};
use http::{Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// Returns for how long a response asks not to be called, at most `max`; `None` unless it is a 429 or a 503 that says so.
pub(crate) fn hold_length<B>(response: &Response<B>, max: Duration) -> Option<Duration> {
    if !matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let length = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        // By the clock of whoever wrote both: this host's own may be another.
        Err(_) => Duration::try_from(moment(response, &RETRY_AFTER)?.duration_since(moment(response, &DATE)?)).ok()?,
    };
    (!length.is_zero()).then_some(length.min(max))
}

fn moment<B>(response: &Response<B>, name: &HeaderName) -> Option<Timestamp> {
    let text = response.headers().get(name)?.to_str().ok()?;
    DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(status: u16, headers: &[(&str, &str)]) -> Option<u64> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        hold_length(&response.body(()).unwrap(), Duration::from_secs(100)).map(|length| length.as_secs())
    }

    #[test]
    fn seconds_and_moments_are_read_and_bounded() {
        let date = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let after = |value| ("Retry-After", value);
        for (status, headers, expected) in [
            (429, vec![after("30")], Some(30)),
            (503, vec![after(" 7 ")], Some(7)),
            (429, vec![after("99999999999")], Some(100)),
            (429, vec![after("0")], None),
            (429, vec![after("-3")], None),
            (429, vec![after("soon")], None),
            (429, vec![], None),
            (500, vec![after("30")], None),
            (200, vec![after("30")], None),
            (429, vec![date, after("Sun, 06 Nov 1994 08:49:49 GMT")], Some(12)),
            (429, vec![date, after("Sun, 06 Nov 1994 08:49:37 GMT")], None),
            (429, vec![date, after("Sat, 05 Nov 1994 08:49:37 GMT")], None),
            (429, vec![date, after("Sat, 06 Nov 2094 08:49:37 GMT")], Some(100)),
            (429, vec![after("Sun, 06 Nov 1994 08:49:49 GMT")], None),
        ] {
            assert_eq!(length(status, &headers), expected, "{status} {headers:?}");
        }
    }
}
