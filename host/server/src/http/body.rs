//! Reads a request's body, with bounds on its size and on its speed.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytesize::ByteSize;
use futures_util::StreamExt;

use super::memory::BodyMemory;
use super::problem::{Kind, Problem};

/// The longest time between two parts of a body: a silent client must not hold memory.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Time that every body may take, however short it is.
const TOTAL_MIN: Duration = Duration::from_secs(60);
/// Speed that a body must reach on top of [`TOTAL_MIN`]: a client that sends a byte now and then must not hold memory either.
const BYTES_PER_SECOND_MIN: usize = 64 * 1024;

/// Returns the time that a body may have taken of which so many bytes were received.
fn time_limit(bytes: usize) -> Duration {
    TOTAL_MIN + Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64)
}

/// Memory that is reserved for a body, at most, as a multiple of what was received of it: what was received is copied whenever
/// that is used up, and what is only announced must not hold memory.
const RESERVED_TO_RECEIVED_MAX: usize = 16;

/// Returns the media type of a body, in lower case without its parameters; empty if `Content-Type` is absent.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<String, Problem> {
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = given.next() else { return Ok(String::new()) };
    if given.next().is_some() {
        return Err(Problem::bad_request("`Content-Type` is given twice; leave one out"));
    }
    let text = value.to_str().map_err(|_| Problem::bad_request("invalid `Content-Type`: expected ASCII text"))?;
    Ok(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Refuses a body with a content encoding: it would be taken for its content.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let is_identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get_all(header::CONTENT_ENCODING).iter().find(|value| !is_identity(value)) {
        None => Ok(()),
        Some(value) => Err(Problem::bad_request(format!(
            "the body is encoded as {value:?}, which this host does not decode; send it without `Content-Encoding`"
        ))),
    }
}

/// Refuses the header `Idempotency-Key`: a client that sends it relies on it, and would enqueue a job twice. `instead` is what
/// the client can do.
pub(crate) fn no_idempotency_key(headers: &HeaderMap, instead: &str) -> Result<(), Problem> {
    if headers.contains_key("idempotency-key") {
        return Err(Problem::bad_request(format!("`Idempotency-Key` is not supported; {instead}")));
    }
    Ok(())
}

/// Reads a small body of at most `max` bytes, for which no room is reserved.
///
/// # Errors
/// If it has a content encoding, is too large, breaks off, or is too slow.
pub(crate) async fn read_small(headers: &HeaderMap, body: Body, max: u64) -> Result<Vec<u8>, Problem> {
    read_into(headers, body, max, None).await
}

/// Reads a body of at most `max` bytes, for which room is held as it comes.
///
/// # Errors
/// If it has a content encoding, is too large, breaks off, or is too slow, or if there is no room for it.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    max: u64,
    memory: &mut BodyMemory,
) -> Result<Vec<u8>, Problem> {
    read_into(headers, body, max, Some(memory)).await
}

async fn read_into(
    headers: &HeaderMap,
    body: Body,
    max: u64,
    mut memory: Option<&mut BodyMemory>,
) -> Result<Vec<u8>, Problem> {
    check_encoding(headers)?;
    let too_large = || {
        Problem::new(Kind::TOO_LARGE, format!("the body is too large; the limit is {}", ByteSize(max).display().iec()))
    };
    let declared: Option<u64> =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut stream = body.into_data_stream();
    if declared.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let declared = usize::try_from(declared.unwrap_or(0)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(declared.min(64 * 1024));
    let started = Instant::now();
    loop {
        let left = time_limit(bytes.len()).saturating_sub(started.elapsed());
        match tokio::time::timeout(SILENCE_MAX.min(left), stream.next()).await {
            Ok(None) => return Ok(bytes),
            Ok(Some(Ok(part))) if (bytes.len() + part.len()) as u64 > max => {
                return Err(too_large());
            }
            Ok(Some(Ok(part))) => {
                if let Some(memory) = &mut memory {
                    memory.hold(wanted(&bytes, part.len(), declared)).await?;
                }
                reserve(&mut bytes, part.len(), declared);
                bytes.extend_from_slice(&part);
            }
            Ok(Some(Err(error))) => return Err(Problem::bad_request(format!("the body ended early: {error}"))),
            Err(_) if left < SILENCE_MAX => {
                let detail = format!(
                    "received {} bytes in {} seconds; after the first minute at least {} per second are required; nothing was enqueued",
                    bytes.len(),
                    started.elapsed().as_secs(),
                    ByteSize(BYTES_PER_SECOND_MIN as u64).display().iec()
                );
                return Err(Problem::new(Kind::TOO_SLOW, detail));
            }
            Err(_) => {
                let detail = format!("received nothing for {} seconds; nothing was enqueued", SILENCE_MAX.as_secs());
                return Err(Problem::new(Kind::TOO_SLOW, detail));
            }
        }
    }
}

/// Reserves memory for `more` bytes of a body: all that is announced, but no more than [`RESERVED_TO_RECEIVED_MAX`] allows.
fn reserve(bytes: &mut Vec<u8>, more: usize, declared: usize) {
    if bytes.len() + more > bytes.capacity() {
        bytes.reserve_exact(wanted(bytes, more, declared).saturating_sub(bytes.len()));
    }
}

/// Returns the capacity that a body needs for `more` bytes.
fn wanted(bytes: &Vec<u8>, more: usize, declared: usize) -> usize {
    let received = bytes.len() + more;
    if received <= bytes.capacity() {
        return bytes.capacity();
    }
    // Without an announcement the buffer grows as any other: it is doubled.
    let grown = if declared == 0 { bytes.capacity().saturating_mul(2) } else { 0 };
    declared.min(received.saturating_mul(RESERVED_TO_RECEIVED_MAX)).max(received).max(grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn result_text(headers: &HeaderMap, body: &'static str, max: u64) -> String {
        format!("{:?}", read_small(headers, Body::from(body), max).await)
    }

    #[test]
    fn a_large_body_may_take_longer() {
        assert_eq!((time_limit(0), time_limit(6_400 * 1024)), (Duration::from_secs(60), Duration::from_secs(160)));
    }

    #[test]
    fn memory_is_reserved_as_bytes_are_received() {
        let mut bytes = Vec::new();
        let mut capacities = Vec::new();
        for _ in 0..200 {
            reserve(&mut bytes, 1024, 200 * 1024);
            assert!(bytes.capacity() <= (bytes.len() + 1024) * RESERVED_TO_RECEIVED_MAX);
            bytes.extend_from_slice(&[7; 1024]);
            capacities.push(bytes.capacity());
        }
        capacities.dedup();
        assert_eq!(capacities, [16 * 1024, 200 * 1024], "no more than was announced");
        reserve(&mut bytes, 1, 0);
        assert_eq!(bytes.capacity(), 400 * 1024, "without an announcement the buffer grows as any other");
    }

    #[tokio::test]
    async fn a_body_is_bounded_by_received_and_by_announced_bytes() {
        let none = HeaderMap::new();
        assert_eq!(read_small(&none, Body::from("12345"), 5).await.unwrap(), b"12345");
        assert!(result_text(&none, "123456", 5).await.contains("too-large"));
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, "6".parse().unwrap())]);
        assert!(result_text(&announced, "", 5).await.contains("too-large"));
    }

    #[tokio::test]
    async fn headers_that_change_the_meaning_of_a_body_are_obeyed_or_refused() {
        let of = |pairs: &[(header::HeaderName, &str)]| -> HeaderMap {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, value.parse().unwrap());
            }
            headers
        };
        assert!(
            result_text(&of(&[(header::CONTENT_ENCODING, "gzip")]), "x", 5).await.contains("encoded as \\\"gzip\\\"")
        );
        assert_eq!(read_small(&of(&[(header::CONTENT_ENCODING, "Identity")]), Body::from("x"), 5).await.unwrap(), b"x");
        let media = |pairs: &[&str]| {
            media_type(&of(&pairs.iter().map(|value| (header::CONTENT_TYPE, *value)).collect::<Vec<_>>()))
        };
        assert_eq!(media(&["Application/JSON; charset=utf-8"]).unwrap(), "application/json");
        assert_eq!(media(&[]).unwrap(), "");
        let key = of(&[(header::HeaderName::from_static("idempotency-key"), "1")]);
        assert!(no_idempotency_key(&key, "").is_err() && no_idempotency_key(&HeaderMap::new(), "").is_ok());
        assert!(media(&["a/b", "c/d"]).is_err() && media(&["a/\u{fffd}"]).is_err());
    }
}
